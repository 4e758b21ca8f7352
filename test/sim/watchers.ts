/**
 * A watch of all keys under trouble, and what is never to be seen of it: an entry twice or out of its shard's order, two
 * contents of one change, a cursor that goes back, or one that passes over a change which any replica applied, unless the
 * watch said that it was COMPACTED. What replicas applied is read from their own rings.
 */
import type { Change } from '../../src/keyspace/changes.ts'
import { emptyBytes } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { metaGroup } from '../../src/node/meta-register.ts'
import type { Node } from '../../src/node/node.ts'
import type { OpenWatch } from '../../src/node/ports.ts'
import type { SimCluster, SimMachine } from './sim-cluster.ts'

const everything = { kind: 'prefix', prefix: '' } as const
const readBytes = 2_000
const pauseMs = 150
const finishMs = 30_000

type Ended = { readonly kind: 'ended' }

export class Watchers {
  private readonly cluster: SimCluster
  private readonly violated: (text: string) => void
  /** Its own: a run is the same with and without its choices. */
  private readonly random = new Prng(11)
  /** By shard, and then by the entry and its number. */
  private readonly seen = new Map<number, Map<string, string>>()
  private readonly begun = new Map<number, number>()
  private readonly places = new Map<number, number>()
  private readonly gaps = new Map<number, { readonly after: number; readonly to: number }[]>()
  private isRunning = true

  constructor(cluster: SimCluster, violated: (text: string) => void) {
    this.cluster = cluster
    this.violated = violated
    void this.run().catch((error: Error) => violated(`the watcher failed: ${error.stack}`))
  }

  private async run(): Promise<void> {
    while (this.isRunning) {
      const up = this.cluster.machines.filter(({ node }) => node?.isServing() === true)
      const machine = up[this.random.below(Math.max(1, up.length))]
      const node = machine?.node ?? null
      if (machine !== undefined && node !== null) await this.watch(machine, node)
      await this.pause(pauseMs)
    }
  }

  /** Watches at one node until that ends, or has had its time. */
  private async watch(machine: SimMachine, node: Node): Promise<void> {
    const { world } = this.cluster
    const untilMs = world.nowMs + 500 + this.random.below(8_000)
    const isOver = () => !this.isRunning || machine.node !== node || world.nowMs > untilMs
    const from = this.places.size === 0 ? null : new Map(this.places)
    const opened = await this.unless(isOver, node.watches.open({ key: null, prefix: emptyBytes, from }))
    if (opened instanceof Error) {
      if (/of another cluster/.test(opened.message)) this.violated(`${machine.nodeId}: ${opened.message}`)
      return
    }
    if ('kind' in opened) return
    const watch: OpenWatch = opened
    if (from === null)
      for (const [shard, place] of watch.cursor) {
        this.begun.set(shard, place)
        this.places.set(shard, place)
      }
    while (!isOver()) {
      const news = await this.unless(isOver, watch.next(readBytes, 1_000))
      if (news instanceof Error) {
        if ((news as { code?: string }).code === 'COMPACTED') this.compacted(watch)
        break
      }
      if (news.kind === 'changes') this.take(machine, news)
      else if (news.kind === 'ended') break
      else this.advance(machine, watch)
    }
    watch.close()
  }

  private take(
    { nodeId }: SimMachine,
    news: { readonly shard: number; readonly changes: readonly Change[]; readonly place: number },
  ): void {
    const { shard, changes, place } = news
    const before = this.places.get(shard)!
    let last = { index: before, number: Number.POSITIVE_INFINITY }
    for (const change of changes) {
      const { index, number } = change
      const isNext = index > last.index ? number === 0 : number === last.number + 1
      if (!isNext || index < last.index)
        this.violated(
          `${nodeId}: a watch of shard ${shard} saw ${index}.${number} after ${last.index}.${last.number}`,
        )
      last = { index, number }
      this.note(shard, change, nodeId)
    }
    if (place < last.index) this.violated(`${nodeId}: a watch is at ${place} and showed ${last.index}`)
    this.places.set(shard, place)
  }

  private note(shard: number, change: Change, by: string): void {
    const seen = this.seen.get(shard) ?? new Map<string, string>()
    this.seen.set(shard, seen)
    const name = `${change.index}.${change.number}`
    const known = seen.get(name)
    if (known !== undefined && known !== textOf(change))
      this.violated(`${by}: change ${name} of shard ${shard} is ${known} and ${textOf(change)}`)
    seen.set(name, textOf(change))
  }

  private advance({ nodeId }: SimMachine, watch: OpenWatch): void {
    for (const [shard, place] of watch.cursor) {
      if (place < this.places.get(shard)!)
        this.violated(`${nodeId}: the cursor of shard ${shard} went back to ${place}`)
      this.places.set(shard, place)
    }
  }

  private compacted(watch: OpenWatch): void {
    for (const [shard, to] of watch.cursor) {
      const after = this.places.get(shard)!
      if (to > after) this.gaps.set(shard, [...(this.gaps.get(shard) ?? []), { after, to }])
      this.places.set(shard, to)
    }
  }

  /** When all is quiet: it comes to the end, and has seen what the replicas' rings hold. */
  async finish(): Promise<void> {
    const { world, machines } = this.cluster
    const untilMs = world.nowMs + finishMs
    const isBehind = () => this.ends().filter(([shard, end]) => (this.places.get(shard) ?? 0) < end)
    while (isBehind().length > 0 && world.nowMs < untilMs) await this.pause(pauseMs)
    for (const [shard, end] of isBehind())
      this.violated(`a watch of shard ${shard} is at ${this.places.get(shard)} at the end, ${end} is applied`)
    this.isRunning = false
    for (const { node, nodeId } of machines)
      for (const { group, changes, revision } of node?.host.all() ?? []) {
        if (group === metaGroup) continue
        for (const change of changes.read(changes.start, revision, everything, Number.POSITIVE_INFINITY)
          .changes)
          this.check(group, change, nodeId)
      }
  }

  private check(shard: number, change: Change, nodeId: string): void {
    const { index, number } = change
    if (index <= (this.begun.get(shard) ?? Number.POSITIVE_INFINITY) || index > this.places.get(shard)!)
      return
    if (this.gaps.get(shard)?.some(({ after, to }) => index > after && index <= to)) return
    const known = this.seen.get(shard)?.get(`${index}.${number}`)
    if (known !== textOf(change))
      this.violated(
        `${nodeId} applied ${textOf(change)} as ${index}.${number} of shard ${shard}; a watch that passed it saw ${known ?? 'nothing'}`,
      )
  }

  /** How far each shard's replicas are. */
  private ends(): (readonly [shard: number, end: number])[] {
    const ends = new Map<number, number>()
    for (const { node } of this.cluster.machines)
      for (const { group, revision } of node?.host.all() ?? [])
        if (group !== metaGroup) ends.set(group, Math.max(revision, ends.get(group) ?? 0))
    return this.begun.size === 0 ? [] : [...ends]
  }

  /** What it rejects with is answered; a node that dies settles nothing any more. */
  private unless<T>(isOver: () => boolean, promise: Promise<T>): Promise<T | Error | Ended> {
    return new Promise(resolve => {
      let isSettled = false
      const settle = (value: T | Error | Ended) => {
        isSettled = true
        resolve(value)
      }
      promise.then(settle, (error: Error) => settle(error))
      const look = () => {
        if (isSettled) return
        if (isOver()) settle({ kind: 'ended' })
        else this.cluster.world.at(pauseMs, look)
      }
      look()
    })
  }

  private pause(ms: number): Promise<void> {
    return new Promise(resolve => this.cluster.world.at(ms, resolve))
  }
}

function textOf({ kind, key, type }: Change): string {
  return `${kind} ${key} ${type}`
}
