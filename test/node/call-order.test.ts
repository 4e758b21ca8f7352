import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CallOrder } from '../../src/node/call-order.ts'

/** Whether each of these promises is settled by now; null is nothing to wait for. */
async function settled(...promises: readonly (Promise<void> | null)[]): Promise<boolean[]> {
  const seen = promises.map(promise => promise === null)
  for (const [i, promise] of promises.entries())
    void promise?.then(() => {
      seen[i] = true
    })
  await new Promise<void>(resolve => setImmediate(resolve))
  return seen
}

/** How many shards it remembers: none when nothing is under way. */
function remembered(order: CallOrder): number {
  return (order as unknown as { readonly lines: ReadonlyMap<number, unknown> }).lines.size
}

/** A write to a shard that is led here, and any other call. */
const write = true
const other = false

describe('the order of a stream', () => {
  it('lets the first call of a shard begin at once', () => {
    assert.equal(new CallOrder().enter(1, other).previous, null)
  })

  it('lets calls of different shards go side by side', () => {
    const order = new CallOrder()
    order.enter(1, other)
    assert.equal(order.enter(2, other).previous, null)
  })

  it('holds a call until the one before it on its shard is settled', async () => {
    const order = new CallOrder()
    const first = order.enter(1, other)
    const second = order.enter(1, other)
    assert.deepEqual(await settled(second.previous), [false])
    first.leave()
    assert.deepEqual(await settled(second.previous), [true])
  })

  it('holds a call until ALL before it are settled, also when they settle out of order', async () => {
    const order = new CallOrder()
    const first = order.enter(1, write)
    const second = order.enter(1, write)
    const third = order.enter(1, other)
    second.leave()
    assert.deepEqual(await settled(third.previous), [false])
    first.leave()
    assert.deepEqual(await settled(third.previous), [true])
  })

  it('lets writes to a shard that is led here follow each other at once', () => {
    const order = new CallOrder()
    order.enter(1, write)
    assert.equal(order.enter(1, write).previous, null)
    assert.equal(order.enter(1, write).previous, null)
  })

  it('holds a read until the writes before it are settled', async () => {
    const order = new CallOrder()
    const before = order.enter(1, write)
    const read = order.enter(1, other)
    assert.deepEqual(await settled(read.previous), [false])
    before.leave()
    assert.deepEqual(await settled(read.previous), [true])
  })

  it('holds a write until a read before it is settled: the read must not see it', async () => {
    const order = new CallOrder()
    const read = order.enter(1, other)
    const after = order.enter(1, write)
    assert.deepEqual(await settled(after.previous), [false])
    read.leave()
    assert.deepEqual(await settled(after.previous), [true])
  })

  it('lets nobody overtake a write that waits', async () => {
    const order = new CallOrder()
    const read = order.enter(1, other)
    const waiting = order.enter(1, write)
    read.leave()
    await settled(waiting.previous)
    assert.notEqual(order.enter(1, write).previous, null)
  })

  it('lets nobody overtake a call that is tried again', async () => {
    const order = new CallOrder()
    const first = order.enter(1, write)
    void first.retry()
    const second = order.enter(1, write)
    assert.equal(order.enter(2, write).previous, null, 'another shard has nothing to do with it')
    assert.deepEqual(await settled(second.previous), [false])
    first.leave()
    assert.deepEqual(await settled(second.previous), [true])
  })

  it('tries a call again only after all before it', async () => {
    const order = new CallOrder()
    const first = order.enter(1, write)
    const second = order.enter(1, write)
    const before = second.retry()
    assert.deepEqual(await settled(before), [false])
    first.leave()
    assert.deepEqual(await settled(before), [true])
  })

  it('lets writes follow at once again when what blocked them is settled', () => {
    const order = new CallOrder()
    const first = order.enter(1, write)
    void first.retry()
    void first.retry()
    const second = order.enter(1, write)
    first.leave()
    second.leave()
    assert.equal(order.enter(1, write).previous, null)
  })

  it('forgets a shard when all its calls are settled', async () => {
    const order = new CallOrder()
    const first = order.enter(1, write)
    const second = order.enter(1, write)
    first.leave()
    await settled()
    assert.equal(remembered(order), 1)
    second.leave()
    await settled()
    assert.equal(remembered(order), 0)
    assert.equal(order.enter(1, other).previous, null)
  })

  it('forgets no call that is under way when a later one settles before it', async () => {
    const order = new CallOrder()
    const first = order.enter(1, write)
    const second = order.enter(1, write)
    second.leave()
    await settled()
    const third = order.enter(1, other)
    assert.deepEqual(await settled(third.previous), [false])
    first.leave()
    assert.deepEqual(await settled(third.previous), [true])
    third.leave()
    await settled()
    assert.equal(remembered(order), 0)
  })
})
