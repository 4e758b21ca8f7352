import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import type { Engine } from '../../src/client/engine.ts'
import {
  CallError,
  type Client,
  CompactedError,
  connect,
  type WatchEvent,
  type Watcher,
} from '../../src/client/entry.ts'
import { Watcher as WatcherOf, type WatcherOptions } from '../../src/client/watch.ts'
import { WatchState } from '../../src/client/watch-state.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { WatchChange, type WatchRequest, WatchResponse } from '../../src/gen/roundhouse/v1/watch.ts'
import type { WatchNews } from '../../src/node/ports.ts'
import { statusOf } from '../../src/peer/status.ts'
import { type Cluster, startCluster } from '../../src/testing.ts'
import { until } from '../wire/grpc/harness.ts'
import { count, FakeNodes } from './fake-nodes.ts'
import { changed, told } from './watch-messages.ts'

const text = ({ kind, key, value }: WatchEvent<string>) =>
  `${kind} ${key}${value === null ? '' : `=${value}`}`

/** As many events as are asked for. */
async function take(watcher: Watcher<string>, count: number): Promise<string[]> {
  const found: string[] = []
  for await (const event of watcher) {
    found.push(text(event))
    if (found.length === count) break
  }
  return found
}

describe('what a watch has received', () => {
  const changes = (place: number, isCut: boolean, ...indexes: readonly [index: number, number: number][]) =>
    WatchResponse.fromPartial({
      news: {
        $case: 'changes',
        value: {
          ...{ shard: 1, place: BigInt(place), isCut },
          changes: indexes.map(([index, number]) =>
            WatchChange.fromPartial({ index: BigInt(index), number }),
          ),
        },
      },
    })
  const shown = (state: WatchState, message: WatchResponse) =>
    state.take(message).map(({ index, number, place }) => `${index}.${number} ${place}`)

  it('is whole entries, with the place after each', () => {
    const state = new WatchState({ 1: 3, 2: 7 })
    assert.deepEqual(shown(state, changes(9, false, [4, 0], [4, 1], [5, 0])), ['4.0 null', '4.1 4', '5.0 9'])
    assert.deepEqual(state.cursor, { 1: 9, 2: 7 })
  })

  it('holds back an entry that goes on, and forgets its beginning when the call breaks off', () => {
    const state = new WatchState({ 1: 3 })
    assert.deepEqual(shown(state, changes(4, true, [4, 0], [5, 0])), ['4.0 4'])
    assert.deepEqual(shown(state, changes(4, true, [5, 1])), [])
    assert.deepEqual(state.cursor, { 1: 4 })
    state.broken()
    assert.deepEqual(shown(state, changes(4, true, [5, 0])), [])
    assert.deepEqual(shown(state, changes(6, false, [5, 1])), ['5.0 null', '5.1 6'])
    assert.deepEqual(state.cursor, { 1: 6 })
  })
})

/** Calls that bring these messages and end with that status, one after another. */
function scripted(calls: readonly (readonly [messages: readonly WatchResponse[], cause: RoundhouseError])[]) {
  const requests: WatchRequest[] = []
  const watch = (request: WatchRequest) => {
    const [messages, cause] = calls[requests.length]!
    requests.push(request)
    const call = new Readable({ objectMode: true, read: () => {} })
    // As grpc-js does: the status comes while messages wait.
    setImmediate(() => {
      for (const message of messages) call.push(message)
      call.push(null)
      call.emit('error', Object.assign(new Error(cause.message), statusOf(cause)))
    })
    return Object.assign(call, { cancel: () => call })
  }
  const link = { address: 'node', watch, suspect: () => {} }
  const engine = { watching: () => true, unwatch: () => {}, nodeFor: async () => link } as unknown as Engine
  const watcher = (from: WatcherOptions<string>['from']) =>
    new WatcherOf<string>({
      ...{ engine, from, key: null, prefix: Buffer.alloc(0), hasValues: true, timeoutMs: 20_000 },
      ...{ signal: null, decode: bytes => bytes.toString() },
    })
  return { requests, watcher }
}

describe('a watch that was overtaken', () => {
  const change = (index: number) => changed(index, 'string')
  const compacted = new RoundhouseError('COMPACTED', { shard: 0, after: 5, start: 8, cursor: '0:9,1:4' })
  const stopped = new RoundhouseError('SHUTTING_DOWN', {})
  const asked = (requests: readonly WatchRequest[]) =>
    requests.map(({ cursor, revision }) => revision ?? cursor)
  /** What it gave, and what it ended with. */
  const endOf = async (watcher: Watcher<string>) => {
    const given: string[] = []
    try {
      for await (const event of watcher) given.push(`${event.revision} ${text(event)}`)
      return { given }
    } catch (error) {
      assert.ok(error instanceof CompactedError, `${error}`)
      assert.match(error.message, /COMPACTED/)
      assert.deepEqual(watcher.cursor, error.cursor)
      return { given, cursor: error.cursor }
    }
  }

  it('ends with the cursor of its last message', async () => {
    const { requests, watcher } = scripted([
      [[told('created', 3, 3), change(5), told('compacted', 9, 4)], compacted],
    ])
    assert.deepEqual(await endOf(watcher(null)), { given: ['5 set a'], cursor: { 0: 9, 1: 4 } })
    assert.deepEqual(asked(requests), [{}])
  })

  it('asks where to go on when that message was lost before the status', async () => {
    const { requests, watcher } = scripted([
      [[told('created', 3, 3), change(5)], compacted],
      [[], stopped],
      [[told('created', 11, 4)], stopped],
    ])
    assert.deepEqual(await endOf(watcher(null)), { given: ['5 set a'], cursor: { 0: 11, 1: 4 } })
    assert.deepEqual(asked(requests), [{}, {}, {}])
  })

  it('asks it also when it was overtaken before it began, from a cursor or a revision', async () => {
    for (const [from, first] of [
      [
        { 0: 1, 1: 2 },
        { 0: 1n, 1: 2n },
      ],
      [1, 1n],
    ] as const) {
      const { requests, watcher } = scripted([
        [[], compacted],
        [[told('created', 11, 4), told('progress', 12)], stopped],
      ])
      assert.deepEqual(await endOf(watcher(from)), { given: [], cursor: { 0: 11, 1: 4 } })
      assert.deepEqual(asked(requests), [first, {}])
    }
  })

  it('is told so when its node is gone after the message and before the status', async () => {
    const { requests, watcher } = scripted([
      [[told('created', 3, 3), change(5), told('compacted', 9, 4)], stopped],
    ])
    assert.deepEqual(await endOf(watcher(null)), { given: ['5 set a'], cursor: { 0: 9, 1: 4 } })
    assert.deepEqual(asked(requests), [{}])
  })

  it('is told so, however many messages lie between the node and its reader', async () => {
    const nodes = await FakeNodes.start(1)
    const [node] = nodes.nodes
    const { watches } = node!
    const client = await nodes.connect({ timeout: 20_000 })
    try {
      // More than grpc-js takes for a reader who does not read, and less than the window of the connection.
      const last = 60
      let index = 7
      watches.onNext = (): WatchNews | Error | null => {
        if (watches.wishes.length > 1) return null
        if (index === last) {
          watches.place = 100
          return compacted
        }
        const entry = { index: ++index, number: 0, key: 'a', kind: 'set', type: 'string', timeMs: 5 } as const
        return { kind: 'changes', shard: 0, place: index, changes: [{ ...entry, value: null }] }
      }
      const watcher = client.watch({ prefix: '' })
      await watcher.ready()
      await until('the node has ended it', () => index === last && watches.open_.size === 0)
      node!.onExecute = async () => count(0)
      // Of the same connection: the status has come.
      await client.exists('a')
      const { given, cursor } = await endOf(watcher)
      assert.deepEqual(
        given,
        given.map((_, i) => `${8 + i} set a`),
      )
      assert.deepEqual(cursor, { 0: 100 })
      assert.deepEqual(
        watches.wishes.map(({ from }) => from),
        [null, null],
      )
    } finally {
      await client.destroy()
      await nodes.close()
    }
  })
})

describe('a watch of the client', () => {
  let cluster: Cluster
  let client: Client
  before(async () => {
    cluster = await startCluster({ nodes: 1 })
    client = await connect({ addresses: cluster.addresses, timeout: 20_000 })
  })
  after(async () => {
    await client.destroy()
    await cluster.stop()
  })

  it('shows what was acknowledged after it was ready, and its cursor leads on from there', async () => {
    await client.set('a', 'before')
    const watcher = client.watch({ key: 'a' })
    await watcher.ready()
    await client.set('a', '1')
    await client.del('a')
    assert.deepEqual(await take(watcher, 1), ['set a=1'])
    const next = client.watch({ key: 'a', from: watcher.cursor })
    assert.deepEqual(await take(next, 1), ['delete a'])
    const written = JSON.stringify(next.cursor)
    await client.set('a', '2')
    const { revision } = await client.execute('SET', 'a', '3')
    assert.deepEqual(await take(client.watch({ key: 'a', from: JSON.parse(written) }), 2), [
      'set a=2',
      'set a=3',
    ])
    const [[shard, place]] = Object.entries(next.cursor) as [[string, number]]
    assert.deepEqual(await take(client.watch({ key: 'a', from: `${shard}:${place}` }), 1), ['set a=2'])
    await client.set('a', '4')
    assert.deepEqual(await take(client.watch({ key: 'a', from: revision }), 1), ['set a=4'])
  })

  it('tells what it knows of a change, in bytes where that is asked', async () => {
    const watcher = client.buffers.watch({ prefix: '{bytes}' })
    const lean = client.watch({ prefix: '{bytes}', values: false })
    await Promise.all([watcher.ready(), lean.ready()])
    await client.mset({ '{bytes}a': Buffer.from([0xff]), '{bytes}b': 'x' })
    const events: WatchEvent<Buffer>[] = []
    for await (const event of watcher) if (events.push(event) === 2) break
    const [first, second] = events as [WatchEvent<Buffer>, WatchEvent<Buffer>]
    assert.deepEqual([first.key, first.value], [Buffer.from('{bytes}a'), Buffer.from([0xff])])
    assert.deepEqual([first.number, second.number], [0, 1])
    assert.equal(first.revision, second.revision)
    assert.ok(Math.abs(first.timestampMs - Date.now()) < 60_000)
    assert.deepEqual(await take(lean, 1), ['set {bytes}a'])
    // One change of the entry was not given out: its place is before it.
    const again = client.watch({ prefix: '{bytes}', from: lean.cursor, values: false })
    assert.deepEqual(await take(again, 2), ['set {bytes}a', 'set {bytes}b'])
  })

  it('ends when it is closed, when its client is, or with an AbortError', async () => {
    const ended = async (watcher: Watcher<string>, end: () => unknown) => {
      await watcher.ready()
      const all = take(watcher, 100)
      end()
      return all
    }
    const closing = client.watch({ prefix: 'end' })
    assert.deepEqual(await ended(closing, () => closing.close()), [])
    const other = await connect(cluster.addresses)
    assert.deepEqual(await ended(other.watch({ prefix: 'end' }), () => other.close()), [])
    await assert.rejects(take(other.watch({ prefix: 'end' }), 1), { code: 'CLOSED' })
    const controller = new AbortController()
    const aborting = ended(client.watch({ prefix: 'end', signal: controller.signal }), () =>
      controller.abort(),
    )
    await assert.rejects(aborting, { name: 'AbortError', code: 'ABORTED' })
  })

  it('refuses what can’t be', async () => {
    assert.throws(() => client.watch({} as { key: string }), TypeError)
    assert.throws(() => client.watch({ key: 'a', from: 'yesterday' }), /a watch's cursor/)
    assert.throws(() => client.watch({ prefix: 'a', from: 12 }), /a watch's cursor/)
    await assert.rejects(client.watch({ key: 'a', from: { 99: 1 } }).ready(), (error: CallError) => {
      assert.ok(error instanceof CallError)
      return error.code === 'INVALID_ARGUMENT'
    })
  })

  it('goes on by itself when its node was away, and is told when what it missed is gone', async () => {
    const old = client.watch({ prefix: 'on:' })
    await old.ready()
    const { cursor } = old
    const watcher = client.watch({ prefix: 'on:' })
    await watcher.ready()
    const seen = take(watcher, 20)
    for (let i = 0; i < 10; i++) await client.set(`on:${i}`, i)
    await cluster.nodes[0]!.stop()
    await cluster.nodes[0]!.start()
    for (let i = 10; i < 20; i++) await client.set(`on:${i}`, i)
    assert.deepEqual((await seen).sort(), Array.from({ length: 20 }, (_, i) => `set on:${i}=${i}`).sort())
    // Rings don't outlive their node.
    const late = client.watch({ prefix: 'on:', from: cursor })
    const error = await take(late, 100).catch((error: unknown) => error)
    assert.ok(error instanceof CompactedError)
    assert.deepEqual(Object.keys(error.cursor), Object.keys(cursor))
    const again = client.watch({ prefix: 'on:', from: error.cursor })
    await again.ready()
    await client.set('on:last', 1)
    assert.deepEqual(await take(again, 1), ['set on:last=1'])
    old.close()
  })
})
