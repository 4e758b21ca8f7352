import { createColors } from 'picocolors'
import type { Output, Shell } from './shell.ts'

export type Colors = ReturnType<typeof createColors>

/**
 * Colours for whoever looks at `output`. A pipe or a file gets none, whatever the environment asks for: on a CI machine
 * picocolors would colour them too. A person can refuse them (https://no-color.org).
 */
export function colorsFor(output: Pick<Output, 'isTerminal'>, env: Shell['env']): Colors {
  return createColors(output.isTerminal && (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb')
}
