import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RoundhouseError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import type { Register, StreamRecord } from '../../src/node/meta-register.ts'
import type { Call, CallResult } from '../../src/node/ports.ts'
import { StreamKeeper } from '../../src/node/stream-keeper.ts'

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
  /** What RETAIN proposes, by its arguments; what PARTITIONS lists, by shard. */
  proposals: Record<string, number> = {}
  listed: Record<number, readonly (readonly [key: string, place: string])[]> = {}
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
    if (command === 'STREAM.PARTITIONS') {
      const items = (this.listed[shard!] ?? []).map(([key, place]) => ({
        key: fromUtf8(key),
        value: fromUtf8(place),
      }))
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
  it('drops what belongs to streams that are gone, and nothing else', async () => {
    const bench = new Bench()
    bench.streams = [stream(3)]
    bench.listed = {
      0: [
        ['s3/0', '3 0'],
        ['old/0', '2 0'],
      ],
      1: [['old/1', '2 1']],
    }
    await bench.keeper.sweep()
    assert.deepEqual(bench.calls, [
      'STREAM.PARTITIONS on 0',
      'STREAM.DROP old/0 2 0 !',
      'STREAM.PARTITIONS on 1',
      'STREAM.DROP old/1 2 1 !',
    ])
  })

  it('leaves alone a stream that this node has not heard of yet', async () => {
    const bench = new Bench()
    bench.nextStream = 5
    bench.listed = { 0: [['new/0', '5 0']] }
    await bench.keeper.sweep()
    assert.deepEqual(bench.calls, ['STREAM.PARTITIONS on 0', 'STREAM.PARTITIONS on 1'])
  })
})
