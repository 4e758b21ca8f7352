/**
 * `consume --group`: one member of a consumer group. It joins, reads the partitions it is told to, and commits what it has
 * printed; says by heartbeats that it lives, gives up what it is asked for (the protocol: keyspace/groups.ts), and leaves
 * when it ends. What was printed and not committed when it dies is printed again by who has the partition then.
 */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import type { ServiceError } from '@grpc/grpc-js'
import { readMembership } from '../commands/groups.ts'
import { isError, RemoteError, RoundhouseError } from '../errors.ts'
import { ConsumeRequest, type ConsumeResponse, From } from '../gen/log/v1/log.ts'
import { runCommand, Session } from './calls.ts'
import type { Connection, Nodes } from './connection.ts'
import { pairsOf } from './groups.ts'
import { printJson, printValue } from './print.ts'
import { recordJson } from './record-text.ts'
import { errorOf } from './remote-error.ts'
import { pause, type Shell } from './shell.ts'
import { otherBegin } from './streams.ts'

/** A silent member is taken out after this. */
const timeoutMs = 15_000
/** Offsets are committed as often. */
const heartbeatMs = 1_000
/** Who has nothing to read looks so often before it ends, for others may have to give it up first. */
const emptyRoundsMax = 5
const retryMs = 200
/** Of a connection, which carries 1,000 at most; more would wait behind them, for ever. */
const followedMax = 500

export interface GroupWish {
  readonly stream: string
  readonly group: string
  /** Of partitions that have no committed offset. */
  readonly start:
    | { readonly kind: 'earliest' | 'latest' }
    | { readonly kind: 'offset'; readonly offset: bigint }
    | { readonly kind: 'time'; readonly ms: number }
  readonly strategy: string
  readonly isFollowing: boolean
  readonly isJson: boolean
  readonly max: number
}

interface Reading {
  /** null: where the wish says. */
  next: bigint | null
  /** While it does not have the offset of the wish: where the call begins. */
  waitsFrom: bigint | null
  committed: bigint | null
  readonly stop: AbortController
  isAtEnd: boolean
  done: Promise<void>
}

type Membership = ReturnType<typeof readMembership>

export class GroupConsumer {
  private readonly wish: GroupWish
  private readonly shell: Shell
  /** For commands, one at a time; and for records, whose calls stay open. */
  private readonly nodes: Nodes
  private readonly readers: Nodes[] = []
  private readonly newReaders: () => Nodes
  private readonly member = `${hostname()}-${process.pid}-${randomBytes(4).toString('hex')}`
  private readonly session = new Session()
  private readonly readings = new Map<number, Reading>()
  private streamId = ''
  private partitions = 0
  private generation = 0
  private printed = 0
  private failure: unknown = null
  private connecting: Promise<unknown> = Promise.resolve()
  private stirred = new AbortController()

  constructor(wish: GroupWish, shell: Shell, nodes: Nodes, newReaders: () => Nodes) {
    this.wish = wish
    this.shell = shell
    this.nodes = nodes
    this.newReaders = newReaders
  }

  async run(): Promise<void> {
    const { stream, partitions } = await this.described()
    this.streamId = String(stream?.id)
    this.partitions = partitions.length
    let emptyRounds = 0
    try {
      await this.join()
      while (!this.isOver && emptyRounds < emptyRoundsMax) {
        await this.rest()
        if (this.isOver) break
        await this.round()
        const isIdle = !this.wish.isFollowing && [...this.readings.values()].every(each => each.isAtEnd)
        if (!isIdle) emptyRounds = 0
        else if (this.readings.size > 0) break
        else emptyRounds++
      }
    } finally {
      await this.leave()
      for (const readers of this.readers) readers.close()
    }
    if (this.failure !== null) throw this.failure
  }

  private get isOver(): boolean {
    return this.shell.signal.aborted || this.failure !== null || this.printed >= this.wish.max
  }

  /** Until the next heartbeat, or until something is at its end. */
  private async rest(): Promise<void> {
    await pause(heartbeatMs, AbortSignal.any([this.shell.signal, this.stirred.signal]))
    this.stirred = new AbortController()
  }

  // --- Membership -----------------------------------------------------------------------------------------------------

  private async join(): Promise<void> {
    const { group, strategy } = this.wish
    const args = [group, this.member, String(timeoutMs), strategy, this.streamId, String(this.partitions)]
    await this.adopt(await this.tell('GROUP.JOIN', args))
  }

  /** Commits, and hears what is new. */
  private async round(): Promise<void> {
    try {
      await this.commit()
      const told = await this.tell('GROUP.HEARTBEAT', [this.wish.group, this.member, String(this.generation)])
      await this.adopt(told)
    } catch (error) {
      // Reading goes on meanwhile; when it takes too long, the group counts us out.
      if (this.wish.isFollowing && isPassing(error)) return
      if (!isOut(error)) throw error
      // What was read since the last commit belongs to others now: they read it again.
      await this.giveUp([...this.readings.keys()])
      await this.join()
    }
  }

  private async adopt(told: Membership | null): Promise<void> {
    if (told === null) return
    const mine = new Set(told.assigned.map(({ partition }) => partition))
    const going = [...this.readings.keys()].filter(partition => !mine.has(partition))
    // Under the old generation still: the new one is not ours to commit for what goes.
    if (going.length > 0 && this.generation !== 0) {
      await this.stop(going)
      await this.commit()
    }
    await this.giveUp(going)
    const isNews = told.generation !== this.generation
    this.generation = told.generation
    const fresh = [...mine].filter(partition => !this.readings.has(partition))
    if (fresh.length > 0) {
      const args = [this.wish.group, this.streamId]
      const offsets = new Map(pairsOf(await runCommand(this.nodes, 'GROUP.OFFSETS', args, 'read')))
      const ends = this.wish.start.kind === 'latest' ? (await this.described()).partitions : []
      for (const partition of fresh) {
        const committed = offsets.get(`${this.streamId} ${partition}`)
        const end = ends.find(each => each.partition === partition && each.error === '')?.endOffset ?? null
        this.read(partition, committed === undefined ? null : BigInt(committed), end)
      }
    }
    // Others wait for what is given up.
    if (isNews && told.revoked.length > 0) this.stirred.abort()
  }

  /** null: it was applied, but what it answered is not known any more. */
  private async tell(command: string, args: readonly string[]): Promise<Membership | null> {
    const response = await runCommand(this.nodes, command, args, 'write', this.session)
    const told = readMembership(pairsOf(response))
    return told.generation === 0 ? null : told
  }

  /** What has been printed and not been committed yet. */
  private async commit(): Promise<void> {
    const moved = [...this.readings].filter(([, { next, committed }]) => next !== null && next !== committed)
    if (moved.length === 0 || this.generation === 0) return
    const offsets = moved.map(([partition, { next }]) => [partition, next!] as const)
    await runCommand(
      this.nodes,
      'GROUP.COMMIT',
      [
        this.wish.group,
        this.member,
        String(this.generation),
        ...offsets.flatMap(([partition, next]) => [this.streamId, String(partition), String(next)]),
      ],
      'write',
      this.session,
    )
    for (const [partition, next] of offsets) this.readings.get(partition)!.committed = next
  }

  private async leave(): Promise<void> {
    await this.stop([...this.readings.keys()])
    if (this.generation === 0) return
    try {
      await this.commit()
      const args = [this.wish.group, this.member, String(this.generation)]
      await runCommand(this.nodes, 'GROUP.LEAVE', args, 'write', this.session)
    } catch (error) {
      if (!isOut(error)) this.failure ??= error
    }
  }

  // --- Reading --------------------------------------------------------------------------------------------------------

  private described() {
    return this.nodes.call('read', (call, { streams }) =>
      call(streams.describe.bind(streams), { name: this.wish.stream }),
    )
  }

  private read(partition: number, committed: bigint | null, end: bigint | null): void {
    const reading: Reading = {
      next: committed ?? end,
      waitsFrom: null,
      committed,
      stop: new AbortController(),
      isAtEnd: false,
      done: Promise.resolve(),
    }
    this.readings.set(partition, reading)
    reading.done = this.follow(partition, reading).catch(error => {
      this.failure ??= error
      this.stirred.abort()
    })
  }

  private async stop(partitions: readonly number[]): Promise<void> {
    const stopped = partitions.map(partition => this.readings.get(partition)!)
    for (const { stop } of stopped) stop.abort()
    await Promise.all(stopped.map(({ done }) => done))
  }

  private async giveUp(partitions: readonly number[]): Promise<void> {
    await this.stop(partitions)
    for (const partition of partitions) this.readings.delete(partition)
  }

  private async follow(partition: number, reading: Reading): Promise<void> {
    const { signal } = reading.stop
    while (!signal.aborted) {
      try {
        await this.stream(await this.connection(partition), partition, reading)
        if (signal.aborted) return
        reading.isAtEnd = true
        this.stirred.abort()
        return
      } catch (error) {
        if (signal.aborted) return
        if (isError(error, 'OFFSET_OUT_OF_RANGE') || (error as RemoteError).code === 'OFFSET_OUT_OF_RANGE') {
          const { partitions } = await this.described()
          if (reading.next === null && this.partitions > 1 && this.wish.start.kind === 'offset') {
            const begin = otherBegin(partitions, partition, this.wish.start.offset)
            if (begin === null) throw error
            if (reading.waitsFrom === null) this.shell.stderr.write(begin.text)
            if (begin.isShort) reading.waitsFrom = begin.offset
            else reading.next = begin.offset
            if (!begin.isShort || this.wish.isFollowing) continue
            reading.isAtEnd = true
            this.stirred.abort()
            return
          }
          const start = partitions[partition]!.startOffset
          // Retention has taken what was to be read next.
          if (reading.next === null || reading.next >= start) throw error
          this.shell.stderr.write(`partition ${partition}: ${reading.next} to ${start - 1n} are gone\n`)
          reading.next = start
        } else if (!isPassing(error)) throw error
        else await pause(retryMs, signal)
      }
    }
  }

  /** One is made at a time: whoever comes meanwhile takes the same. */
  private connection(partition: number): Promise<Connection> {
    const place = Math.floor(partition / followedMax)
    while (this.readers.length <= place) this.readers.push(this.newReaders())
    const readers = this.readers[place]!
    const next = this.connecting.then(() => readers.call('read', async (_, connection) => connection))
    this.connecting = next.catch(() => {})
    return next
  }

  private async stream({ log, address }: Connection, partition: number, reading: Reading): Promise<void> {
    const { signal } = reading.stop
    const { stdout } = this.shell
    const call = log.consumeStream(this.requestFor(partition, reading))
    const cancel = () => void setImmediate(() => call.cancel())
    signal.addEventListener('abort', cancel, { once: true })
    try {
      for await (const { records } of call as AsyncIterable<ConsumeResponse>) {
        for (const record of records) {
          if (signal.aborted || this.isOver) return
          const { start } = this.wish
          if (reading.next === null && start.kind === 'offset' && record.offset < start.offset) {
            reading.waitsFrom = record.offset + 1n
            continue
          }
          this.printed++
          if (this.wish.isJson) printJson(stdout, recordJson(record, partition))
          else printValue(stdout, record.value)
          reading.next = record.offset + 1n
        }
        await stdout.drained?.()
        if (this.isOver) {
          this.stirred.abort()
          return
        }
      }
    } catch (error) {
      if (signal.aborted) return
      throw errorOf(error as ServiceError, address, this.nodes.timeoutMs)
    } finally {
      signal.removeEventListener('abort', cancel)
      cancel()
    }
  }

  private requestFor(partition: number, { next, waitsFrom }: Reading): ConsumeRequest {
    const { stream, start, isFollowing } = this.wish
    const request = {
      // Offsets and commits are of this one, whatever has its name by now.
      ...{ stream, streamId: BigInt(this.streamId), partition },
      ...{ batches: true, linearizable: !isFollowing },
      ...(isFollowing ? {} : { idleMs: 0 }),
    }
    if (next !== null) return ConsumeRequest.fromPartial({ ...request, offset: next })
    if (start.kind === 'offset')
      return ConsumeRequest.fromPartial({ ...request, offset: waitsFrom ?? start.offset })
    if (start.kind === 'time')
      return ConsumeRequest.fromPartial({
        ...request,
        from: From.TIMESTAMP,
        timestampMs: BigInt(Math.floor(start.ms)),
      })
    const from = start.kind === 'earliest' ? From.EARLIEST : From.LATEST
    return ConsumeRequest.fromPartial({ ...request, from })
  }
}

/** The group counts it out. */
function isOut(error: unknown): boolean {
  const { code } = error as RemoteError
  return code === 'NO_SUCH_MEMBER' || code === 'NO_SUCH_GROUP' || code === 'STALE_GENERATION'
}

/** It may go better through another node, or later. */
export function isPassing(error: unknown): boolean {
  if (!(error instanceof RoundhouseError || error instanceof RemoteError)) return false
  return isError(error, 'UNREACHABLE') || error.kind === 'unavailable' || error.kind === 'outcome_unknown'
}
