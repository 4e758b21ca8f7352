/**
 * `npm run sim -- --seed 7`, `--seeds 500 [--from 1]`, `--minutes 10`: runs seeds, prints what each showed, exits 1 when
 * one failed. A failure comes with the command that repeats it, with as few faults as were found to do. A long campaign
 * fails, too, when it never met one of the states in `sometimes.ts`. `--jobs N` processes share the seeds, if not given as
 * many as there are processors: a seed is the same run wherever it runs.
 */
import { execFileSync, fork } from 'node:child_process'
import { availableParallelism } from 'node:os'
import type { Logger } from '../../src/lib/logger.ts'
import { parseCommandLine, usage } from '../command-line.ts'
import { type RunOptions, type RunResult, runSeed } from './campaign.ts'
import { shrink } from './shrink.ts'
import type { SimCluster } from './sim-cluster.ts'
import { sometimes } from './sometimes.ts'
import { type FaultKind, faultKinds } from './swarm.ts'

/** Fewer seeds need not meet everything. */
const seedsForAllSightings = 300
/** … and these come so seldom that it takes more. */
const seldom: readonly string[] = ['changeOverwritten', 'jointFinishedByAnother', 'snapshotPullFailed']
const seedsForSeldom = 1_000

const kindsALine = 6
const kindLines = Array.from(
  { length: Math.ceil(faultKinds.length / kindsALine) },
  (_, i) => `                       ${faultKinds.slice(i * kindsALine, (i + 1) * kindsALine).join(' ')}`,
).join('\n')
const help = `Usage: npm run sim -- [options]

Simulates whole clusters, one a seed: nodes, disks, network, clocks, clients and what goes wrong with them. Ends with 1
when a seed breaks an invariant, or when a campaign of ${seedsForAllSightings} seeds or more never met one of the states that it must have met.

  --seed N             this one
  --seeds N            so many (20)
  --from N             the first of them (1)
  --minutes N          as many as fit, in place of --seeds
  --jobs N             processes that share the seeds (one a processor)
  --only KIND[,KIND]   no other faults than these:
${kindLines}
  --faults ID[,ID]     of one seed, these of its faults alone; none: without any
  --chaos MS           how long faults begin, in place of what the seed draws
  --verbose            everything that nodes log, by the clock of the simulation
  --brief              only seeds that fail, and the sums
  --no-shrink          do not look for the fewest faults that still fail
  -h, --help`

const values = parseCommandLine(help, {
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
  jobs: { type: 'string' },
  /** Of a job: its seeds are those from its own one on, in steps. */
  step: { type: 'string' },
})
for (const name of ['seed', 'seeds', 'from', 'jobs', 'step', 'chaos', 'minutes'] as const) {
  const given = values[name]
  const least = name === 'jobs' || name === 'step' ? 1 : 0
  if (
    given === undefined ||
    (Number(given) >= least && (name === 'minutes' || Number.isSafeInteger(Number(given))))
  )
    continue
  usage(`--${name} ${given}: accepted are whole numbers from ${least} up`)
}
const stranger = values.only?.split(',').find(kind => !faultKinds.some(each => each === kind))
if (stranger !== undefined) usage(`--only ${stranger}: accepted are ${faultKinds.join(', ')}`)

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

/** What seeds showed, all together; jobs tell theirs to the process that began them. */
interface Summary {
  readonly total: { seeds: number; failed: number; events: number; simulatedMs: number; elections: number }
  readonly faults: Record<string, number>
  readonly workload: Record<string, number>
  readonly seen: Record<string, number>
}

const summary: Summary = {
  total: { seeds: 0, failed: 0, events: 0, simulatedMs: 0, elections: 0 },
  ...{ faults: {}, workload: {}, seen: {} },
}

async function runSeeds(step: number): Promise<void> {
  const { total } = summary
  for (let seed = first; seed < first + count && Date.now() < untilMs; seed += step) {
    const options: RunOptions = {
      seed,
      ...(values.verbose ? { logs } : {}),
      ...(values.chaos === undefined ? {} : { chaosMs: Number(values.chaos) }),
      ...(values.only === undefined ? {} : { only: values.only.split(',') as FaultKind[] }),
      ...(values.faults === undefined ? {} : { faults: values.faults.split(',').map(Number) }),
    }
    const result = await runSeed(options)
    const { hash, events, simulatedMs, violations, elections } = result
    const failed = violations.length > 0 ? 1 : 0
    add(total, { seeds: 1, failed, events, simulatedMs, elections })
    add(summary.faults, result.faults)
    add(summary.workload, { ...result.workload })
    add(summary.seen, Object.fromEntries(result.seen))
    if (!values.brief || failed > 0)
      console.log(
        `seed ${seed} hash ${hash} events ${events} simulated ${simulatedMs} ms ${JSON.stringify({ nodes: result.swarm.nodes, faults: result.faults, workload: result.workload })}`,
      )
    if (failed > 0) await report(options, result)
  }
}

/** Runs every `step`th seed in a process of its own. Rejects where that ends without having told what it saw. */
function runJob(from: number, step: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const left = String(Math.max(0, count - (from - first)))
    const range = values.minutes === undefined ? ['--seeds', left] : ['--minutes', values.minutes]
    const flags = (['brief', 'verbose'] as const).filter(name => values[name]).map(name => `--${name}`)
    const given = (['chaos', 'only', 'faults'] as const).flatMap(name =>
      values[name] === undefined ? [] : [`--${name}`, values[name]],
    )
    const shrinks = values.shrink ? [] : ['--no-shrink']
    const own = ['--jobs', '1', '--from', String(from), '--step', String(step)]
    const job = fork(import.meta.filename, [...own, ...range, ...flags, ...given, ...shrinks])
    let told = false
    job.on('message', ({ total, faults, workload, seen }: Summary) => {
      told = true
      add(summary.total, total)
      add(summary.faults, faults)
      add(summary.workload, workload)
      add(summary.seen, seen)
    })
    job.on('error', reject)
    job.on('close', (code, signal) => {
      if (told) resolve()
      else reject(new Error(`the seeds from ${from} on, in steps of ${step}, ended with ${signal ?? code}`))
    })
  })
}

const started = Date.now()
const jobs = values.seed !== undefined ? 1 : Math.min(Number(values.jobs ?? availableParallelism()), count)
if (jobs > 1) await Promise.all(Array.from({ length: jobs }, (_, i) => runJob(first + i, jobs)))
else await runSeeds(Number(values.step ?? 1))
// A job's seeds are judged by whoever began it.
if (process.send !== undefined) process.send(summary, () => process.disconnect())
else conclude()

function conclude(): void {
  const { total, faults, workload, seen } = summary
  const seconds = (Date.now() - started) / 1000
  const never = Object.entries(sometimes).filter(([name]) => seen[name] === undefined)
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
}
