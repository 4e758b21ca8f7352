/**
 * `produce STREAM < file`: a line a record, in batches, pipelined over one ProduceStream. Each batch has a sequence of one
 * session: what a broken call leaves undecided is sent again through another node, and appended once.
 *
 * `echo … | produce` in a loop must not leave a session a process in the shard, so the first batches carry that of
 * one-shot.ts. Each of them is alone under way: where it is refused for its session, it is certain that nothing of it was
 * done, and it begins the process's own session, as do the batches that follow.
 */
import { createReadStream, fstatSync, statSync } from 'node:fs'
import xxhash from 'xxhash-wasm'
import { isError, RemoteError, RoundhouseError } from '../errors.ts'
import {
  type ProduceRequest,
  ProduceRequest as ProduceRequestType,
  type ProduceResponse,
} from '../gen/log/v1/log.ts'
import { systemReason } from '../lib/system-reason.ts'
import { partitionOfKey, produceLimits } from '../node/stream-batch.ts'
import { newSession } from './calls.ts'
import { type Connection, connectionOptions, Nodes, outputOption } from './connection.ts'
import { type Carried, isOfSession, sharedSession, sharedTimeoutMsMax } from './one-shot.ts'
import { bytesText, printJson } from './print.ts'
import { Progress } from './progress.ts'
import { type GivenRecord, headersOf, recordOfJson } from './record-text.ts'
import { errorOf } from './remote-error.ts'
import { exitCodeOf, exitCodes, type Input, reportOf, type Shell, UsageError, type Verb } from './shell.ts'
import { integerOf, partitionsOf, streamOf } from './streams.ts'

const limits = {
  recordsMax: 1_000,
  bytesMax: 256 * 1024,
  /** Sent and not answered. */
  batchesMax: 32,
  progressMs: 100,
  /** More than a node's `message_timeout`, after which it would say so itself. */
  silentMs: 10_000,
  /** A session is young enough for every shard for as long; then a new one begins, when nothing is under way. */
  sessionMs: 30 * 60_000,
  /** Under the session that all processes share. */
  sharedBatchesMax: 4,
} as const

export const produceVerb: Verb = {
  path: ['produce'],
  summary: 'Append records to a stream: a line a record, from standard input',
  group: 'streams',
  positionals: [{ name: 'stream', kind: 'required', describe: 'Its name' }],
  options: {
    key: { kind: 'text', alias: 'k', describe: 'Of all records; one key is one partition' },
    partition: { kind: 'text', alias: 'p', describe: 'Where to; else by key, else batch by batch in turn' },
    headers: { kind: 'text', describe: 'Of all records: name=value,name=value' },
    json: {
      kind: 'boolean',
      describe: 'Lines are JSON, as consume -o json prints them: value, key, headers, type',
    },
    file: { kind: 'text', alias: 'f', describe: 'Read from a file', isFile: true },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['produce orders --key u42 < file', 'each line a record; done when all are on the disks of a majority'],
    ['produce orders --json < records.jsonl', 'each with a key and headers of its own'],
  ],
  notes:
    'An interrupted call is repeated through another node by itself, and no record is appended twice. Whatever ends it, it says\n' +
    'how many records were acknowledged, and of how many that is not known (-o json: records, unknown).',
  run: async (input, shell) => {
    const nodes = Nodes.from(input, shell)
    try {
      const run = new Producing(input, shell, nodes)
      try {
        await run.all()
      } catch (error) {
        return run.fail(error)
      }
      run.report()
      return exitCodes.done
    } finally {
      nodes.close()
    }
  },
}

interface Batch {
  request: ProduceRequest
  sequence: bigint
  readonly inputBytes: number
  /** Whether all processes share its session; then its request says what is acknowledged. */
  isShared: boolean
  timesSent: number
  /** A call that it was sent in ended, and not with a refusal that can only be its own: it may have been appended. */
  isDoubtful: boolean
}

interface Filling {
  records: GivenRecord[]
  bytes: number
  inputBytes: number
}

class Producing {
  acknowledged = 0
  private readonly input: Input
  private readonly shell: Shell
  private readonly nodes: Nodes
  private readonly stream: string
  /** Where all records go, if it is one place. */
  private only: number | undefined
  /** By partition; of none in particular under -1. */
  private readonly filling = new Map<number, Filling>()
  /** Sent or to be sent, not answered; oldest first. */
  private unanswered: Batch[] = []
  private session = Buffer.alloc(0)
  private sessionMs = Number.NEGATIVE_INFINITY
  private sequence = 0n
  private sharedLeft: number
  private readonly done = new Map<number, { first: bigint; last: bigint; count: number }>()
  private link: Link | null = null
  private wake: () => void = () => {}
  private doneBytes = 0
  private totalBytes: number | null = null
  private readonly progress: Progress
  private shownMs = 0

  constructor(input: Input, shell: Shell, nodes: Nodes) {
    this.input = input
    this.shell = shell
    this.nodes = nodes
    this.stream = streamOf(input)
    const { partition } = input.options
    this.only = partition === undefined ? undefined : integerOf(partition, '--partition', 0, 1023)
    this.sharedLeft = nodes.timeoutMs <= sharedTimeoutMsMax ? limits.sharedBatchesMax : 0
    this.progress = new Progress(shell.stderr, `produce ${this.stream}`, 'KiB')
  }

  async all(): Promise<void> {
    const given = this.options()
    const source = this.source()
    const partitions = (await partitionsOf(this.nodes, this.stream)) ?? 1
    if (partitions === 1) this.only = 0
    const { h64 } = await xxhash()
    const { signal } = this.shell
    // Ctrl-C ends the input; what was read is settled, but for a line that was cut.
    const stop = () => (source as { destroy?: () => void }).destroy?.()
    signal.addEventListener('abort', stop, { once: true })
    let line = 0
    let mistake: UsageError | null = null
    try {
      try {
        for await (const lines of linesOf(untilEnd(source, signal), () => signal.aborted)) {
          for (const bytes of lines) {
            line++
            const record = given(bytes, line)
            const place =
              this.only ??
              (record.key === undefined ? -1 : partitionOfKey(text => h64(text), record.key, partitions))
            this.add(record, place, bytes.byteLength + 1)
            if (this.hasFull(place)) await this.flush(place)
          }
          // Whoever types or follows something wants it to leave at once.
          for (const place of [...this.filling.keys()]) await this.flush(place)
        }
      } catch (error) {
        if (!(error instanceof UsageError)) throw error
        mistake = error
      }
      // Also before a line that is no record: so it is certain where to go on.
      for (const place of [...this.filling.keys()]) await this.flush(place)
      await this.settled(0)
      if (mistake !== null) throw mistake
    } finally {
      signal.removeEventListener('abort', stop)
      this.progress.stop()
      if (this.link !== null && this.link.failure === null) this.doubt(this.link)
      this.link?.close()
    }
  }

  /**
   * Says how far it came. As long as one record may have been appended its outcome is unknown, whatever ended it. Answers the
   * exit code; throws in text.
   */
  fail(error: unknown): number {
    const unknown = sum(
      this.unanswered.filter(each => each.isDoubtful).map(each => each.request.records.length),
    )
    const isUnknown = unknown > 0 && reportOf(error, true).outcome !== 'unknown'
    const why = error instanceof Error ? error.message : String(error)
    const told = isUnknown ? new RoundhouseError('OUTCOME_UNKNOWN', { why }) : error
    if (this.isJson) {
      const outcome = unknown > 0 ? 'unknown' : this.acknowledged > 0 ? 'partly_applied' : 'not_applied'
      printJson(this.shell.stdout, { ...reportOf(told, true), outcome, ...this.facts(), unknown })
      return exitCodeOf(told)
    }
    const ofUnknown = unknown === 0 ? '' : `, of ${unknown} it is not known`
    if (this.acknowledged + unknown > 0)
      this.shell.stderr.write(`${this.acknowledged} records were acknowledged before that${ofUnknown}\n`)
    throw told
  }

  report(): void {
    if (this.isJson) {
      printJson(this.shell.stdout, { outcome: 'applied', ...this.facts() })
      return
    }
    const parts = this.parts()
    if (parts.length === 0) this.shell.stdout.write(`nothing to produce to ${this.stream}\n`)
    for (const [partition, { first, last, count }] of parts) {
      const records = count === 1 ? '1 record' : `${count} records`
      const offsets = first === last ? `offset ${first}` : `offsets ${first} to ${last}`
      this.shell.stdout.write(`${records} in ${this.stream}/${partition}, ${offsets}\n`)
    }
  }

  private get isJson(): boolean {
    return this.input.options.output === 'json'
  }

  private parts() {
    return [...this.done].sort(([a], [b]) => a - b)
  }

  /** What was acknowledged, for tools. */
  private facts() {
    return {
      stream: this.stream,
      records: this.acknowledged,
      partitions: this.parts().map(([partition, { first, last, count }]) => ({
        partition,
        first: Number(first),
        last: Number(last),
        records: count,
      })),
    }
  }

  private options(): (line: Buffer, number: number) => GivenRecord {
    const { key, headers, json } = this.input.options
    const ownHeaders = headersOf(headers === undefined ? '' : String(headers))
    const ownKey = key === undefined ? undefined : Buffer.from(String(key))
    if (json !== true) return value => ({ value, key: ownKey, headers: ownHeaders, type: 0 })
    return (line, number) => {
      const record = recordOfJson(line, number)
      return { ...record, key: record.key ?? ownKey, headers: [...ownHeaders, ...record.headers] }
    }
  }

  private source(): AsyncIterable<Buffer> {
    const { file } = this.input.options
    if (file !== undefined) {
      const path = String(file)
      try {
        this.totalBytes = statSync(path).size
        return createReadStream(path, { highWaterMark: limits.bytesMax })
      } catch (error) {
        throw new UsageError([`--file ${path}: ${systemReason(error)}`])
      }
    }
    const { stream } = this.shell.stdin
    if (stream === null) throw new UsageError(['standard input is the prompt here: use --file'])
    const { fd } = stream as { fd?: number }
    try {
      const found = fd === undefined ? null : fstatSync(fd)
      if (found?.isFile()) this.totalBytes = found.size
    } catch {
      // Then nobody knows how long it is.
    }
    return stream as AsyncIterable<Buffer>
  }

  private add(record: GivenRecord, place: number, inputBytes: number): void {
    const filling = this.filling.get(place) ?? { records: [], bytes: 0, inputBytes: 0 }
    this.filling.set(place, filling)
    filling.records.push(record)
    filling.bytes += record.value.byteLength + (record.key?.byteLength ?? 0)
    filling.inputBytes += inputBytes
  }

  private hasFull(place: number): boolean {
    const { records, bytes } = this.filling.get(place)!
    return records.length >= limits.recordsMax || bytes >= limits.bytesMax
  }

  /** Sends what is there, when there is room for it. */
  private async flush(place: number): Promise<void> {
    const filling = this.filling.get(place)
    if (filling === undefined) return
    this.filling.delete(place)
    const isShared = this.sharedLeft > 0
    const isNew = Date.now() - this.sessionMs > limits.sessionMs
    await this.settled(isShared || isNew ? 0 : limits.batchesMax - 1)
    const carried = isShared ? this.nextShared() : this.nextOwn(isNew)
    const request = ProduceRequestType.fromPartial({
      stream: this.stream,
      ...(place === -1 ? {} : { partition: place }),
      records: filling.records,
      ...carried,
    })
    const { sequence } = carried
    const { inputBytes } = filling
    const batch = { request, sequence, inputBytes, isShared, timesSent: 0, isDoubtful: false }
    this.unanswered.push(batch)
    if (this.link === null || this.link.failure !== null) await this.resume()
    else this.link.send(batch, this.lowest)
  }

  private nextShared(): Carried {
    this.sharedLeft--
    return sharedSession(Date.now())
  }

  /** `isNew`: under a new session, with nothing under way in another. */
  private nextOwn(isNew: boolean): Pick<Carried, 'session' | 'sequence'> {
    if (isNew) {
      this.session = newSession(Date.now())
      this.sessionMs = Date.now()
      this.sequence = 0n
    }
    this.sequence += 1n
    return { session: this.session, sequence: this.sequence }
  }

  /** False: it is not for its session that the one batch which is under way was refused, or nobody knows. */
  private goesOnAlone(error: unknown): boolean {
    const [batch] = this.unanswered
    if (batch?.isShared !== true || batch.timesSent > 1 || !isOfSession(error)) return false
    this.sharedLeft = 0
    const carried = this.nextOwn(true)
    batch.isShared = false
    batch.sequence = carried.sequence
    batch.request = { ...batch.request, ...carried, ackedBelow: 0n }
    return true
  }

  private get lowest(): bigint {
    return this.unanswered[0]?.sequence ?? this.sequence
  }

  /** Resolves when at most `max` batches wait for their answers. What broke off is sent again. */
  private async settled(max: number): Promise<void> {
    while (this.unanswered.length > max) {
      if (this.link === null || this.link.failure !== null) {
        await this.resume()
        continue
      }
      await new Promise<void>(resolve => {
        this.wake = resolve
      })
    }
  }

  /** A call that is open, to whichever node takes one, with all that is unanswered sent again. */
  private async resume(): Promise<void> {
    const failure = this.link?.failure ?? null
    this.link?.close()
    this.link = null
    // Only what may go better elsewhere or later is tried again.
    if (failure !== null && !isPassing(failure) && !this.goesOnAlone(failure)) throw failure
    if (this.only !== undefined) await this.toLeader(this.only)
    try {
      await this.sendAll()
    } catch (error) {
      if (!this.goesOnAlone(error)) throw error
      await this.sendAll()
    }
  }

  private async sendAll(): Promise<void> {
    await this.nodes.call('write', async (_, connection) => {
      const before = this.acknowledged
      this.link?.close()
      const link: Link = new Link(connection, {
        answered: response => this.answered(response),
        failed: () => {
          this.doubt(link)
          this.wake()
        },
      })
      this.link = link
      for (const batch of this.unanswered) link.send(batch, this.lowest)
      // The first answer, or why there is none: then another node is asked.
      while (link.failure === null && this.acknowledged === before && this.unanswered.length > 0)
        await new Promise<void>(resolve => {
          this.wake = resolve
        })
      if (link.failure !== null && this.acknowledged === before) throw link.failure
    })
  }

  /** Its call is over: of what was sent in it and not answered nobody knows, but of one that is refused and was alone. */
  private doubt({ unanswered, failure }: Link): void {
    const isRefusal = failure instanceof RemoteError && failure.kind !== 'outcome_unknown'
    if (isRefusal && unanswered === 1) return
    for (const batch of this.unanswered.slice(0, unanswered)) batch.isDoubtful = true
  }

  /** Any node would do, but what it must pass on it passes on one by one, to keep the order. */
  private async toLeader(partition: number): Promise<void> {
    const request = { stream: this.stream, partition }
    const { servers } = await this.nodes.call('read', (call, { log }) =>
      call(log.getServers.bind(log), request),
    )
    const leader = servers.find(each => each.isLeader)
    if (leader !== undefined) this.nodes.prefer(leader.rpcAddr)
  }

  private answered({ offset, partition, count }: ProduceResponse): void {
    const batch = this.unanswered.shift()!
    this.acknowledged += count
    const last = offset + BigInt(count) - 1n
    const known = this.done.get(partition)
    if (known === undefined) this.done.set(partition, { first: offset, last, count })
    else
      this.done.set(partition, {
        first: offset < known.first ? offset : known.first,
        last: last > known.last ? last : known.last,
        count: known.count + count,
      })
    this.doneBytes += batch.inputBytes
    this.show()
    this.wake()
  }

  private show(): void {
    if (this.totalBytes === null || this.shell.stderr.stream === null) return
    if (Date.now() - this.shownMs < limits.progressMs) return
    this.shownMs = Date.now()
    const kib = (bytes: number) => Math.round(bytes / 1024)
    const detail = `${this.acknowledged} records, ${bytesText(this.doneBytes)}`
    this.progress.show({ done: kib(this.doneBytes), total: kib(this.totalBytes), detail })
  }
}

/** One ProduceStream call. */
class Link {
  failure: Error | null = null
  private readonly call: ReturnType<Connection['log']['produceStream']>
  private readonly watch: NodeJS.Timeout
  /** The oldest of all, sent in this call. */
  unanswered = 0
  private heardMs = Date.now()
  private isClosed = false

  constructor(
    { log, address }: Connection,
    on: { readonly answered: (response: ProduceResponse) => void; readonly failed: () => void },
  ) {
    this.call = log.produceStream()
    this.call.on('data', (response: ProduceResponse) => {
      if (this.isClosed) return
      this.heardMs = Date.now()
      this.unanswered--
      on.answered(response)
    })
    this.call.on('error', error => {
      if (this.isClosed) return
      this.failure ??= errorOf(error as Parameters<typeof errorOf>[0], address, limits.silentMs)
      on.failed()
    })
    this.call.on('end', () => {
      if (this.isClosed || this.failure !== null) return
      this.failure = new RoundhouseError('OUTCOME_UNKNOWN', { why: `${address} ended the call` })
      on.failed()
    })
    // A node that is stopped or cut off says nothing, and nor does its connection.
    this.watch = setInterval(() => {
      if (this.unanswered === 0 || Date.now() - this.heardMs < limits.silentMs) return
      this.failure ??= new RoundhouseError('DEADLINE', {
        afterMs: limits.silentMs,
        what: `${address} did not answer`,
      })
      on.failed()
    }, 1_000)
  }

  send(batch: Batch, lowest: bigint): void {
    if (this.failure !== null) return
    if (this.unanswered++ === 0) this.heardMs = Date.now()
    batch.timesSent++
    const { request, isShared } = batch
    // Nobody waits for it to drain: so much is never unanswered that it would matter.
    this.call.write(isShared ? request : { ...request, ackedBelow: lowest })
  }

  close(): void {
    this.isClosed = true
    clearInterval(this.watch)
    setImmediate(() => this.call.cancel())
  }
}

const sum = (counts: readonly number[]) => counts.reduce((all, each) => all + each, 0)

function isPassing(error: Error): boolean {
  if (!isError(error) && !(error instanceof RemoteError)) return false
  return error.kind === 'unavailable' || error.kind === 'outcome_unknown'
}

/** What comes before the signal. */
async function* untilEnd(source: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
  try {
    yield* source
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** Lines as they come, without their ends; the last need not have one, unless the source was cut. Throws UsageError. */
export async function* linesOf(
  source: AsyncIterable<Buffer | string>,
  isCut: () => boolean = () => false,
): AsyncGenerator<Buffer[]> {
  let rest: Buffer[] = []
  let restBytes = 0
  let number = 1
  for await (const chunk of source) {
    const bytes = Buffer.from(chunk as Buffer)
    const lines: Buffer[] = []
    let from = 0
    for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, from)) {
      lines.push(
        rest.length === 0 ? bytes.subarray(from, at) : Buffer.concat([...rest, bytes.subarray(from, at)]),
      )
      rest = []
      restBytes = 0
      from = at + 1
    }
    number += lines.length
    if (from < bytes.length) {
      rest.push(bytes.subarray(from))
      restBytes += bytes.length - from
    }
    if (lines.length > 0) yield lines
    if (restBytes > produceLimits.recordBytesMax * 2)
      throw new UsageError([
        `line ${number} is longer than ${produceLimits.recordBytesMax * 2} bytes: no record may be`,
      ])
  }
  if (restBytes > 0 && !isCut()) yield [Buffer.concat(rest)]
}
