import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { StateMachine } from '../../src/commands/machine.ts'
import { commands } from '../../src/commands/table.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { encodeRecord } from '../../src/keyspace/record.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
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
