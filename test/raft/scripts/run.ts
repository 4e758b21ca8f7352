/** Runs one script file: which machine it drives is told by its folder, as its publisher has sorted them. */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { type Directive, judged, parse } from './datadriven.ts'
import { InteractionScript } from './interaction.ts'
import { ConfChangeScript, quorum } from './tables.ts'

export interface Failure {
  readonly line: number
  readonly command: string
  readonly expected: readonly string[]
  readonly actual: readonly string[]
}

/** Names relative to `folder`, sorted. */
export function scriptsUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.txt'))
    .sort()
}

/** The directives whose answer was wrong. After one that threw nothing more is run: the machine is broken. */
export function runScript(folder: string, name: string): Failure[] {
  const file = join(folder, name)
  const directives = parse(readFileSync(file, 'utf8'))
  if (directives.length === 0) return [{ line: 1, command: '', expected: ['a directive'], actual: [] }]
  const run = machineFor(directives[0]!, basename(dirname(file)))
  const failures: Failure[] = []
  for (const directive of directives) {
    const expected = judged(directive.expected)
    const failure = { line: directive.line, command: directive.name, expected }
    try {
      const actual = judged(run(directive))
      if (!isDeepStrictEqual(actual, expected)) failures.push({ ...failure, actual })
    } catch (error) {
      return [...failures, { ...failure, actual: [String((error as Error).stack ?? error)] }]
    }
  }
  return failures
}

/** By the first directive: a copied script runs wherever it lies. */
function machineFor(first: Directive, folder: string): (directive: Directive) => string[] {
  if (first.name === 'committed' || first.name === 'vote') return quorum
  if (folder === 'confchange' || ['simple', 'enter-joint', 'leave-joint'].includes(first.name)) {
    const script = new ConfChangeScript()
    return directive => script.run(directive)
  }
  const script = new InteractionScript()
  return directive => script.run(directive)
}
