/**
 * Records on their way. Those of one partition go in the order in which they were given: one batch is under way, what is
 * given meanwhile is the next one. So nothing has to be waited for to make batches, and what is sent again after a
 * failure can't come behind what was given later.
 *
 *   produce → units by partition → [ batch: whole units ] → one entry of the partition's shard → places
 *
 * A unit is what one call has for one partition: it is appended as a whole or not at all. A batch that is refused is sent
 * once more unit by unit, so that nobody pays for what another one gave.
 */
import type { ProduceRequest, ProduceResponse, Record as WireRecord } from '../gen/log/v1/log.ts'
import { Aborts } from './aborts.ts'
import { aborted, cutOff, givenUp, lateFailure, type Tried } from './call.ts'
import { CallError } from './call-error.ts'
import type { Engine, Guest } from './engine.ts'
import { deliver, type Outcome, once } from './errand.ts'
import { type Partitions, partitionKey } from './partitions.ts'
import { bytesOf } from './record.ts'
import type { Ticket } from './sessions.ts'

const name = 'PRODUCE'

/** Of a batch of several units. A unit that is larger by itself goes alone, and the node says whether it may. */
const batchLimits = { recordsMax: 2_000, bytesMax: 512 * 1024 } as const

/** Where a record is. */
export interface Produced {
  readonly partition: number
  readonly offset: number
}

export interface ProduceWish {
  readonly stream: string
  readonly records: readonly WireRecord[]
  /** null: by key, or whichever. */
  readonly partition: number | null
  readonly timeoutMs: number
  readonly signal: AbortSignal | null
}

export class Producer {
  private readonly engine: Engine
  private readonly partitions: Partitions
  private readonly aborts = new Aborts()
  private readonly streams = new Map<string, StreamProducer>()
  /** Where a stream's first record without key goes: one call after another goes round, too. */
  private turn = Math.floor(Math.random() * 1024)

  constructor(engine: Engine, partitions: Partitions) {
    this.engine = engine
    this.partitions = partitions
  }

  /** A place for each record. Rejects with CallError. */
  produce(wish: ProduceWish): Promise<readonly Produced[]> {
    return new Promise((resolve, reject) => {
      const bytes = wish.records.reduce((sum, record) => sum + bytesOf(record), 0)
      const call = new ProduceCall(wish, resolve, reject)
      const refusal = this.engine.enter(call, { name, bytes, signal: wish.signal })
      if (refusal !== null) {
        reject(refusal)
        return
      }
      call.onSettled = () => this.engine.leave(call, bytes)
      if (wish.records.length === 0) {
        call.finish()
        return
      }
      call.watch(this.aborts)
      this.stream(wish.stream).add(call)
    })
  }

  private stream(stream: string): StreamProducer {
    let found = this.streams.get(stream)
    if (found === undefined) {
      const onIdle = () => void this.streams.delete(stream)
      found = new StreamProducer(stream, this.engine, this.partitions, this.turn++, onIdle)
      this.streams.set(stream, found)
    }
    return found
  }
}

/** The records of one stream. It goes when it has none. */
class StreamProducer {
  private readonly stream: string
  private readonly engine: Engine
  private readonly partitions: Partitions
  private readonly onIdle: () => void
  /** Until it is known how many partitions there are. */
  private waiting: ProduceCall[] = []
  private readonly lines = new Map<number, PartitionLine>()
  /** Where records without key go. */
  private turn: number

  constructor(stream: string, engine: Engine, partitions: Partitions, turn: number, onIdle: () => void) {
    this.stream = stream
    this.engine = engine
    this.partitions = partitions
    this.onIdle = onIdle
    this.turn = turn
  }

  add(call: ProduceCall): void {
    const { partition } = call.wish
    const count = partition === null ? this.partitions.countOf(this.stream) : 0
    if (this.waiting.length === 0 && count !== null) {
      this.place(call, count)
      return
    }
    this.waiting.push(call)
    if (this.waiting.length === 1) void this.ask()
  }

  private async ask(): Promise<void> {
    // The first one's patience is that of all: who came later asks again.
    const [{ wish }] = this.waiting as [ProduceCall]
    let count: number | null = null
    let failure: unknown = null
    try {
      count = await this.partitions.ask(this.stream, wish)
    } catch (error) {
      failure = error
    }
    const calls = this.waiting
    this.waiting = []
    for (const [i, call] of calls.entries()) {
      if (count !== null || call.wish.partition !== null) this.place(call, count ?? 0)
      else if (i === 0 || (failure as CallError).code === 'NO_SUCH_STREAM') call.fail(failure as CallError)
      else this.add(call)
    }
    this.forgetIdle()
  }

  private place(call: ProduceCall, count: number): void {
    if (call.isSettled) return
    const { records, partition } = call.wish
    if (partition !== null || count === 1) {
      this.line(partition ?? 0).add(call.unit(records.map((_, i) => i)))
      return
    }
    const byPartition = new Map<number, number[]>()
    let keyless: number | null = null
    for (const [i, { key }] of records.entries()) {
      if (key === undefined) keyless ??= this.nextTurn(count)
      const place = key === undefined ? keyless! : this.partitions.ofKey(key, count)
      const indexes = byPartition.get(place)
      if (indexes === undefined) byPartition.set(place, [i])
      else indexes.push(i)
    }
    const units = [...byPartition].map(([place, indexes]) => [place, call.unit(indexes)] as const)
    for (const [place, unit] of units) this.line(place).add(unit)
  }

  /** A batch that waits is filled before another one begins. */
  private nextTurn(count: number): number {
    if (this.lines.get(this.turn % count)?.hasWaiting !== true) this.turn++
    return this.turn % count
  }

  private line(partition: number): PartitionLine {
    let line = this.lines.get(partition)
    if (line === undefined) {
      const onIdle = () => {
        this.lines.delete(partition)
        this.forgetIdle()
      }
      line = new PartitionLine(this.stream, partition, this.engine, this.partitions, onIdle)
      this.lines.set(partition, line)
    }
    return line
  }

  private forgetIdle(): void {
    if (this.lines.size === 0 && this.waiting.length === 0) this.onIdle()
  }
}

/** The records of one partition, one batch after another. */
class PartitionLine {
  private readonly stream: string
  private readonly partition: number
  private readonly engine: Engine
  private readonly partitions: Partitions
  private readonly onIdle: () => void
  private units: Unit[] = []
  private isRunning = false

  constructor(stream: string, partition: number, engine: Engine, partitions: Partitions, onIdle: () => void) {
    this.stream = stream
    this.partition = partition
    this.engine = engine
    this.partitions = partitions
    this.onIdle = onIdle
  }

  get hasWaiting(): boolean {
    return this.units.length > 0
  }

  add(unit: Unit): void {
    this.units.push(unit)
    if (this.isRunning) return
    this.isRunning = true
    // What is given in the same breath goes together.
    queueMicrotask(() => void this.run())
  }

  private async run(): Promise<void> {
    for (let batch = this.next(); batch.length > 0; batch = this.next()) {
      const outcome = await this.send(batch)
      if (outcome.ok) this.answered(batch, outcome.answer)
      else if (batch.length > 1 && isRefusal(outcome.tried)) for (const unit of batch) await this.alone(unit)
      else this.failed(batch, outcome.tried)
    }
    this.isRunning = false
    this.onIdle()
  }

  private async alone(unit: Unit): Promise<void> {
    if (unit.call.isSettled) return
    const outcome = await this.send([unit])
    if (outcome.ok) this.answered([unit], outcome.answer)
    else this.failed([unit], outcome.tried)
  }

  /** As many as fit, and at least one. Who has given up by now is left out. */
  private next(): Unit[] {
    const batch: Unit[] = []
    let records = 0
    let bytes = 0
    let taken = 0
    for (const unit of this.units) {
      if (!unit.call.isSettled) {
        records += unit.records.length
        bytes += unit.bytes
        if (batch.length > 0 && (records > batchLimits.recordsMax || bytes > batchLimits.bytesMax)) break
        batch.push(unit)
      }
      taken++
    }
    this.units.splice(0, taken)
    return batch
  }

  /** One entry. It is tried until all who wait for it have given up. */
  private async send(batch: readonly Unit[]): Promise<Outcome<ProduceResponse>> {
    const end = new AbortController()
    let left = batch.length
    const onGivenUp = () => {
      if (--left === 0) end.abort()
    }
    for (const { call } of batch) call.gaveUp.push(onGivenUp)
    const ticket = await this.ticket(end.signal)
    try {
      if (ticket === null) return { ok: false, tried: untried }
      const request: ProduceRequest = {
        ...{ record: undefined, stream: this.stream, partition: this.partition, acks: 0 },
        records: batch.length === 1 ? batch[0]!.records : batch.flatMap(unit => unit.records),
        ...{ session: ticket.id, sequence: BigInt(ticket.sequence), ackedBelow: 0n },
      }
      return await deliver(this.engine, {
        name,
        key: partitionKey(this.stream, this.partition),
        ...{ access: 'write', isRepeatable: true },
        deadlineMs: Math.max(...batch.map(({ call }) => call.deadlineMs)),
        signal: end.signal,
        send: (link, timeoutMs) => {
          for (const { call } of batch) call.attempts++
          request.ackedBelow = BigInt(ticket.ackedBelow())
          return once<ProduceResponse>(link, timeoutMs, end.signal, (metadata, options, done) =>
            link.log.produce(request, metadata, options, done),
          )
        },
      })
    } finally {
      ticket?.settle()
      for (const { call } of batch) call.gaveUp.splice(call.gaveUp.indexOf(onGivenUp), 1)
    }
  }

  /** null: nobody waits for it any more. */
  private async ticket(signal: AbortSignal): Promise<Ticket | null> {
    for (;;) {
      if (signal.aborted) return null
      const ticket = this.engine.ticket()
      if (ticket !== null) return ticket
      await new Promise(resolve => setTimeout(resolve, ticketPauseMs))
    }
  }

  private answered(batch: readonly Unit[], { partition, offset }: ProduceResponse): void {
    let next = Number(offset)
    for (const unit of batch) {
      unit.call.appended(unit, partition, next)
      next += unit.records.length
    }
  }

  private failed(batch: readonly Unit[], tried: Tried): void {
    const code = tried.last?.code
    if (code === 'NO_SUCH_STREAM' || code === 'NO_SUCH_PARTITION') this.partitions.forget(this.stream)
    for (const { call } of batch) call.unitFailed(givenUp(tried))
  }
}

/** All sessions have writes that hang. */
const ticketPauseMs = 20
const untried: Tried = { command: name, startedMs: 0, attempts: 0, last: null, undecided: null }

/** Certainly nothing of it was appended. */
function isRefusal({ last, undecided }: Tried): boolean {
  return last !== null && last.retry === 'never' && (undecided === null || last.isAnswer)
}

/** What one call has for one partition. */
interface Unit {
  readonly call: ProduceCall
  readonly records: WireRecord[]
  /** Places of the records in the call. */
  readonly indexes: readonly number[]
  readonly bytes: number
}

class ProduceCall implements Guest {
  readonly wish: ProduceWish
  readonly deadlineMs: number
  isSettled = false
  /** Sent units, those that were sent again counted again. */
  attempts = 0
  onSettled: () => void = () => {}
  /** Called when it is settled before its units are. */
  readonly gaveUp: (() => void)[] = []
  private readonly startedMs = performance.now()
  private readonly resolve: (places: readonly Produced[]) => void
  private readonly reject: (error: CallError) => void
  private readonly places: Produced[]
  private unitsLeft = 0
  private unitsDone = 0
  private firstError: CallError | null = null
  private timer: NodeJS.Timeout | null = null
  private unlisten: (() => void) | null = null

  constructor(
    wish: ProduceWish,
    resolve: (places: readonly Produced[]) => void,
    reject: (error: CallError) => void,
  ) {
    this.wish = wish
    this.deadlineMs = this.startedMs + wish.timeoutMs
    this.resolve = resolve
    this.reject = reject
    this.places = new Array(wish.records.length)
  }

  /** Its time, and its signal. */
  watch(aborts: Aborts): void {
    const { timeoutMs, signal } = this.wish
    this.timer = setTimeout(() => this.late(), timeoutMs)
    if (signal !== null)
      this.unlisten = aborts.listen(signal, () => this.fail(aborted(name, signal, this.ending)))
  }

  unit(indexes: readonly number[]): Unit {
    this.unitsLeft++
    const records = indexes.map(i => this.wish.records[i]!)
    return { call: this, records, indexes, bytes: records.reduce((sum, each) => sum + bytesOf(each), 0) }
  }

  appended({ indexes }: Unit, partition: number, offset: number): void {
    for (const [i, place] of indexes.entries()) this.places[place] = { partition, offset: offset + i }
    this.unitsDone++
    this.unitSettled()
  }

  unitFailed(error: CallError): void {
    this.firstError ??= error
    this.unitSettled()
  }

  fail(error: CallError): void {
    if (this.isSettled) return
    this.end()
    for (const each of [...this.gaveUp]) each()
    this.reject(error)
  }

  finish(): void {
    if (this.isSettled) return
    this.end()
    this.resolve(this.places)
  }

  destroy(): void {
    this.fail(cutOff({ command: name, ...this.ending }))
  }

  private unitSettled(): void {
    if (--this.unitsLeft > 0) return
    const { firstError: error, unitsDone } = this
    if (error === null) this.finish()
    else if (unitsDone === 0 || error.outcome !== 'refused') this.fail(error)
    else {
      const { code, attempts } = error
      const message = `${error.message}; its records for ${unitsDone} other partitions were appended`
      this.fail(new CallError({ code, message, outcome: 'unknown', command: name, attempts, cause: error }))
    }
  }

  private late(): void {
    const why = this.attempts === 0 ? 'it was not sent in time' : 'nobody answered'
    const failure = { ...lateFailure(why), outcome: this.attempts === 0 ? 'refused' : 'unknown' } as const
    this.fail(
      givenUp({
        ...{ command: name, startedMs: this.startedMs, attempts: this.attempts, last: failure },
        undecided: this.attempts === 0 ? null : failure,
      }),
    )
  }

  private get ending() {
    return {
      ...({ access: 'write', undecided: null, isSent: this.attempts > 0, attempts: this.attempts } as const),
    }
  }

  private end(): void {
    this.isSettled = true
    if (this.timer !== null) clearTimeout(this.timer)
    this.unlisten?.()
    this.onSettled()
  }
}
