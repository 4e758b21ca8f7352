/**
 * `npm run sim -- --seed 7`, `--seeds 500 [--from 1]`, `--minutes 10`: runs seeds, prints what each showed, exits 1 when
 * one failed. A failure comes with the command that repeats it, with as few faults as were found to do. A long campaign
 * fails, too, when it never met one of the states in `sometimes.ts`.
 */
import { execFileSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import type { Logger } from '../../src/lib/logger.ts'
import { type RunOptions, type RunResult, runSeed } from './campaign.ts'
import { shrink } from './shrink.ts'
import type { SimCluster } from './sim-cluster.ts'
import { type Sometimes, sometimes } from './sometimes.ts'
import type { FaultKind } from './swarm.ts'

/** Fewer seeds need not meet everything. */
const seedsForAllSightings = 300
/** … and these come so seldom that it takes more. */
const seldom: readonly string[] = ['changeOverwritten', 'jointFinishedByAnother', 'snapshotPullFailed']
const seedsForSeldom = 1_000

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string', default: '20' },
    minutes: { type: 'string' },
    from: { type: 'string', default: '1' },
    faults: { type: 'string' },
    only: { type: 'string' },
    chaos: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    brief: { type: 'boolean', default: false },
    shrink: { type: 'boolean', default: true },
  },
  allowNegative: true,
})

const logs =
  (cluster: SimCluster) =>
  (node: string): Logger => {
    const write = (level: string) => (message: string, fields?: object) => {
      const facts = { ...fields } as { error?: unknown }
      if (facts.error instanceof Error) facts.error = facts.error.stack
      process.stdout.write(
        `${cluster.world.nowMs.toFixed(1)} ${node} ${level} ${message} ${JSON.stringify(facts)}\n`,
      )
    }
    const logger: Logger = {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      child: () => logger,
    }
    return logger
  }

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    return 'unknown'
  }
}

function add(sums: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(more)) sums[name] = (sums[name] ?? 0) + count
}

async function report(options: RunOptions, result: RunResult): Promise<void> {
  const { seed, violations, swarm } = result
  for (const violation of violations) console.log(`  VIOLATION ${violation}`)
  console.log(`  at commit ${commit()}; drawn: ${JSON.stringify({ ...swarm, faults: swarm.faults.length })}`)
  const faults =
    values.shrink && options.faults === undefined
      ? await shrink(options, result)
      : swarm.faults.filter(({ id }) => options.faults?.includes(id) ?? true)
  for (const { id, kind, atMs, forMs, pick, amount } of faults)
    console.log(`  fault ${id} ${kind} at ${atMs} for ${Math.round(forMs)} ms, ${pick} ${amount.toFixed(3)}`)
  const chaos = options.chaosMs === undefined ? '' : ` --chaos ${options.chaosMs}`
  console.log(
    `  again: npm run sim -- --seed ${seed}${chaos} --faults ${faults.map(({ id }) => id).join(',') || 'none'} --verbose`,
  )
}

const first = Number(values.seed ?? values.from)
const untilMs =
  values.minutes === undefined ? Number.POSITIVE_INFINITY : Date.now() + Number(values.minutes) * 60_000
const count =
  values.seed !== undefined
    ? 1
    : values.minutes !== undefined
      ? Number.POSITIVE_INFINITY
      : Number(values.seeds)
const started = Date.now()
const total = { seeds: 0, failed: 0, events: 0, simulatedMs: 0, elections: 0 }
const faults: Record<string, number> = {}
const workload: Record<string, number> = {}
const seen: Partial<Record<Sometimes, number>> = {}
for (let seed = first; seed < first + count && Date.now() < untilMs; seed++) {
  const options: RunOptions = {
    seed,
    ...(values.verbose ? { logs } : {}),
    ...(values.chaos === undefined ? {} : { chaosMs: Number(values.chaos) }),
    ...(values.only === undefined ? {} : { only: values.only.split(',') as FaultKind[] }),
    ...(values.faults === undefined ? {} : { faults: values.faults.split(',').map(Number) }),
  }
  const result = await runSeed(options)
  const { hash, events, simulatedMs, violations, elections } = result
  total.seeds++
  total.events += events
  total.simulatedMs += simulatedMs
  total.elections += elections
  add(faults, result.faults)
  add(workload, { ...result.workload })
  for (const [name, times] of result.seen) seen[name] = (seen[name] ?? 0) + times
  if (!values.brief || violations.length > 0)
    console.log(
      `seed ${seed} hash ${hash} events ${events} simulated ${simulatedMs} ms ${JSON.stringify({ nodes: result.swarm.nodes, faults: result.faults, workload: result.workload })}`,
    )
  if (violations.length === 0) continue
  total.failed++
  await report(options, result)
}
const seconds = (Date.now() - started) / 1000
const never = Object.entries(sometimes).filter(([name]) => seen[name as Sometimes] === undefined)
const faultsMade = Object.values(faults).reduce((sum, count) => sum + count, 0)
console.log(`faults ${JSON.stringify(faults)}: ${faultsMade} of ${Object.keys(faults).length} kinds`)
console.log(`calls ${JSON.stringify(workload)}`)
console.log(`seen ${JSON.stringify(seen)}`)
if (never.length > 0 && values.seed === undefined)
  console.log(`never seen: ${never.map(([name, text]) => `${text} (${name})`).join('; ')}`)
console.log(
  `${(total.seeds / seconds).toFixed(1)} seeds/s, ${Math.round(total.events / seconds)} events/s, ${(total.simulatedMs / 3_600_000).toFixed(2)} simulated hours, ${total.elections} elections`,
)
console.log(`${total.seeds - total.failed} passed, ${total.failed} failed`)
const isMissed = ([name]: readonly [string, string]) =>
  total.seeds >= (seldom.includes(name) ? seedsForSeldom : seedsForAllSightings)
const isIncomplete = never.some(isMissed)
if (isIncomplete) console.log('failed: a campaign of this length must have seen all of it')
process.exitCode = total.failed > 0 || isIncomplete ? 1 : 0
