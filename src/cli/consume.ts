/**
 * `consume STREAM`: records as they come, of one partition or of all. A call that breaks off is taken up where it was,
 * through another node.
 */
import type { ServiceError } from '@grpc/grpc-js'
import { RemoteError } from '../errors.ts'
import type { ConsumeResponse, Record } from '../gen/log/v1/log.ts'
import { type ConsumeRequest, ConsumeRequest as ConsumeRequestType, From } from '../gen/log/v1/log.ts'
import type { StreamPartition } from '../gen/roundhouse/v1/streams.ts'
import { type Connection, connectionOptions, Nodes, outputOption } from './connection.ts'
import { GroupConsumer, isPassing } from './group-consumer.ts'
import { printJson, printValue } from './print.ts'
import { recordJson } from './record-text.ts'
import { errorOf } from './remote-error.ts'
import { type Input, type Shell, UsageError, type Verb } from './shell.ts'
import { daysToo, integerOf, otherBegin, partitionsOf, streamOf, withNodes } from './streams.ts'

/** Calls that one consume may have open. */
const partitionsAtOnceMax = 512
/** A call that was open for so long had begun well. */
const openMsMin = 1_000

const fromAccepted =
  'earliest, latest, an offset, a time such as 2026-11-20T10:00 or 2026-11-20T10:00:00Z, or an age such as 15m or 2d'

export const consumeVerb: Verb = {
  path: ['consume'],
  summary: 'Print the records of a stream, and those to come',
  group: 'streams',
  positionals: [{ name: 'stream', kind: 'required', describe: 'Its name' }],
  options: {
    from: {
      kind: 'text',
      describe: `Where to begin: ${fromAccepted}; earliest by default, with --follow latest`,
      elsewhere: ['offset', 'since', 'start', 'from-beginning'],
    },
    follow: {
      kind: 'boolean',
      alias: 'f',
      describe: 'Go on with what is produced, until Ctrl-C',
      elsewhere: ['tail', 'watch'],
    },
    partition: { kind: 'text', alias: 'p', describe: 'Only this one; else all, merged as they come' },
    group: {
      kind: 'text',
      alias: 'g',
      describe:
        'Share the partitions with others of this group, go on where it stood, commit what is printed',
      elsewhere: ['group-id', 'consumer-group'],
    },
    assign: {
      kind: 'text',
      describe: 'How a group shares: sticky moves the least, range keeps neighbours together',
      choices: ['sticky', 'range'],
      fallback: 'sticky',
    },
    max: {
      kind: 'text',
      describe: 'End after so many records',
      elsewhere: ['limit', 'count', 'max-records'],
    },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['consume orders', 'all there is'],
    ['consume orders --follow', 'what comes from now on'],
    [
      'consume orders --partition 3 --from 1000 --max 10 -o json',
      'one JSON object a line, with offset, time, key',
    ],
    ['consume orders --group billing --follow', 'as one of several that share the stream'],
    ['consume orders --from 2026-11-20T10:00 --follow', 'since then (in local time), and on'],
  ],
  notes:
    'In text a record is its value and a line break. Records of different partitions have no order among each other. An offset\n' +
    'is one of every partition: those that have not come so far are waited for with --follow, else left out, and named.',
  run: (input, shell) =>
    withNodes(input, shell, nodes =>
      input.options.group === undefined
        ? new Consuming(input, shell, nodes).all()
        : consumeInGroup(input, shell),
    ),
}

type Start =
  | { readonly kind: 'earliest' | 'latest' }
  | { readonly kind: 'offset'; readonly offset: bigint }
  | { readonly kind: 'time'; readonly ms: number }

/** Throws UsageError. */
export function startOf(text: string, nowMs: number): Start {
  if (text === 'earliest' || text === 'latest') return { kind: text }
  if (/^[0-9]+$/.test(text) && Number.isSafeInteger(Number(text)))
    return { kind: 'offset', offset: BigInt(text) }
  const age = daysToo(text)
  if (age !== undefined) return { kind: 'time', ms: Math.max(0, nowMs - age) }
  const ms = timeOf(text)
  if (!Number.isNaN(ms) && ms >= 0) return { kind: 'time', ms }
  throw new UsageError([`--from: ${JSON.stringify(text)} is not ${fromAccepted}`])
}

const timePattern =
  /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?))?$/

/** Local time where it does not say which: Date.parse takes a day alone for UTC's, and 31 June for 1 July. */
function timeOf(text: string): number {
  const [, year, month, day, time = '00:00'] = timePattern.exec(text) ?? []
  const isDay = new Date(Date.UTC(Number(year), Number(month) - 1, Number(day))).getUTCDate() === Number(day)
  return isDay ? Date.parse(`${year}-${month}-${day}T${time}`) : Number.NaN
}

/** Who is told to end has so long to say what it read and that it leaves. */
const leavingMsMax = 5_000

async function consumeInGroup(input: Input, shell: Shell): Promise<void> {
  const { group, assign, from, follow, max, output, partition } = input.options
  if (partition !== undefined)
    throw new UsageError(['--partition and --group are given: the group says who reads which partition'])
  const late = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const onAbort = () => {
    timer = setTimeout(() => late.abort(), leavingMsMax)
  }
  shell.signal.addEventListener('abort', onAbort, { once: true })
  const nodes = Nodes.from(input, { ...shell, signal: late.signal })
  const wish = {
    stream: streamOf(input),
    group: String(group),
    start: startOf(String(from ?? 'earliest'), Date.now()),
    strategy: String(assign ?? 'sticky'),
    isFollowing: follow === true,
    isJson: output === 'json',
    max: max === undefined ? Number.POSITIVE_INFINITY : integerOf(max, '--max', 1, Number.MAX_SAFE_INTEGER),
  }
  try {
    await new GroupConsumer(wish, shell, nodes, () => Nodes.from(input, shell)).run()
  } finally {
    shell.signal.removeEventListener('abort', onAbort)
    clearTimeout(timer)
    nodes.close()
  }
}

function isOutOfRange(error: unknown): boolean {
  return error instanceof RemoteError && error.code === 'OFFSET_OUT_OF_RANGE'
}

class Consuming {
  private readonly input: Input
  private readonly shell: Shell
  private readonly nodes: Nodes
  private readonly stream: string
  private readonly isFollowing: boolean
  private readonly start: Start
  private readonly max: number
  private readonly isJson: boolean
  private printed = 0
  /** By partition: the offset to go on from; null: it is at its end. */
  private readonly next = new Map<number, bigint | 'start' | null>()
  /** Whose offsets these are; 0: nobody has said yet. */
  private streamId = 0n
  /** Partitions that do not have the offset yet which was asked of all; asked for once, where one says so. */
  private readonly short = new Set<number>()
  private described: Promise<readonly StreamPartition[]> | null = null

  constructor(input: Input, shell: Shell, nodes: Nodes) {
    const { from, follow, max, output } = input.options
    this.input = input
    this.shell = shell
    this.nodes = nodes
    this.stream = streamOf(input)
    this.isFollowing = follow === true
    this.start = startOf(String(from ?? (this.isFollowing ? 'latest' : 'earliest')), Date.now())
    this.max =
      max === undefined ? Number.POSITIVE_INFINITY : integerOf(max, '--max', 1, Number.MAX_SAFE_INTEGER)
    this.isJson = output === 'json'
  }

  async all(): Promise<void> {
    for (const partition of await this.partitions()) this.next.set(partition, 'start')
    if (this.start.kind === 'latest') await this.findEnds()
    while (!this.isDone) await this.nodes.call('read', (_, connection) => this.attempt(connection))
  }

  private async describe(): Promise<readonly StreamPartition[]> {
    const { stream, partitions } = await this.nodes.call('read', (call, { streams }) =>
      call(streams.describe.bind(streams), { name: this.stream }),
    )
    if (this.streamId === 0n) this.streamId = stream?.id ?? 0n
    return partitions
  }

  private async partitions(): Promise<readonly number[]> {
    const { partition } = this.input.options
    if (partition !== undefined) return [integerOf(partition, '--partition', 0, 1023)]
    // One that is not there yet is told by the node, or made (`default`).
    const count = (await partitionsOf(this.nodes, this.stream)) ?? 1
    if (count > partitionsAtOnceMax)
      throw new UsageError([`${this.stream} has ${count} partitions: name one of them with --partition`])
    return Array.from({ length: count }, (_, i) => i)
  }

  /** The end as it is now: a call that breaks off before anything came must not begin at a later one. */
  private async findEnds(): Promise<void> {
    for (const { partition, endOffset, error } of await this.describe())
      if (error === '' && this.next.has(partition)) this.next.set(partition, endOffset)
  }

  private get isDone(): boolean {
    if (this.shell.signal.aborted || this.printed >= this.max) return true
    return [...this.next.values()].every(each => each === null)
  }

  /** Resolves when there is nothing more, or when what came before a break was worth another attempt. */
  private async attempt(connection: Connection): Promise<void> {
    const startedMs = Date.now()
    const before = this.printed
    const stop = new AbortController()
    const onAbort = () => stop.abort()
    this.shell.signal.addEventListener('abort', onAbort, { once: true })
    const open = [...this.next].filter(([, next]) => next !== null)
    this.described = null
    try {
      await Promise.all(
        open.map(async ([partition]) => {
          try {
            await this.followFrom(connection, partition, stop.signal)
          } catch (error) {
            stop.abort()
            throw error
          }
          if (this.printed >= this.max) stop.abort()
        }),
      )
    } catch (error) {
      const wasWell = this.printed > before || Date.now() - startedMs > openMsMin
      if (!(wasWell && isPassing(error))) throw error
    } finally {
      this.shell.signal.removeEventListener('abort', onAbort)
    }
  }

  /**
   * One offset for several partitions is where none of them need have a record: one that lost it to retention begins where it
   * does, one that has not come so far waits for it. An offset that none of them has is a mistake.
   */
  private async followFrom(connection: Connection, partition: number, signal: AbortSignal): Promise<void> {
    try {
      await this.follow(connection, partition, signal)
      return
    } catch (error) {
      const isOfAll = this.next.size > 1 && this.next.get(partition) === 'start'
      if (!isOutOfRange(error) || !isOfAll || this.start.kind !== 'offset') throw error
      this.described ??= this.describe()
      const begin = otherBegin(await this.described, partition, this.start.offset)
      if (signal.aborted) return
      if (begin === null) throw error
      if (begin.isShort) this.short.add(partition)
      if (this.short.size === this.next.size && !this.isFollowing) throw error
      this.shell.stderr.write(begin.text)
      this.next.set(partition, begin.isShort && !this.isFollowing ? null : begin.offset)
      if (this.next.get(partition) === null) return
    }
    await this.follow(connection, partition, signal)
  }

  private async follow({ log, address }: Connection, partition: number, signal: AbortSignal): Promise<void> {
    const call = log.consumeStream(this.requestFor(partition))
    const cancel = () => void setImmediate(() => call.cancel())
    signal.addEventListener('abort', cancel, { once: true })
    if (signal.aborted) cancel()
    try {
      for await (const { records, streamId } of call as AsyncIterable<ConsumeResponse>) {
        if (this.streamId === 0n) this.streamId = streamId
        for (const record of records) {
          if (signal.aborted || this.printed >= this.max) return
          const isWanted = this.start.kind !== 'offset' || record.offset >= this.start.offset
          if (isWanted) this.print(record, partition)
          this.next.set(partition, record.offset + 1n)
        }
        await this.shell.stdout.drained?.()
        if (this.printed >= this.max) return
      }
      this.next.set(partition, null)
    } catch (error) {
      if (signal.aborted) return
      throw errorOf(error as ServiceError, address, this.nodes.timeoutMs)
    } finally {
      signal.removeEventListener('abort', cancel)
      cancel()
    }
  }

  private print(record: Record, partition: number): void {
    this.printed++
    if (this.isJson) printJson(this.shell.stdout, recordJson(record, partition))
    else printValue(this.shell.stdout, record.value)
  }

  private requestFor(partition: number): ConsumeRequest {
    const next = this.next.get(partition)
    const request = {
      stream: this.stream,
      streamId: this.streamId,
      partition,
      batches: true,
      // Who asks for all there is gets what was acknowledged before he asked; a follower gets it when it comes.
      linearizable: !this.isFollowing,
      ...(this.isFollowing ? {} : { idleMs: 0 }),
    }
    if (typeof next === 'bigint') return ConsumeRequestType.fromPartial({ ...request, offset: next })
    switch (this.start.kind) {
      case 'offset':
        return ConsumeRequestType.fromPartial({ ...request, offset: this.start.offset })
      case 'time':
        return ConsumeRequestType.fromPartial({
          ...request,
          from: From.TIMESTAMP,
          timestampMs: BigInt(Math.floor(this.start.ms)),
        })
      default:
        return ConsumeRequestType.fromPartial({
          ...request,
          from: this.start.kind === 'earliest' ? From.EARLIEST : From.LATEST,
        })
    }
  }
}
