import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { StreamRecord } from '../../src/node/meta-register.ts'
import { type CreateStreamRequest, streamLimits } from '../../src/node/meta-streams.ts'
import { MetaShard } from './cluster-register.ts'

const refusal = (code: string) => ({ name: 'RoundhouseError', code })

let nonce = 0
const request = (name: string, changed: Partial<CreateStreamRequest> = {}): CreateStreamRequest => ({
  name,
  partitions: 1,
  retentionMs: null,
  retentionBytes: null,
  nonce: ++nonce,
  ifMissing: false,
  ...changed,
})

class Catalogue extends MetaShard {
  create(name: string, changed: Partial<CreateStreamRequest> = {}): StreamRecord {
    return this.run('META.STREAM.CREATE', request(name, changed))
  }
}

const founded = () => {
  const catalogue = new Catalogue()
  catalogue.found()
  return catalogue
}

describe('META.STREAM.CREATE', () => {
  it('enters a stream under its name, with an id of its own', () => {
    const meta = founded()
    const orders = meta.create('orders', { partitions: 8, retentionMs: 7 * 86_400_000 })
    const audit = meta.create('audit')
    assert.deepEqual(
      [...meta.register.streams],
      [
        ['orders', orders],
        ['audit', audit],
      ],
    )
    assert.deepEqual([orders.id, orders.partitions, orders.retentionMs], [1, 8, 7 * 86_400_000])
    assert.deepEqual([audit.id, meta.register.nextStream], [2, 3])
  })

  it('refuses a name that is taken', () => {
    const meta = founded()
    meta.create('orders')
    assert.throws(() => meta.create('orders'), refusal('STREAM_EXISTS'))
  })

  it('answers the stream that the same request has made before', () => {
    const meta = founded()
    const first = request('orders')
    const made = meta.run('META.STREAM.CREATE', first)
    assert.deepEqual(meta.run('META.STREAM.CREATE', first), made)
    assert.equal(meta.register.nextStream, 2)
  })

  it('answers a stream that is there to who only wants that there is one', () => {
    const meta = founded()
    const made = meta.create('default', { partitions: 3 })
    assert.deepEqual(meta.create('default', { ifMissing: true }), made)
  })

  it('never gives an id again', () => {
    const meta = founded()
    const { id } = meta.create('orders')
    meta.run('META.STREAM.DELETE', { name: 'orders', id })
    assert.equal(meta.create('orders').id, id + 1)
  })

  it('takes names of 1 to 255 bytes without control characters', () => {
    const meta = founded()
    for (const name of ['a', 'ü'.repeat(127), 'a b/c{d}', '日本']) meta.create(name)
    for (const name of ['', 'ü'.repeat(128), 'a\nb', 'a\u0000', 'a\u0085', '\ud800'])
      assert.throws(() => meta.create(name), refusal('INVALID_ARGUMENT'), JSON.stringify(name))
  })

  it('refuses partitions and retention that can not be kept', () => {
    const meta = founded()
    for (const wrong of [
      { partitions: 0 },
      { partitions: 1.5 },
      { partitions: streamLimits.partitionsMax + 1 },
      { retentionMs: 0 },
      { retentionMs: -1 },
      { retentionBytes: streamLimits.retentionBytesMin - 1 },
      { retentionBytes: 2 ** 60 },
    ])
      assert.throws(() => meta.create('orders', wrong), refusal('INVALID_ARGUMENT'), JSON.stringify(wrong))
    assert.equal(meta.register.streams.size, 0)
  })

  it('refuses what is too much for the cluster', () => {
    const meta = founded()
    const { partitionsMax, allPartitionsMax } = streamLimits
    for (let i = 0; i < Math.floor(allPartitionsMax / partitionsMax); i++)
      meta.create(`s${i}`, { partitions: partitionsMax })
    assert.throws(() => meta.create('more', { partitions: partitionsMax }), refusal('OVERLOADED'))
    meta.create('fits', { partitions: allPartitionsMax % partitionsMax })
    assert.throws(() => meta.create('one more'), refusal('OVERLOADED'))
  })

  it('refuses what is no request', () => {
    const meta = founded()
    for (const wrong of [null, 7, {}, { ...request('a'), name: 7 }, { ...request('a'), partitions: '1' }])
      assert.throws(() => meta.run('META.STREAM.CREATE', wrong), refusal('INVALID_ARGUMENT'))
  })
})

describe('META.STREAM.FIND', () => {
  it('answers what is under a name, or that there is nothing', () => {
    const meta = founded()
    const made = meta.create('orders')
    assert.deepEqual(meta.run('META.STREAM.FIND', { name: 'orders' }), made)
    assert.throws(() => meta.run('META.STREAM.FIND', { name: 'order' }), refusal('NO_SUCH_STREAM'))
    assert.throws(() => meta.run('META.STREAM.FIND', { name: 7 }), refusal('INVALID_ARGUMENT'))
  })
})

describe('META.STREAM.CHANGE', () => {
  it('changes what is named and leaves the rest', () => {
    const meta = founded()
    const made = meta.create('orders', { retentionMs: 60_000, retentionBytes: 2 ** 30 })
    meta.run('META.STREAM.CHANGE', { name: 'orders', id: made.id, retentionMs: null })
    assert.deepEqual(meta.register.streams.get('orders'), { ...made, retentionMs: null })
    const before = meta.register
    meta.run('META.STREAM.CHANGE', { name: 'orders', id: made.id })
    assert.equal(meta.register, before)
  })

  it('refuses a stream that is gone, and one that came after it', () => {
    const meta = founded()
    const { id } = meta.create('orders')
    meta.run('META.STREAM.DELETE', { name: 'orders', id })
    meta.create('orders')
    assert.throws(
      () => meta.run('META.STREAM.CHANGE', { name: 'orders', id, retentionMs: null }),
      refusal('NO_SUCH_STREAM'),
    )
  })
})

describe('META.STREAM.DELETE', () => {
  it('takes the stream out, once', () => {
    const meta = founded()
    const { id } = meta.create('orders')
    const other = meta.create('audit')
    meta.run('META.STREAM.DELETE', { name: 'orders', id })
    meta.run('META.STREAM.DELETE', { name: 'orders', id })
    assert.deepEqual([...meta.register.streams.values()], [other])
  })

  it('leaves the next stream of that name alone when it comes late', () => {
    const meta = founded()
    const { id } = meta.create('orders')
    meta.run('META.STREAM.DELETE', { name: 'orders', id })
    const next = meta.create('orders')
    meta.run('META.STREAM.DELETE', { name: 'orders', id })
    assert.deepEqual([...meta.register.streams.values()], [next])
  })
})

describe('The register', () => {
  it('keeps the catalogue at hand while something else changes', () => {
    const meta = founded()
    meta.create('orders')
    const { streams } = meta.register
    meta.join('node2')
    assert.equal(meta.register.streams, streams)
  })

  it('has no streams where none was made', () => {
    const { streams, nextStream } = founded().register
    assert.deepEqual([streams.size, nextStream], [0, 1])
  })
})
