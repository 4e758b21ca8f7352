import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RoundhouseError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import type { Register, StreamRecord } from '../../src/node/meta-register.ts'
import type { Call, CallResult } from '../../src/node/ports.ts'
import { goneOf, StreamKeeper } from '../../src/node/stream-keeper.ts'

const wallMs = 1_000_000
const stream = (id: number, changed: Partial<StreamRecord> = {}): StreamRecord => ({
  name: `s${id}`,
  id,
  partitions: 2,
  retentionMs: null,
  retentionBytes: null,
  createdMs: 0,
  nonce: 0,
  ...changed,
})

/** A node that leads some shards; partition p of any stream lives in shard p. */
class Bench {
  led = [0, 1]
  streams: StreamRecord[] = []
  nextStream = 10
  readonly calls: string[] = []
  /** What RETAIN proposes, by its arguments; what GONE answers, by shard. */
  proposals: Record<string, number> = {}
  gone: Record<number, readonly number[]> = {}
  onCall: (text: string) => void = () => {}
  readonly keeper = new StreamKeeper({
    clock: { now: () => 0, wall: () => wallMs, after: () => () => {} },
    log: silentLogger,
    register: () => {
      const streams = new Map(this.streams.map(each => [each.name, each]))
      return { streams, nextStream: this.nextStream } as unknown as Register
    },
    led: () => this.led,
    shardOf: key => Number(toUtf8(key).split('/').at(-1)),
    execute: async call => this.execute(call),
  })

  private execute({ command, args, read, shard }: Call): CallResult {
    const text = [command, ...args.map(toUtf8)].join(' ')
    this.calls.push(`${text}${shard === null ? '' : ` on ${shard}`}${read === 'stale' ? '' : ' !'}`)
    this.onCall(text)
    const at = { revision: 1, lagMs: 0 }
    if (command === 'STREAM.GONE') {
      const items = (this.gone[shard!] ?? [1]).map(id => ({ value: fromUtf8(String(id)) }))
      return { ...at, reply: { kind: 'list', items } }
    }
    return { ...at, reply: { kind: 'count', count: this.proposals[text] ?? 0 } }
  }
}

describe('retention', () => {
  it('asks for the partitions led here what their stream gives up, and cuts there once', async () => {
    const bench = new Bench()
    bench.led = [1]
    bench.streams = [stream(3, { retentionMs: 1_000, retentionBytes: 64 }), stream(4)]
    bench.proposals = { 'STREAM.RETAIN s3/1 3 1 64 999000': 17 }
    await bench.keeper.retain()
    assert.deepEqual(bench.calls.splice(0), ['STREAM.RETAIN s3/1 3 1 64 999000', 'STREAM.TRIM s3/1 3 1 17 !'])
    await bench.keeper.retain()
    assert.deepEqual(bench.calls.splice(0), ['STREAM.RETAIN s3/1 3 1 64 999000'])
    bench.proposals = { 'STREAM.RETAIN s3/1 3 1 64 999000': 18 }
    await bench.keeper.retain()
    assert.equal(bench.calls.at(-1), 'STREAM.TRIM s3/1 3 1 18 !')
  })

  it('leaves alone what is kept for ever', async () => {
    const bench = new Bench()
    bench.streams = [stream(3)]
    await bench.keeper.retain()
    assert.deepEqual(bench.calls, [])
  })

  it('asks for the one limit that there is', async () => {
    const bench = new Bench()
    bench.led = [0]
    bench.streams = [stream(3, { retentionBytes: 64 }), stream(4, { retentionMs: 1 })]
    await bench.keeper.retain()
    assert.deepEqual(bench.calls, ['STREAM.RETAIN s3/0 3 0 64 -', 'STREAM.RETAIN s4/0 4 0 - 999999'])
  })

  it('tries again in the next round what failed', async () => {
    const bench = new Bench()
    bench.led = [0]
    bench.streams = [stream(3, { retentionBytes: 64 })]
    bench.proposals = { 'STREAM.RETAIN s3/0 3 0 64 -': 5 }
    bench.onCall = text => {
      if (text.startsWith('STREAM.TRIM')) throw new RoundhouseError('NO_LEADER', { shard: 0, waitedMs: 1 })
    }
    await bench.keeper.retain()
    bench.onCall = () => {}
    await bench.keeper.retain()
    assert.equal(bench.calls.filter(each => each.startsWith('STREAM.TRIM')).length, 2)
  })
})

describe('the sweep', () => {
  it('tells each shard led here which streams are gone, and those that know it nothing', async () => {
    const bench = new Bench()
    bench.streams = [stream(3), stream(7), stream(9)]
    bench.nextStream = 10
    bench.gone = { 0: [6, 3] }
    await bench.keeper.sweep()
    assert.deepEqual(bench.calls.splice(0), [
      'STREAM.GONE on 0',
      'STREAM.DROP 9 3 7 on 0 !',
      'STREAM.GONE on 1',
      'STREAM.DROP 9 3 7 on 1 !',
    ])
    bench.gone = { 0: [9, 3, 7], 1: [9, 3, 7] }
    await bench.keeper.sweep()
    assert.deepEqual(bench.calls, ['STREAM.GONE on 0', 'STREAM.GONE on 1'])
  })

  it('tells of a stream that went among others', async () => {
    const bench = new Bench()
    bench.led = [0]
    bench.streams = [stream(7)]
    bench.gone = { 0: [9, 3, 7] }
    await bench.keeper.sweep()
    assert.equal(bench.calls.at(-1), 'STREAM.DROP 10 7 on 0 !')
  })

  it('says nothing of streams that this node has not heard of yet, nor to a shard that knows more', async () => {
    const bench = new Bench()
    bench.led = [0]
    bench.nextStream = 5
    bench.streams = [stream(2)]
    bench.gone = { 0: [8] }
    await bench.keeper.sweep()
    assert.deepEqual(bench.calls, ['STREAM.GONE on 0'])
  })

  it('changes nothing when a stream is made', () => {
    const streams = new Map([stream(2), stream(4)].map(each => [each.name, each]))
    assert.deepEqual(goneOf({ streams, nextStream: 5 }), { next: 4, alive: [2] })
    streams.set('s5', stream(5))
    assert.deepEqual(goneOf({ streams, nextStream: 6 }), { next: 4, alive: [2] })
    assert.deepEqual(goneOf({ streams: new Map(), nextStream: 1 }), { next: 1, alive: [] })
  })
})
