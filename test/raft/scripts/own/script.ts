/**
 * A script of ours: directives in the form of the public ones (../datadriven.ts), each with all that happened because of
 * it. It is read as documentation and compared as a whole.
 *
 *   # comment
 *   directive arg key=value list=(a,b)
 *   input, a line each
 *   ----
 *   what happened, a line each, up to a blank line
 */
import { type Directive, parse } from '../datadriven.ts'

export interface Machine {
  /** Runs one directive; what happened, in order. */
  run(directive: Directive): Promise<readonly string[]>
}

/** Plays a script and answers its text with what happened. What throws is written down as such, and ends it. */
export async function play(text: string, machine: Machine): Promise<string> {
  const lines = text.split('\n')
  const rewritten: string[] = []
  let at = 0
  for (const directive of parse(text)) {
    const marker = lines.indexOf('----', directive.line - 1)
    rewritten.push(...lines.slice(at, marker + 1))
    at = marker + 1
    while (at < lines.length && lines[at]!.trim() !== '') at++
    try {
      const happened = await machine.run(directive)
      rewritten.push(...(happened.length === 0 ? ['nothing'] : happened))
    } catch (error) {
      rewritten.push(`error: ${(error as Error).message}`)
      break
    }
  }
  rewritten.push(...lines.slice(at))
  return rewritten.join('\n')
}
