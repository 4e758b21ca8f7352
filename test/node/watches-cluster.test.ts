import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { type ClientReadableStream, credentials, type ServiceError, status } from '@grpc/grpc-js'
import { type Client, connect } from '../../src/client/entry.ts'
import {
  type WatchChange,
  WatchChange_Kind,
  WatchClient,
  WatchRequest,
  type WatchResponse,
} from '../../src/gen/roundhouse/v1/watch.ts'
import { errorInfoOf } from '../../src/lib/error-info.ts'
import { type Cluster, startCluster } from '../../src/testing.ts'

type Wish = Parameters<typeof WatchRequest.fromPartial>[0]
const names = {
  [WatchChange_Kind.SET]: 'set',
  [WatchChange_Kind.DELETE]: 'delete',
  [WatchChange_Kind.EXPIRE]: 'expire',
}
const bytes = (text: string) => Buffer.from(text)
const key = (text: string): Wish => ({ target: { $case: 'key', value: bytes(text) } })
const prefix = (text: string): Wish => ({ target: { $case: 'prefix', value: bytes(text) } })

/** A watch at one node, as its wire has it. */
class Watching {
  readonly changes: string[] = []
  readonly raw: (WatchChange & { readonly shard: number })[] = []
  readonly cursor = new Map<number, bigint>()
  readonly ended: Promise<ServiceError>
  readonly created: Promise<void>
  compacted = false
  /** All that came was given out. */
  isRead = false
  error: ServiceError | null = null
  progressed = 0
  private readonly door: WatchClient
  readonly call: ClientReadableStream<WatchResponse>
  private wake = () => {}

  constructor(address: string, wish: Wish) {
    this.door = new WatchClient(address, credentials.createInsecure())
    this.call = this.door.watch(WatchRequest.fromPartial({ values: true, ...wish }))
    let isCreated = () => {}
    this.created = new Promise(resolve => {
      isCreated = resolve
    })
    this.call.on('data', ({ news }: WatchResponse) => {
      if (news?.$case === 'created') isCreated()
      if (news?.$case === 'progress') this.progressed++
      if (news?.$case === 'compacted') this.compacted = true
      if (news?.$case === 'changes') {
        const { shard, changes, place } = news.value
        for (const change of changes) {
          const { kind, key, value, type } = change
          const what = value === undefined ? (type === 'string' ? '' : ` ${type}`) : `=${value}`
          this.changes.push(`${names[kind]} ${key}${what}`)
          this.raw.push({ shard, ...change })
        }
        assert.ok(place >= (this.cursor.get(shard) ?? 0n))
        this.cursor.set(shard, place)
      } else
        for (const [shard, place] of Object.entries(news?.value.places ?? {}))
          this.cursor.set(Number(shard), place)
      this.wake()
    })
    this.call.on('end', () => {
      this.isRead = true
      this.wake()
    })
    this.ended = new Promise(resolve => {
      this.call.on('error', (error: ServiceError) => {
        this.error = error
        isCreated()
        this.wake()
        resolve(error)
      })
    })
  }

  get from(): { cursor: Record<number, bigint> } {
    return { cursor: Object.fromEntries(this.cursor) }
  }

  /** For who is to read the keys anew. grpc-js may drop the message that tells; then from now on is as good. */
  get goOn(): { cursor: Record<number, bigint> } {
    return this.compacted ? this.from : { cursor: {} }
  }

  /** The status that says so has come, and all before it that was to come. */
  get isOvertaken(): boolean {
    return this.isRead && this.error !== null && errorInfoOf(this.error.metadata)?.reason === 'COMPACTED'
  }

  async until(isDone: () => boolean, ms = 20_000): Promise<void> {
    const deadline = Date.now() + ms
    while (!isDone()) {
      if (Date.now() > deadline)
        assert.fail(
          `it saw ${JSON.stringify(this.changes.slice(-20))} of ${this.changes.length}, ${this.error}`,
        )
      await new Promise<void>(resolve => {
        this.wake = resolve
        setTimeout(resolve, 50)
      })
    }
  }

  async sees(...expected: string[]): Promise<void> {
    await this.until(() => this.changes.length >= expected.length)
    assert.deepEqual(this.changes, expected)
  }

  close(): void {
    setImmediate(() => {
      this.call.cancel()
      this.door.close()
    })
  }
}

function countBy<Item, Name>(items: readonly Item[], nameOf: (item: Item) => Name): Map<Name, number> {
  const counts = new Map<Name, number>()
  for (const item of items) counts.set(nameOf(item), (counts.get(nameOf(item)) ?? 0) + 1)
  return counts
}

/** Each shard's indexes rise, and the numbers of an entry follow each other. */
function checkOrder(raw: Watching['raw']): void {
  const last = new Map<number, { readonly index: bigint; readonly number: number }>()
  for (const { shard, index, number } of raw) {
    const before = last.get(shard)
    assert.ok(
      before === undefined || index > before.index || (index === before.index && number > before.number),
      `shard ${shard}: ${index}.${number} after ${before?.index}.${before?.number}`,
    )
    last.set(shard, { index, number })
  }
}

describe('watches on a cluster', () => {
  let cluster: Cluster
  let client: Client
  const open = new Set<Watching>()
  const watch = async (node: number, wish: Wish) => {
    const made = new Watching(cluster.addresses[node]!, wish)
    open.add(made)
    await made.created
    return made
  }
  before(async () => {
    cluster = await startCluster({ nodes: 4, shardCount: 8, settings: { cleanup_interval: '500ms' } })
    client = await connect({ addresses: cluster.addresses, timeout: 20_000 })
  })
  after(async () => {
    for (const each of open) each.close()
    await client.destroy()
    await cluster.stop()
  })

  it('show what comes after them, through every node, whoever holds the key', async () => {
    await client.set('{k}one', 'before')
    const all = await Promise.all([0, 1, 2, 3].map(node => watch(node, key('{k}one'))))
    const ofPrefix = await Promise.all([0, 1, 2, 3].map(node => watch(node, prefix('{k}'))))
    await client.set('{k}one', '1')
    await client.set('{k}two', 'x')
    await client.hset('{k}hash', { f: 1 })
    await client.del('{k}one')
    await client.set('{k}one', '2', { px: 20 })
    for (const each of all) await each.sees('set {k}one=1', 'delete {k}one', 'set {k}one=2', 'expire {k}one')
    for (const each of ofPrefix) {
      await each.sees(
        ...[
          'set {k}one=1',
          'set {k}two=x',
          'set {k}hash hash',
          'delete {k}one',
          'set {k}one=2',
          'expire {k}one',
        ],
      )
      checkOrder(each.raw)
      assert.equal(each.cursor.size, 1)
    }
  })

  it('show all shards in their order, and go on from a cursor at any node: nothing twice, nothing missed', async () => {
    const begin = await watch(0, prefix('many:'))
    assert.equal(begin.cursor.size, 8)
    const written: string[] = []
    const write = async (from: number, to: number) => {
      await Promise.all(
        Array.from({ length: to - from }, async (_, i) => {
          await client.set(`many:${from + i}`, `${from + i}`)
          written.push(`set many:${from + i}=${from + i}`)
        }),
      )
    }
    const seen: string[] = []
    let at = begin
    for (let round = 0; round < 6; round++) {
      const writing = write(round * 100, round * 100 + 100)
      await at.until(() => at.changes.length >= 20)
      at.close()
      await new Promise(resolve => setImmediate(resolve))
      seen.push(...at.changes)
      checkOrder(at.raw)
      at = await watch((round + 1) % 4, { ...prefix('many:'), ...at.from })
      await writing
    }
    await at.until(() => seen.length + at.changes.length >= 600)
    seen.push(...at.changes)
    assert.deepEqual(seen.sort(), written.sort())
  })

  it('go on from the revision that a reply told', async () => {
    await client.set('rev', '1')
    const { revision } = await client.execute('GET', 'rev')
    await client.set('rev', '2')
    const after = await watch(1, { ...key('rev'), revision: BigInt(revision) })
    await after.sees('set rev=2')
    const ofPrefix = await watch(1, { ...prefix('rev'), revision: BigInt(revision) })
    assert.equal((await ofPrefix.ended).code, status.INVALID_ARGUMENT)
  })

  it('say where they stand while nothing comes', async () => {
    const idle = await watch(2, { ...key('idle'), progressMs: 100 })
    const [[shard, place]] = [...idle.cursor] as [[number, bigint]]
    const other = `idle{idle}`
    for (let i = 0; i < 5; i++) await client.set(other, i)
    await idle.until(() => idle.progressed >= 2 && idle.cursor.get(shard)! >= place + 5n)
    assert.deepEqual(idle.changes, [])
  })

  it('are refused with a cursor that can’t be: of the wrong shards, or ahead of them', async () => {
    const refused = async (wish: Wish, text: RegExp) => {
      const { code, details } = await (await watch(0, wish)).ended
      assert.equal(code, status.INVALID_ARGUMENT)
      assert.match(details, text)
    }
    await refused({}, /a key or a prefix/)
    await refused({ ...prefix('x'), cursor: { 0: 1n } }, /it has no shard 1/)
    await refused({ ...key('x'), cursor: { 9: 1n } }, /shards 0 to 7/)
    await refused({ ...prefix('{x}'), revision: 10n ** 9n }, /of another cluster/)
    await refused(key(''), /empty key/)
    await refused({ ...key('x'), progressMs: 3 }, /100 to 600000/)
  })

  it('give long entries in parts that end where the entry does', async () => {
    const whole = await watch(3, prefix('{long}'))
    const value = 'v'.repeat(4_000)
    const fields = Object.fromEntries(Array.from({ length: 400 }, (_, i) => [`{long}${i}`, value]))
    const parts: boolean[] = []
    whole.call.on('data', ({ news }: WatchResponse) => {
      if (news?.$case === 'changes') parts.push(news.value.isCut)
    })
    await client.mset(fields)
    await whole.until(() => whole.changes.length >= 400)
    assert.equal(new Set(whole.raw.map(each => each.index)).size, 1)
    assert.ok(parts.length > 2, `${parts.length} parts`)
    assert.deepEqual(parts, [...parts.slice(1).map(() => true), false])
    checkOrder(whole.raw)
  })

  it('tell who was overtaken, and where to go on', { timeout: 180_000 }, async () => {
    const slow = await watch(0, prefix('{slow}'))
    const ofEntry = 5_000
    const write = (entry: number) =>
      client.mset(
        Object.fromEntries(
          Array.from({ length: ofEntry }, (_, i) => [`{slow}${'x'.repeat(200)}${i}`, entry] as const),
        ),
      )
    // What lies in buffers between the ring and the reader can't overtake it: he pauses for twice as long until he was.
    for (let entries = 0, paused = 12; !slow.isOvertaken; paused *= 2) {
      slow.call.pause()
      for (let i = 0; i < paused; i++) await write(++entries)
      slow.call.resume()
      const hasAll = () => slow.changes.length === entries * ofEntry
      await slow.until(() => slow.isOvertaken || hasAll(), 60_000)
    }
    assert.equal(slow.error!.code, status.OUT_OF_RANGE)
    checkOrder(slow.raw)
    // Whole entries: only the last may lack its end, where grpc-js dropped that with the message that tells.
    const whole = [...countBy(slow.raw, each => each.index).values()].slice(
      0,
      slow.compacted ? undefined : -1,
    )
    assert.ok(
      whole.every(count => count === ofEntry),
      `${whole}`,
    )
    // Another node may keep less of them than the one that told where to go on: then it tells anew.
    let again = await watch(1, { ...prefix('{slow}'), ...slow.goOn })
    for (let last = 1; ; last++) {
      const { changes } = again
      const isSeen = () => changes.at(-1) === `set {slow}last=${last}`
      await client.set('{slow}last', last)
      await again.until(() => isSeen() || again.isOvertaken)
      if (isSeen()) break
      assert.ok(last < 10, 'it is overtaken again and again, and nobody writes')
      again = await watch(1, { ...prefix('{slow}'), ...again.goOn })
    }
  })

  it('go on at a node that was started anew with what others still have', async () => {
    const first = await watch(0, prefix('kept:'))
    const { from } = first
    for (let i = 0; i < 50; i++) await client.set(`kept:${i}`, i)
    await first.until(() => first.changes.length >= 50)
    await cluster.nodes[0]!.stop()
    assert.equal((await first.ended).code, status.UNAVAILABLE)
    await cluster.nodes[0]!.start()
    await cluster.settled()
    // Its own rings begin with its start; the others' don't.
    const second = await watch(0, { ...prefix('kept:'), ...from })
    await second.until(() => second.changes.length >= 50)
    assert.deepEqual(second.changes.sort(), first.changes.sort())
    checkOrder(second.raw)
  })
})
