/**
 * What a child of main.ts runs in a copy of the source: seed after seed until one fails. One line of JSON a seed:
 * `{"begin":7}`, then `{"seed":7,"failure":null}` or the first line of what was wrong. A process that dies between the two
 * has failed as well; main.ts sees that.
 */
import { writeSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { runSeed } from '../sim/campaign.ts'

const { values } = parseArgs({ options: { from: { type: 'string' }, seeds: { type: 'string' } } })
const from = Number(values.from ?? 1)
const seeds = Number(values.seeds ?? 1)

/** Synchronous: what was said must be out before a bug ends the process. */
const say = (line: object) => void writeSync(1, `${JSON.stringify(line)}\n`)

/** An error with the place that threw it. */
function told(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const place = error.stack
    ?.split('\n')
    .find(line => line.includes('/src/') && !line.includes('/src/lib/assert'))
  const at = place?.replace(/^.*\/(src\/[^:)]*).*$/, ' ($1)') ?? ''
  return `${error.name}: ${error.message.split('\n')[0]}${at}`
}

let seed = from
const fail = (error: unknown) => {
  say({ seed, failure: told(error) })
  process.exit(0)
}
process.on('uncaughtException', fail)
process.on('unhandledRejection', fail)

for (; seed < from + seeds; seed++) {
  say({ begin: seed })
  let failure: string | null = null
  try {
    const { violations } = await runSeed({ seed })
    failure = violations[0]?.split('\n')[0] ?? null
  } catch (error) {
    failure = told(error)
  }
  say({ seed, failure })
  if (failure !== null) break
}
process.exit(0)
