import { diskFamilies } from './disk-families.ts'
import type { Family } from './family.ts'
import { http2Families } from './http2-families.ts'
import { stateFamilies } from './state-families.ts'
import { streamFamilies } from './stream-families.ts'
import { textFamilies } from './text-families.ts'
import { watchFamilies } from './watch-families.ts'
import { wireFamilies } from './wire-families.ts'

/** Every decoder of bytes that may be bad. */
export const families: readonly Family[] = [
  ...wireFamilies,
  ...http2Families,
  ...diskFamilies,
  ...stateFamilies,
  ...streamFamilies,
  ...watchFamilies,
  ...textFamilies,
]
