/** What the bench shall do, from its flags. */
import type { BenchPlan, CallKind, Route, StreamWorkload, WorkloadName } from '../bench/ports.ts'
import { parseSize } from '../config/forms.ts'
import { produceLimits } from '../node/stream-batch.ts'
import { BenchFlags } from './bench-flags.ts'
import { bytesText } from './print.ts'
import { type Input, type OptionSpec, UsageError } from './shell.ts'

const streamWorkloads: readonly StreamWorkload[] = ['produce', 'consume', 'end-to-end']
export const workloads: readonly WorkloadName[] = [
  ...(['set', 'get', 'stale-get', 'mixed', 'mset'] as const),
  ...streamWorkloads,
]
const callKinds: readonly CallKind[] = ['unary', 'pipelined']
const routes: readonly Route[] = ['leader', 'any']
/** As `bench:` and seven digits. */
const keyBytesMin = 16
/** What nodes take: of keyspace/limits.ts. */
const valueBytesMax = 2 ** 20
const partitionsMax = 1024
const msetKeysMax = 1_000
/** What a record has beside its value, at most. */
const recordBytes = 32
/** Of end-to-end, where no rate is given. */
const recordsPerSecond = 1_000
const msetKeysDefault = '10'
const inFlightDefault = '64'

export function isOfStreams(name: WorkloadName): boolean {
  return (streamWorkloads as readonly WorkloadName[]).includes(name)
}

const defaults = {
  calls: 'unary',
  clients: '1',
  route: 'leader',
  keys: '100000',
  'key-bytes': '16',
  'value-bytes': '128',
  partitions: '1',
  'warm-up': '2s',
  duration: '10s',
} as const

const option = (name: keyof typeof defaults, describe: string, more: Partial<OptionSpec> = {}) => ({
  [name]: { kind: 'text', describe, fallback: defaults[name], ...more } satisfies OptionSpec,
})

export const benchOptions: Readonly<Record<string, OptionSpec>> = {
  ...option(
    'calls',
    'unary: a call a request; pipelined: a few streams a client and node; or both, with a comma',
  ),
  'in-flight': {
    kind: 'text',
    alias: 'c',
    describe: `Requests under way, all clients together; several with commas [default: ${inFlightDefault}; followers of consume: one a partition]`,
  },
  ...option('clients', 'Clients, each with a connection to every node'),
  ...option(
    'route',
    'To the leader of the key or partition, as a client that knows the map; or to any node, which forwards',
    {
      choices: routes,
    },
  ),
  rate: {
    kind: 'text',
    describe: 'Operations a second, begun whatever becomes of those before (see below)',
  },
  ...option('duration', 'Measured for so long, each case', { alias: 'd' }),
  ...option('warm-up', 'Before that, not measured'),
  ...option('keys', 'Different keys; records that consume finds'),
  ...option('key-bytes', `Length of a key, from ${keyBytesMin}`),
  ...option('value-bytes', 'Length of a value, or of a record', { elsewhere: ['size', 'value-size'] }),
  batch: {
    kind: 'text',
    describe: `Keys of one mset [default: ${msetKeysDefault}], records of one request to produce [default: 1]`,
    elsewhere: ['records', 'batch-size'],
  },
  ...option('partitions', 'Of the stream (bench-…) that is made for it'),
  sessions: { kind: 'boolean', describe: 'Writes carry sessions: a retry would be applied once' },
  keep: {
    kind: 'boolean',
    describe: 'Leave the keys (bench:… or verify:…) and streams (bench-…) where they are',
  },
}

/** Throws UsageError with everything that is wrong. */
export function planOf({ positionals, options }: Input): BenchPlan {
  const flags = new BenchFlags()
  const { mistakes } = flags
  const textOf = (name: keyof typeof defaults) => String(options[name] ?? defaults[name])
  const integer = flags.integer.bind(flags)
  const duration = (name: 'duration' | 'warm-up', min: number) => flags.duration(name, textOf(name), min)
  if (options.history !== undefined) mistakes.push('--history: there is one with --verify only')
  for (const name of ['rounds', 'kills', 'shard-count'])
    if (options[name] !== undefined) mistakes.push(`--${name}: there is one with --against only`)
  if (positionals.includes('failover'))
    mistakes.push('failover: leaders are killed with --against only, in clusters that are started for it')
  const calls = textOf('calls')
    .split(',')
    .map(each => callKinds.find(kind => kind === each.trim()))
  if (calls.includes(undefined)) mistakes.push('--calls: accepted are unary, pipelined, and unary,pipelined')
  const keys = integer('keys', textOf('keys'), 1, 100_000_000)
  const least = Math.max(keyBytesMin, 'bench:'.length + String(keys - 1).length)
  const partitions = integer('partitions', textOf('partitions'), 1, partitionsMax)
  const inFlight = [...new Set(String(options['in-flight'] ?? inFlightDefault).split(','))].map(each =>
    integer('in-flight', each.trim(), 1, 10_000),
  )
  const chosen: readonly WorkloadName[] =
    positionals.length === 0 ? ['set', 'get'] : workloads.filter(each => positionals.includes(each))
  const valueBytes = integer('value-bytes', textOf('value-bytes'), 0, valueBytesMax, parseSize)
  const batchMax = chosen.every(isOfStreams) ? produceLimits.recordsMax : msetKeysMax
  const batch = options.batch === undefined ? null : integer('batch', String(options.batch), 1, batchMax)
  const records = batch ?? 1
  const { batchBytesMax } = produceLimits
  if (chosen.some(isOfStreams) && records * (valueBytes + recordBytes) > batchBytesMax)
    mistakes.push(
      `--batch, --value-bytes: ${records} × ${bytesText(valueBytes)} is more than one request may have (${bytesText(batchBytesMax)})`,
    )
  const rate = options.rate === undefined ? null : integer('rate', String(options.rate), 1, 1_000_000)
  const plan: BenchPlan = {
    workloads: chosen,
    calls: [...new Set(calls.filter(each => each !== undefined))],
    inFlight,
    followers: options['in-flight'] === undefined ? [partitions] : inFlight,
    clients: integer('clients', textOf('clients'), 1, 1_000),
    route: routes.find(each => each === textOf('route')) ?? 'leader',
    keys,
    keyBytes: integer('key-bytes', textOf('key-bytes'), least, 1_024, parseSize),
    valueBytes,
    batch: batch ?? Number(msetKeysDefault),
    records,
    partitions,
    warmUpMs: duration('warm-up', 0),
    durationMs: duration('duration', 100),
    rate,
    endToEndRate: rate ?? recordsPerSecond / records,
    hasSessions: options.sessions === true,
    keepsKeys: options.keep === true,
  }
  if (mistakes.length > 0) throw new UsageError(mistakes)
  return plan
}
