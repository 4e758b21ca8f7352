/** `stream create | list | describe | change | delete | truncate`: the catalogue of streams. */
import { formatDuration, formatSize, parseDuration, parseSize } from '../config/forms.ts'
import type { Stream, StreamPartition } from '../gen/roundhouse/v1/streams.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { bytesText, printJson, table } from './print.ts'
import { exitCodes, type Input, type OptionSpec, type Shell, UsageError, type Verb } from './shell.ts'

const name = { name: 'stream', kind: 'required', describe: 'Its name' } as const
const retentionOptions: Readonly<Record<string, OptionSpec>> = {
  retention: {
    kind: 'text',
    describe: 'How long records stay, such as 36h or 7d; none: for ever',
    elsewhere: ['retention-ms', 'max-age', 'ttl'],
  },
  'retention-bytes': {
    kind: 'text',
    describe: 'How much of a partition stays, such as 1GiB; none: all',
    elsewhere: ['max-bytes', 'retention-size'],
  },
}
const group = 'streams'

const create: Verb = {
  path: ['stream', 'create'],
  summary: 'Make a stream',
  group,
  isWrite: true,
  positionals: [{ ...name, describe: '1 to 255 bytes, no control characters' }],
  options: {
    partitions: {
      kind: 'text',
      alias: 'p',
      describe: 'How many; it can not be changed later',
      fallback: '1',
    },
    ...retentionOptions,
    'if-missing': {
      kind: 'boolean',
      describe: 'A stream that is there is as good',
      elsewhere: ['if-not-exists'],
    },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['stream create orders --partitions 8', 'kept for ever'],
    ['stream create audit --retention 7d --retention-bytes 1GiB', 'whichever comes first'],
  ],
  run: (input, shell) =>
    withNodes(input, shell, async nodes => {
      const { partitions = '1', 'if-missing': ifMissing } = input.options
      const request = {
        name: streamOf(input),
        partitions: integerOf(partitions, '--partitions', 1, 1024),
        ...retentionOf(input, undefined),
        ifMissing: ifMissing === true,
      }
      // A second try would find what the first one made, and call it another's.
      const { stream } = await nodes.call(request.ifMissing ? 'write' : 'once', (call, { streams }) =>
        call(streams.create.bind(streams), request),
      )
      if (stream === undefined) throw new Error(`${nodes.address} answered without a stream`)
      if (input.options.output === 'json')
        printJson(shell.stdout, { outcome: 'applied', ...streamJson(stream) })
      else shell.stdout.write(`${stream.name}: ${describeText(stream)}\n`)
    }),
}

const list: Verb = {
  path: ['stream', 'list'],
  summary: 'All streams',
  group,
  options: { ...outputOption, ...connectionOptions },
  run: (input, shell) =>
    withNodes(input, shell, async nodes => {
      const { streams } = await nodes.call('read', (call, connection) =>
        call(connection.streams.list.bind(connection.streams), {}),
      )
      if (input.options.output === 'json') printJson(shell.stdout, streams.map(streamJson))
      else if (streams.length === 0)
        shell.stdout.write('no streams: "roundhouse stream create NAME" makes one\n')
      else
        shell.stdout.write(
          `${table(
            colorsFor(shell.stdout, shell.env),
            ['NAME', 'ID', 'PARTITIONS', 'KEPT FOR', 'KEPT BYTES', 'MADE'],
            streams.map(each => [printable(each.name), String(each.id), each.partitions, ...columnsOf(each)]),
          )}\n`,
        )
    }),
}

const describe: Verb = {
  path: ['stream', 'describe'],
  summary: 'A stream with its partitions: where they are, what they hold',
  group,
  positionals: [name],
  options: { ...outputOption, ...connectionOptions },
  run: (input, shell) =>
    withNodes(input, shell, async nodes => {
      const { stream, partitions } = await nodes.call('read', (call, { streams }) =>
        call(streams.describe.bind(streams), { name: streamOf(input) }),
      )
      if (stream === undefined) throw new Error(`${nodes.address} answered without a stream`)
      if (input.options.output === 'json') {
        printJson(shell.stdout, { ...streamJson(stream), parts: partitions.map(partitionJson) })
        return
      }
      const rows = partitions.map(each => [
        each.partition,
        each.error === '' ? `${each.startOffset}` : '?',
        each.error === '' ? `${each.endOffset}` : '?',
        each.error === '' ? String(each.endOffset - each.startOffset) : '?',
        each.error === '' ? bytesText(Number(each.bytes)) : each.error,
        each.timestampMs === 0n ? '-' : timeText(each.timestampMs),
        each.shardId,
        each.leader === '' ? '-' : each.leader,
        each.replicas.join(' '),
      ])
      const head = ['PARTITION', 'START', 'END', 'RECORDS', 'BYTES', 'LAST', 'SHARD', 'LEADER', 'REPLICAS']
      shell.stdout.write(
        `${printable(stream.name)}: ${describeText(stream)}\n${table(colorsFor(shell.stdout, shell.env), head, rows)}\n`,
      )
    }),
}

const change: Verb = {
  path: ['stream', 'change'],
  summary: 'Change how long a stream keeps its records',
  group,
  isWrite: true,
  positionals: [name],
  options: { ...retentionOptions, ...outputOption, ...connectionOptions },
  examples: [['stream change audit --retention 30d --retention-bytes none', 'what is not named stays']],
  run: (input, shell) =>
    withNodes(input, shell, async nodes => {
      const retention = retentionOf(input, 0n)
      if (Object.keys(retention).length === 0)
        throw new UsageError(['--retention or --retention-bytes must be given'])
      const request = { name: streamOf(input), ...retention }
      const { stream } = await nodes.call('write', (call, { streams }) =>
        call(streams.change.bind(streams), request),
      )
      if (stream === undefined) throw new Error(`${nodes.address} answered without a stream`)
      if (input.options.output === 'json')
        printJson(shell.stdout, { outcome: 'applied', ...streamJson(stream) })
      else shell.stdout.write(`${printable(stream.name)}: ${describeText(stream)}\n`)
    }),
}

const remove: Verb = {
  path: ['stream', 'delete'],
  summary: 'Remove a stream with all its records',
  group,
  isWrite: true,
  positionals: [name],
  options: { ...outputOption, ...connectionOptions },
  run: (input, shell) =>
    withNodes(input, shell, async nodes => {
      // A second try would not find what the first one deleted.
      await nodes.call('once', (call, { streams }) =>
        call(streams.delete.bind(streams), { name: streamOf(input) }),
      )
      if (input.options.output === 'json')
        printJson(shell.stdout, { outcome: 'applied', name: streamOf(input) })
      else shell.stdout.write(`${streamOf(input)} is gone\n`)
    }),
}

const truncate: Verb = {
  path: ['stream', 'truncate'],
  summary: 'Remove the records of a partition before an offset',
  group,
  isWrite: true,
  positionals: [name],
  options: {
    before: { kind: 'text', describe: 'The first offset that stays', elsewhere: ['offset', 'to'] },
    partition: { kind: 'text', describe: 'Which one', fallback: '0' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [['stream truncate orders --partition 3 --before 1000', 'offsets 0 to 999 are gone']],
  run: (input, shell) =>
    withNodes(input, shell, async nodes => {
      const { before, partition = '0' } = input.options
      if (before === undefined) throw new UsageError(['--before is missing: the first offset that stays'])
      const request = {
        name: streamOf(input),
        partition: integerOf(partition, '--partition', 0, 1023),
        beforeOffset: BigInt(integerOf(before, '--before', 0, Number.MAX_SAFE_INTEGER)),
      }
      const { startOffset } = await nodes.call('write', (call, { streams }) =>
        call(streams.truncate.bind(streams), request),
      )
      if (input.options.output === 'json')
        printJson(shell.stdout, {
          outcome: 'applied',
          partition: request.partition,
          start: Number(startOffset),
        })
      else shell.stdout.write(`${streamOf(input)}/${request.partition} begins at ${startOffset}\n`)
    }),
}

export const streamVerbs: readonly Verb[] = [create, list, describe, change, remove, truncate]

// --- Shared with produce and consume --------------------------------------------------------------------------------

export async function withNodes(
  input: Input,
  shell: Shell,
  work: (nodes: Nodes) => Promise<unknown>,
): Promise<number> {
  const nodes = Nodes.from(input, shell)
  try {
    await work(nodes)
    return exitCodes.done
  } finally {
    nodes.close()
  }
}

/** The name that was given; an empty one is most likely a variable that is not set. Throws UsageError. */
export function streamOf({ positionals: [name = ''] }: Input): string {
  if (name === '') throw new UsageError(['stream is empty: 1 to 255 bytes are accepted'])
  return name
}

/** How many partitions a stream has; null: there is none of that name. */
export async function partitionsOf(nodes: Nodes, stream: string): Promise<number | null> {
  const { streams } = await nodes.call('read', (call, connection) =>
    call(connection.streams.list.bind(connection.streams), {}),
  )
  return streams.find(each => each.name === stream)?.partitions ?? null
}

/** Where to begin in a partition that does not have the offset that was asked of all of them, and what to say of it. */
export interface OtherBegin {
  readonly offset: bigint
  readonly text: string
  /** The offset is still to come. */
  readonly isShort: boolean
}

/** null: nobody knows. Where it has the offset by now there is nothing to say. */
export function otherBegin(
  parts: readonly StreamPartition[],
  partition: number,
  wanted: bigint,
): OtherBegin | null {
  const found = parts.find(each => each.partition === partition)
  if (found === undefined || found.error !== '') return null
  const { startOffset: start, endOffset: end } = found
  const told = `partition ${partition}: `
  if (wanted > end)
    return {
      offset: end,
      isShort: true,
      text: `${told}nothing from ${wanted} on, its next record gets ${end}\n`,
    }
  if (wanted < start)
    return { offset: start, isShort: false, text: `${told}${wanted} to ${start - 1n} are gone\n` }
  return { offset: wanted, isShort: false, text: '' }
}

/** Throws UsageError. */
export function integerOf(value: unknown, option: string, min: number, max: number): number {
  const text = String(value)
  const number = Number(text)
  if (/^[0-9]+$/.test(text) && number >= min && number <= max) return number
  const accepted =
    max === Number.MAX_SAFE_INTEGER ? `an integer from ${min} up` : `an integer from ${min} to ${max}`
  throw new UsageError([`${option}: ${JSON.stringify(text)} is not ${accepted}`])
}

export function timeText(ms: bigint | number): string {
  return new Date(Number(ms)).toISOString()
}

/** A name may hold whatever is no control character. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?')
}

function retentionOf(
  input: Input,
  none: bigint | undefined,
): { retentionMs?: bigint; retentionBytes?: bigint } {
  const read = (option: string, parse: (text: string) => number | undefined, accepted: string) => {
    const value = input.options[option]
    if (value === undefined) return undefined
    if (String(value) === 'none') return none
    const parsed = parse(String(value))
    if (parsed === undefined || parsed <= 0)
      throw new UsageError([`--${option}: ${JSON.stringify(value)} is not ${accepted}, nor none`])
    return BigInt(parsed)
  }
  const retentionMs = read('retention', daysToo, 'a duration such as 36h or 7d')
  const retentionBytes = read('retention-bytes', parseSize, 'a size such as 512MiB or 1GiB')
  return {
    ...(retentionMs === undefined ? {} : { retentionMs }),
    ...(retentionBytes === undefined ? {} : { retentionBytes }),
  }
}

/** A duration; days are for people who keep things. */
export function daysToo(text: string): number | undefined {
  const days = /^([0-9]+)d(.*)$/.exec(text)
  if (days === null) return parseDuration(text)
  const rest = days[2] === '' ? 0 : parseDuration(days[2]!)
  return rest === undefined ? undefined : Number(days[1]) * 86_400_000 + rest
}

function describeText({ id, partitions, ...stream }: Stream): string {
  const [age, bytes] = columnsOf({ id, partitions, ...stream })
  const limits = [age === 'ever' ? '' : `for ${age}`, bytes === 'any' ? '' : `up to ${bytes} a partition`]
  const kept = limits.filter(each => each !== '').join(', ')
  return `id ${id}, ${partitions} ${partitions === 1 ? 'partition' : 'partitions'}, kept ${kept === '' ? 'for ever' : kept}`
}

function columnsOf({ retentionMs, retentionBytes, createdMs }: Stream): [string, string, string] {
  return [
    retentionMs === undefined ? 'ever' : formatDuration(Number(retentionMs)),
    retentionBytes === undefined ? 'any' : formatSize(Number(retentionBytes)),
    timeText(createdMs),
  ]
}

function streamJson({ name, id, partitions, retentionMs, retentionBytes, createdMs }: Stream) {
  return {
    name,
    id: Number(id),
    partitions,
    retention_ms: retentionMs === undefined ? null : Number(retentionMs),
    retention_bytes: retentionBytes === undefined ? null : Number(retentionBytes),
    created: timeText(createdMs),
  }
}

function partitionJson(each: StreamPartition) {
  const isKnown = each.error === ''
  return {
    partition: each.partition,
    shard_id: each.shardId,
    leader: each.leader === '' ? null : each.leader,
    replicas: each.replicas,
    start: isKnown ? Number(each.startOffset) : null,
    end: isKnown ? Number(each.endOffset) : null,
    bytes: isKnown ? Number(each.bytes) : null,
    last: each.timestampMs === 0n ? null : timeText(each.timestampMs),
    error: isKnown ? null : each.error,
  }
}
