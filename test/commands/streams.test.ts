import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { StateMachine } from '../../src/commands/machine.ts'
import { commands } from '../../src/commands/table.ts'
import { Keyspace } from '../../src/keyspace/keyspace.ts'
import { limits } from '../../src/keyspace/limits.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { decodeKept, encodeRecord } from '../../src/keyspace/record.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { pack } from '../../src/lib/packed.ts'
import { Shard, sessionId } from './shard.ts'

const record = (text: string) => encodeRecord({ value: fromUtf8(text), key: null, headers: [], type: 0 })
const append = (shard: Shard, stream: number, text = 'one') =>
  shard.call('STREAM.APPEND', `s${stream}/0`, String(stream), '0', record(text))
const end = (shard: Shard, stream: number) =>
  Number((shard.call('STREAM.INFO', `s${stream}/0`, String(stream), '0') as string[])[1])

describe('a stream that is gone', () => {
  it('takes with it the records of its partitions, and leaves those of others', () => {
    const shard = new Shard()
    for (const stream of [1, 2, 3, 5]) append(shard, stream)
    assert.equal(shard.call('STREAM.DROP', '4', '2'), 2)
    assert.deepEqual(
      [1, 2, 3, 5].map(each => end(shard, each)),
      [0, 1, 0, 1],
    )
  })

  it('refuses what comes late, whether there ever was a record of it here or not', () => {
    const shard = new Shard()
    append(shard, 1)
    shard.call('STREAM.DROP', '4', '2')
    for (const stream of [1, 3])
      assert.throws(() => append(shard, stream, 'late'), {
        code: 'NO_SUCH_STREAM',
        message: `ERR no such stream: s${stream}`,
      })
    assert.deepEqual([append(shard, 2), append(shard, 4)], [0, 0], 'those that are not gone')
  })

  it('refuses an entry of several with what comes late in it: nothing of it is applied', () => {
    const shard = new Shard()
    shard.call('STREAM.DROP', '2')
    const operations = [
      shard.operation('SET', 'k', 'v'),
      shard.operation('STREAM.APPEND', 's1/0', '1', '0', record('late')),
    ]
    const applied = shard.applyOperations(operations)
    assert.ok(applied.kind === 'refused' && applied.error.code === 'NO_SUCH_STREAM')
    assert.equal(shard.call('EXISTS', 'k'), 0)
  })

  it('is never taken back by who knows less', () => {
    const shard = new Shard()
    shard.call('STREAM.DROP', '9', '4', '6')
    assert.equal(shard.call('STREAM.DROP', '6', '3', '4'), 0)
    assert.deepEqual(shard.call('STREAM.GONE'), ['9', '4', '6'])
    // Each of two knows of one that the other does not.
    shard.call('STREAM.DROP', '8', '6', '7')
    assert.deepEqual(shard.call('STREAM.GONE'), ['9', '6'])
    shard.call('STREAM.DROP', '12', '4', '6', '10')
    assert.deepEqual(shard.call('STREAM.GONE'), ['12', '6', '10'])
    for (const stream of [3, 4, 5, 7, 11]) assert.throws(() => append(shard, stream))
    for (const stream of [6, 10, 12]) assert.equal(append(shard, stream), 0)
  })

  it('still answers the repetition of an append that came in time', () => {
    const shard = new Shard()
    const session = { id: sessionId(shard.nowMs), sequence: 1, ackedBelow: 0 }
    const operation = shard.operation('STREAM.APPEND', 's1/0', '1', '0', record('one'))
    const first = shard.applyOperations([operation], session)
    shard.call('STREAM.DROP', '2')
    const again = shard.applyOperations([operation], session)
    assert.ok(first.kind === 'replies' && again.kind === 'replies' && again.isDuplicate)
    assert.deepEqual(again.replies, first.replies)
  })

  it('is known by whoever begins with the rows alone', () => {
    const shard = new Shard()
    append(shard, 2)
    shard.call('STREAM.DROP', '3')
    const rows = new MemoryRows()
    for (const [key, value] of shard.rows.range('', '\xff')) rows.put(key, value)
    const machine = new StateMachine(rows, commands)
    const applied = machine.apply(3, shard.entries[0]!)
    assert.ok(applied.kind === 'refused' && applied.error.code === 'NO_SUCH_STREAM')
  })

  it('costs a row that is as long as the list of streams that there are, however many went', () => {
    const shard = new Shard()
    for (let next = 2; next < 200; next++) shard.call('STREAM.DROP', String(next))
    assert.equal([...shard.rows.range('cstreams', 'cstreamt')][0]![1].byteLength, 8)
  })
})

describe('a copy of a partition', () => {
  const place = ['s1/0', '1', '0'] as const
  const copied = (
    shard: Shard,
    at: number,
    ...records: readonly (readonly [timeMs: number, text: string])[]
  ) =>
    shard.call(
      'STREAM.COPY',
      ...place,
      String(at),
      ...records.flatMap(([timeMs, text]) => [String(timeMs), record(text)]),
    )
  const kept = (shard: Shard, from: number) => {
    const { records } = new Keyspace(shard.rows).partitions.read(
      { stream: 1, partition: 0 },
      from,
      100,
      1 << 20,
    )
    return records.map(each => {
      const { timestampMs, value } = decodeKept(each)
      return [timestampMs, toUtf8(value)]
    })
  }
  const info = (shard: Shard) => (shard.call('STREAM.INFO', ...place) as string[]).slice(0, 2).map(Number)

  it('holds the same at the same offsets, with the same times', () => {
    const shard = new Shard()
    assert.equal(copied(shard, 0, [100, 'a'], [100, 'b'], [250, 'c']), 3)
    assert.equal(copied(shard, 3, [300, 'd']), 4)
    assert.deepEqual(kept(shard, 0), [
      [100, 'a'],
      [100, 'b'],
      [250, 'c'],
      [300, 'd'],
    ])
    assert.equal(shard.call('STREAM.SEEK', ...place, '101'), 2)
  })

  it('is made once, however often it is sent', () => {
    const shard = new Shard()
    copied(shard, 0, [100, 'a'], [200, 'b'])
    for (const at of [0, 1, 3])
      assert.throws(() => copied(shard, at, [100, 'again']), { code: 'OFFSET_OUT_OF_RANGE' })
    assert.deepEqual(info(shard), [0, 2])
  })

  it('begins where the source begins, in a partition that holds nothing (any more)', () => {
    const shard = new Shard()
    assert.equal(copied(shard, 70, [100, 'a'], [200, 'b']), 72)
    assert.deepEqual(
      [info(shard), kept(shard, 70)],
      [
        [70, 72],
        [
          [100, 'a'],
          [200, 'b'],
        ],
      ],
    )
    shard.call('STREAM.TRIM', ...place, '72')
    assert.equal(copied(shard, 900, [300, 'c']), 901)
    assert.deepEqual([info(shard), kept(shard, 900)], [[900, 901], [[300, 'c']]])
    assert.throws(() => copied(shard, 72, [300, 'late']), { code: 'OFFSET_OUT_OF_RANGE' })
    assert.equal(append(shard, 1, 'own'), 901)
  })

  it('keeps times rising, and none ahead of its own clock', () => {
    const shard = new Shard()
    copied(shard, 0, [500, 'a'], [400, 'b'], [shard.nowMs + 60_000, 'c'])
    append(shard, 1, 'own')
    assert.deepEqual(
      kept(shard, 0).map(([timeMs]) => timeMs),
      [500, 500, shard.nowMs, shard.nowMs],
    )
  })

  it('is refused where no end would be a safe integer, by the entry as well', () => {
    const shard = new Shard()
    for (const at of [2 ** 52 + 1, 2 ** 53 - 1])
      assert.throws(() => copied(shard, at, [100, 'a']), { code: 'INVALID_ARGUMENT' })
    assert.equal(copied(shard, 2 ** 52, [100, 'a']), 2 ** 52 + 1)
    assert.equal(append(shard, 1, 'own'), 2 ** 52 + 1)
  })

  it('is refused with a time that has no record', () => {
    const shard = new Shard()
    assert.throws(() => shard.call('STREAM.COPY', ...place, '0', '1', record('a'), '2'), {
      code: 'WRONG_ARITY',
    })
    assert.throws(() => shard.call('STREAM.COPY', ...place, '0', 'soon', record('a')), {
      code: 'INVALID_ARGUMENT',
    })
  })
})

describe('STREAM.BATCH', () => {
  const packed = (...texts: string[]) => pack(texts.map(record)).bytes
  const batch = (shard: Shard, ...records: Bytes[]) =>
    shard.call('STREAM.BATCH', 's1/0', '1', '0', ...records)
  const rows = (shard: Shard) => [...shard.rows.range('', '\uffff')].map(([key, value]) => [key, [...value]])

  it('leaves what STREAM.APPEND of the same records leaves', () => {
    const [one, other] = [new Shard(), new Shard()]
    assert.equal(batch(one, packed('a', 'b'), packed('c')), 0)
    assert.equal(batch(one, packed('d')), 3)
    other.call('STREAM.APPEND', 's1/0', '1', '0', ...['a', 'b', 'c'].map(record))
    other.call('STREAM.APPEND', 's1/0', '1', '0', record('d'))
    assert.deepEqual(rows(one), rows(other))
    const read = (shard: Shard) =>
      new Keyspace(shard.rows).partitions.read({ stream: 1, partition: 0 }, 0, 9, 9_999)
    assert.deepEqual(
      read(one).records.map(each => toUtf8(decodeKept(each).value)),
      ['a', 'b', 'c', 'd'],
    )
    assert.deepEqual(read(one), read(other))
  })

  it('refuses what is not packed, what is no record, and too much of it', () => {
    const shard = new Shard()
    const refused = (records: Bytes, message: RegExp, code = 'INVALID_ARGUMENT') =>
      assert.throws(() => batch(shard, records), { code, message })
    refused(Buffer.alloc(0), /records of 0 bytes: none/)
    refused(packed('a').subarray(1), /each behind its length/)
    refused(packed('a', 'b').subarray(0, -1), /records of \d+ bytes: needs/)
    refused(pack([fromUtf8('no record')]).bytes, /a record with its checksum/)
    refused(packed('x'.repeat(2 ** 20)), /record/, 'TOO_LARGE')
    refused(pack(Array(limits.argumentsMax + 1).fill(record(''))).bytes, /more than \d+ in a call/)
    refused(Buffer.alloc(8_000_000), /a record with its checksum/)
    assert.equal(end(shard, 1), 0)
  })

  it('goes alone', () => {
    const operation = { command: 'STREAM.BATCH', args: [...['s1/0', '1', '0'].map(fromUtf8), packed('a')] }
    const applied = new Shard().applyOperations([operation, operation])
    assert.ok(applied.kind === 'refused' && applied.error.code === 'INVALID_ARGUMENT')
  })
})
