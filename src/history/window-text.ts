/** A violation in words and bars: which operations can't be put in order. */
import { timeline } from './timeline.ts'
import type { Window } from './window.ts'

/** Lines without line breaks; `columns` is how wide they may be. */
export function windowText(
  { key, startsAt, operations, others, isSmallest }: Window,
  columns: number,
): string[] {
  const which = operations.length === 1 ? 'this operation' : `these ${operations.length} operations`
  const before = startsAt === null ? '' : `whatever the value was before line ${startsAt}, and `
  return [
    `${key === '' ? '' : `key ${JSON.stringify(key)}: `}${which} can't be put in order,`,
    `${before}whichever of the ${others} others took effect:`,
    ...(isSmallest ? [] : ['(time or memory ended before it was known that no fewer show it)']),
    '',
    ...timeline(operations, columns),
  ]
}
