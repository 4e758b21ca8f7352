import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { atomicArgs, atomicReply, operationsOf, repliesOf } from '../../src/commands/atomic.ts'
import type { Reply } from '../../src/commands/command.ts'
import { parseCall } from '../../src/commands/table.ts'
import { encodeRecord } from '../../src/keyspace/record.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Shard } from './shard.ts'

const record = (value: string) => encodeRecord({ value: fromUtf8(value), key: null, headers: [], type: 0 })

/** Runs the operations of an ATOMIC call as one entry. */
function run(shard: Shard, ...args: string[]) {
  const call = parseCall('ATOMIC', args.map(fromUtf8))
  return shard.applyOperations([...call.command.operations!(call.args)])
}

describe('an atomic entry', () => {
  it('applies all of its commands, each with its reply', () => {
    const shard = new Shard()
    const applied = run(shard, '{u}', 'set', '2', '{u}a', '1', 'INCR', '1', '{u}n', 'GET', '1', '{u}a')
    assert.ok(applied.kind === 'replies')
    const kinds = applied.replies.map(reply => (reply.kind === 'value' ? toUtf8(reply.value) : reply.kind))
    assert.deepEqual(kinds, ['success', 'count', '1'])
  })

  it('applies none when one is refused, or when a condition is not met', () => {
    const shard = new Shard()
    shard.call('SET', '{u}a', 'text')
    for (const guard of [
      ['INCR', '1', '{u}a'],
      ['SET', '4', '{u}a', 'x', 'IFEQ', 'other'],
      ['SET', '3', '{u}a', 'x', 'NX'],
    ]) {
      const refused = run(shard, '{u}', 'SET', '2', '{u}b', '1', ...guard)
      assert.equal(refused.kind, 'refused')
      assert.equal(shard.call('GET', '{u}b'), null)
    }
    const met = run(shard, '{u}', 'SET', '4', '{u}a', 'x', 'IFEQ', 'text', 'SET', '2', '{u}b', '1')
    assert.equal(met.kind, 'replies')
    assert.equal(shard.call('GET', '{u}b'), '1')
  })

  it('keeps state and streams together: an append is there with the write beside it, or not at all', () => {
    const shard = new Shard()
    const key = 'orders{u}/0'
    const append = (value: string) => ({
      command: 'STREAM.APPEND',
      args: [fromUtf8(key), fromUtf8('7'), fromUtf8('0'), record(value)],
    })
    const set = (...more: string[]) => ({ command: 'SET', args: ['{u}a', 'new', ...more].map(fromUtf8) })
    const end = () => shard.call('STREAM.INFO', key, '7', '0')
    assert.equal(shard.applyOperations([append('one'), set('NX')]).kind, 'replies')
    assert.equal(shard.applyOperations([append('two'), set('NX')]).kind, 'refused')
    assert.equal((end() as [string, string])[1], '1')
    assert.equal(shard.applyOperations([append('three'), append('four'), set()]).kind, 'replies')
    assert.equal((end() as [string, string])[1], '3')
  })

  it('is refused at the door when its keys are not of one slot, and names both', () => {
    assert.throws(() => parseCall('ATOMIC', ['a', 'SET', '2', 'b', '1'].map(fromUtf8)), {
      code: 'CROSS_SHARD',
      message: /"a" is in 15495, "b" in 3300/,
    })
  })

  it('takes commands on keys that are whole, and nothing else', () => {
    for (const args of [
      ['k', 'SET', '3', 'k', 'v'],
      ['k', 'SET', 'x', 'k', 'v'],
      ['k', 'SET'],
      ['k', 'SET', '1', 'k'],
      ['k', 'PING', '0'],
      ['k', 'DBSIZE', '0'],
      ['k', 'NONSENSE', '1', 'k'],
      ['k', 'ATOMIC', '4', 'k', 'SET', '2', 'k'],
      ['k', 'STREAM.READ', '5', 'k', '1', '0', '0', '1'],
      ['k', 'STREAM.INFO', '3', 'k', '1', '0'],
      ['k', 'STREAM.DROP', '1', '2'],
    ])
      assert.throws(
        () => parseCall('ATOMIC', args.map(fromUtf8)),
        (error: Error) => 'code' in error,
        args.join(' '),
      )
  })

  it('refuses what came by another way: reads of records, which see files and not entries', () => {
    const shard = new Shard()
    const key = 'k'
    const place = [key, '7', '0'].map(fromUtf8)
    const append = { command: 'STREAM.APPEND', args: [...place, record('one')] }
    for (const command of ['STREAM.READ', 'STREAM.SEEK', 'STREAM.INFO']) {
      const more = command === 'STREAM.READ' ? ['0', '10'] : command === 'STREAM.SEEK' ? ['0'] : []
      const refused = shard.applyOperations([append, { command, args: [...place, ...more.map(fromUtf8)] }])
      assert.equal(refused.kind, 'refused', command)
    }
    assert.equal((shard.call('STREAM.INFO', key, '7', '0') as [string, string])[1], '0')
  })

  it('answers no more than one reply may hold', () => {
    const shard = new Shard()
    shard.call('SET', 'k', 'x'.repeat(1024 * 1024))
    const get = { command: 'GET', args: [fromUtf8('k')] }
    assert.equal(shard.applyOperations(Array.from({ length: 8 }, () => get)).kind, 'replies')
    const refused = shard.applyOperations(Array.from({ length: 9 }, () => get))
    assert.ok(refused.kind === 'refused' && refused.error.code === 'REPLY_TOO_LARGE')
  })

  it('has arguments and a reply that come back as they were', () => {
    const operations = [
      { command: 'SET', args: ['k', 'v'].map(fromUtf8) },
      { command: 'GET', args: [fromUtf8('k')] },
    ]
    assert.deepEqual(operationsOf(atomicArgs(fromUtf8('k'), operations)), operations)
    const replies: Reply[] = [
      { kind: 'success', success: true },
      { kind: 'value', value: fromUtf8('v') },
    ]
    const plain = (all: readonly Reply[]) =>
      all.map(each => (each.kind === 'value' ? toUtf8(each.value) : each))
    assert.deepEqual(plain(repliesOf(atomicReply(replies))), plain(replies))
  })
})
