import { RoundhouseError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { Packed } from '../lib/packed.ts'
import type { PartitionPlace } from './ports.ts'

/**
 * Group commit of appends: while a partition's append is under way, those that come meanwhile wait, and are the next one
 * together: one entry, one answer from each follower, one row, whoever they are of. So an append by itself leaves at once, and the
 * more there are, the less each costs. They keep the order in which they came, for there is one under way at a time.
 *
 * Callers get what is their own: the offset of their first record. An error is everybody's of its entry: it says what
 * became of all of its records. Appends with a session are not for this: an entry has one session at most.
 */
export interface AppendQueueOptions {
  readonly clock: Clock
  /** Appends the records of all batches as one entry and answers the offset of the first. */
  readonly append: (place: PartitionPlace, batches: readonly Packed[], timeoutMs: number) => Promise<number>
}

export const appendLimits = {
  /** Of those that are put together; one that is larger goes by itself. */
  recordsMax: 2_000,
  bytesMax: 1024 * 1024,
  /** Waiting, all partitions together. */
  waitingMax: 20_000,
} as const

interface Waiting {
  readonly batch: Packed
  /** On the monotonic clock, ms. */
  readonly deadline: number
  readonly isCalledOff: () => boolean
  readonly resolve: (offset: number) => void
  readonly reject: (error: unknown) => void
}

interface Queue {
  readonly place: PartitionPlace
  waiting: Waiting[]
}

export class AppendQueue {
  private readonly options: AppendQueueOptions
  /** By partition: there is one while an append is under way. */
  private readonly queues = new Map<string, Queue>()
  private waiting = 0

  constructor(options: AppendQueueOptions) {
    this.options = options
  }

  /** Appends that wait for the one before them. */
  get size(): number {
    return this.waiting
  }

  /** `isCalledOff` is asked when the turn comes. Rejects with what the append is refused with, OVERLOADED, NOT_READY. */
  append(
    place: PartitionPlace,
    batch: Packed,
    timeoutMs: number,
    isCalledOff: () => boolean = () => false,
  ): Promise<number> {
    const { clock } = this.options
    if (this.waiting >= appendLimits.waitingMax)
      return Promise.reject(
        new RoundhouseError('OVERLOADED', { what: 'appends waiting', max: appendLimits.waitingMax }),
      )
    return new Promise((resolve, reject) => {
      const one = { batch, deadline: clock.now() + timeoutMs, isCalledOff, resolve, reject }
      const name = `${place.id}/${place.partition}`
      const queue = this.queues.get(name)
      if (queue !== undefined) {
        queue.waiting.push(one)
        this.waiting++
        return
      }
      const begun = { place, waiting: [] }
      this.queues.set(name, begun)
      this.begin(name, begun, [one])
    })
  }

  private begin(name: string, queue: Queue, together: readonly Waiting[]): void {
    const { append, clock } = this.options
    const batches = together.map(({ batch }) => batch)
    const timeoutMs = Math.max(1, Math.max(...together.map(each => each.deadline)) - clock.now())
    append(queue.place, batches, timeoutMs).then(
      first => {
        let offset = first
        for (const each of together) {
          each.resolve(offset)
          offset += each.batch.count
        }
        this.goOn(name, queue)
      },
      error => {
        for (const each of together) each.reject(error)
        // Whoever hears of it may call off what waits behind: that must be done before the next is begun.
        clock.after(0, () => this.goOn(name, queue))
      },
    )
  }

  private goOn(name: string, queue: Queue): void {
    const together = this.take(queue)
    if (together.length > 0) this.begin(name, queue, together)
    else this.queues.delete(name)
  }

  /** What is the next entry; none is left when it is empty. */
  private take(queue: Queue): Waiting[] {
    const { recordsMax, bytesMax } = appendLimits
    const now = this.options.clock.now()
    const together: Waiting[] = []
    let records = 0
    let bytes = 0
    let taken = 0
    for (const each of queue.waiting) {
      const isOver = each.isCalledOff() || each.deadline <= now
      if (!isOver) {
        records += each.batch.count
        bytes += each.batch.bytes.byteLength
        if (together.length > 0 && (records > recordsMax || bytes > bytesMax)) break
        together.push(each)
      } else {
        // What its caller did not ask for any more must not be done.
        each.reject(new RoundhouseError('NOT_READY', { why: 'the turn of the append did not come in time' }))
      }
      taken++
    }
    queue.waiting = queue.waiting.slice(taken)
    this.waiting -= taken
    return together
  }
}
