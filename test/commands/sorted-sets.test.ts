import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseScore, scoreBytes } from '../../src/commands/score.ts'
import { fromLatin1, toLatin1 } from '../../src/lib/bytes.ts'
import { refusal, Shard } from './shard.ts'

const names = (reply: unknown) => (reply as [string, unknown][]).map(([name]) => name).join(' ')

function abcde(): Shard {
  const shard = new Shard()
  shard.call('ZADD', 'z', '1', 'a', '2', 'b', '3', 'c', '4', 'd', '5', 'e')
  return shard
}

describe('ZADD', () => {
  it('adds members and sets scores, and counts the new ones, with CH the changed ones too', () => {
    const shard = new Shard()
    assert.equal(shard.call('ZADD', 'z', '1', 'a', '2', 'b'), 2)
    assert.equal(shard.call('ZADD', 'z', '3', 'a', '2', 'b', '0', 'c'), 1)
    assert.equal(shard.call('ZADD', 'z', 'CH', '3', 'a', '5', 'b', '9', 'd'), 2)
    assert.deepEqual(shard.call('ZRANGE', 'z', '0', '-1', 'WITHSCORES'), [
      ['c', '0'],
      ['a', '3'],
      ['b', '5'],
      ['d', '9'],
    ])
  })

  it('the last score of a member named twice counts', () => {
    const shard = new Shard()
    assert.equal(shard.call('ZADD', 'z', '1', 'a', '2', 'a'), 1)
    assert.deepEqual([shard.call('ZSCORE', 'z', 'a'), shard.call('ZCARD', 'z')], ['2', 1])
  })

  it('NX adds only, XX updates only, GT and LT move a score one way and add all the same', () => {
    const shard = new Shard()
    shard.call('ZADD', 'z', '5', 'a')
    assert.equal(shard.call('ZADD', 'z', 'NX', 'CH', '9', 'a', '1', 'b'), 1)
    assert.equal(shard.call('ZADD', 'z', 'xx', 'ch', '6', 'a', '1', 'c'), 1)
    assert.equal(shard.call('ZADD', 'z', 'GT', 'CH', '5', 'a', '2', 'b', '1', 'd'), 2)
    assert.equal(shard.call('ZADD', 'z', 'LT', 'CH', '5', 'a', '3', 'b', '1', 'e'), 2)
    assert.equal(shard.call('ZADD', 'z', 'XX', 'GT', 'CH', '7', 'a', '1', 'f'), 1)
    assert.deepEqual(shard.call('ZRANGE', 'z', '0', '-1', 'WITHSCORES'), [
      ['d', '1'],
      ['e', '1'],
      ['b', '2'],
      ['a', '7'],
    ])
    assert.equal(shard.call('ZADD', 'none', 'XX', '1', 'a'), 0)
    assert.equal(shard.call('EXISTS', 'none'), 0)
  })

  it('INCR adds to one score and answers it, or nothing where the rule forbids', () => {
    const shard = new Shard()
    assert.equal(shard.call('ZADD', 'z', 'INCR', '1.5', 'a'), '1.5')
    assert.equal(shard.call('ZADD', 'z', 'INCR', '2', 'a'), '3.5')
    assert.equal(shard.call('ZADD', 'z', 'NX', 'INCR', '2', 'a'), null)
    assert.equal(shard.call('ZADD', 'z', 'XX', 'INCR', '2', 'b'), null)
    assert.equal(shard.call('ZADD', 'z', 'GT', 'INCR', '-2', 'a'), null)
    assert.equal(shard.call('ZADD', 'z', 'LT', 'INCR', '-2', 'a'), '1.5')
  })

  it('refuses what Redis refuses, before it is an entry', () => {
    const shard = new Shard()
    const add = (...args: string[]) => shard.call('ZADD', 'z', ...args)
    assert.throws(() => add('NX', 'XX', '1', 'a'), {
      message: 'ERR XX and NX options at the same time are not compatible',
    })
    for (const pair of ['GT LT', 'NX GT', 'NX LT'])
      assert.throws(() => add(...pair.split(' '), '1', 'a'), {
        message: 'ERR GT, LT, and/or NX options at the same time are not compatible',
      })
    assert.throws(() => add('INCR', '1', 'a', '2', 'b'), {
      message: 'ERR INCR option supports a single increment-element pair',
    })
    assert.throws(() => add('1', 'a', '2'), refusal('SYNTAX'))
    assert.throws(() => add('NX', 'CH'), refusal('SYNTAX'))
    for (const score of ['', 'x', 'nan', '1 ', ' 1', '1e999', '0x10', '1e-999', '--1', '1e'])
      assert.throws(() => add(score, 'a'), /^RoundhouseError: ERR value is not a valid float/, score)
    assert.throws(() => add('1', 'm'.repeat(513)), refusal('TOO_LARGE'))
    assert.throws(() => add('1'), refusal('WRONG_ARITY'))
    assert.equal(shard.entries.length, 0)
  })
})

describe('ZSCORE, ZINCRBY, ZCARD, ZREM and ZRANK', () => {
  it('ZSCORE and ZRANK answer nothing for what is not there', () => {
    const shard = abcde()
    assert.deepEqual([shard.call('ZSCORE', 'z', 'c'), shard.call('ZRANK', 'z', 'c')], ['3', 2])
    assert.deepEqual([shard.call('ZSCORE', 'z', 'x'), shard.call('ZRANK', 'z', 'x')], [null, null])
    assert.deepEqual([shard.call('ZSCORE', 'x', 'c'), shard.call('ZRANK', 'x', 'c')], [null, null])
  })

  it('equal scores stand in the order of the members’ bytes', () => {
    const shard = new Shard()
    shard.call('ZADD', 'z', '0', 'b', '-0', 'a', '0', 'B', '0', '')
    assert.equal(names(shard.call('ZRANGE', 'z', '0', '-1')), ' B a b')
    assert.equal(shard.call('ZRANK', 'z', 'a'), 2)
    assert.equal(shard.call('ZSCORE', 'z', 'a'), '0')
  })

  it('ZINCRBY adds, from 0 for what is missing, infinities too, and refuses what is no number', () => {
    const shard = new Shard()
    assert.equal(shard.call('ZINCRBY', 'z', '2.5', 'a'), '2.5')
    assert.equal(shard.call('ZINCRBY', 'z', '-4', 'a'), '-1.5')
    assert.equal(shard.call('ZINCRBY', 'z', 'inf', 'a'), 'inf')
    assert.throws(
      () => shard.call('ZINCRBY', 'z', '-inf', 'a'),
      /^RoundhouseError: ERR resulting score is not a number \(NaN\)/,
    )
    assert.equal(shard.call('ZSCORE', 'z', 'a'), 'inf')
    assert.throws(
      () => shard.call('ZINCRBY', 'z', 'one', 'a'),
      /^RoundhouseError: ERR value is not a valid float/,
    )
  })

  it('ZREM counts those that were there; the last one takes the key and all rows with it', () => {
    const shard = abcde()
    assert.equal(shard.call('ZREM', 'z', 'b', 'x', 'b'), 1)
    assert.equal(shard.call('ZCARD', 'z'), 4)
    assert.equal(shard.call('ZREM', 'z', 'a', 'c', 'd', 'e'), 4)
    assert.deepEqual(
      [shard.call('EXISTS', 'z'), shard.call('ZREM', 'z', 'a'), shard.call('ZCARD', 'z')],
      [0, 0, 0],
    )
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })

  it('keep the expiry, and an expired sorted set is as good as none', () => {
    const shard = abcde()
    shard.call('PEXPIRE', 'z', '100')
    shard.call('ZADD', 'z', '9', 'a')
    assert.equal(shard.call('PTTL', 'z'), 100)
    shard.nowMs += 100
    assert.equal(shard.call('ZCARD', 'z'), 0)
    assert.equal(shard.call('ZINCRBY', 'z', '1', 'a'), '1')
    while (shard.machine.nextExpiry() !== null) shard.sweep()
    assert.equal(names(shard.call('ZRANGE', 'z', '0', '-1')), 'a')
  })

  it('a large one is deleted by few rows, its rows by the sweep', () => {
    const shard = new Shard()
    shard.call('ZADD', 'z', ...Array.from({ length: 5_000 }, (_, i) => [`${i % 7}`, `m${i}`]).flat())
    shard.call('DEL', 'z')
    assert.ok(Object.keys(shard.dump()).length > 5_000)
    while (shard.machine.nextExpiry() !== null) assert.ok(shard.sweep() <= 1_000)
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })
})

describe('ZRANGE', () => {
  const range = (shard: Shard, ...args: string[]) => names(shard.call('ZRANGE', 'z', ...args))

  it('by rank, from the lowest or, with REV, from the highest', () => {
    const shard = abcde()
    assert.equal(range(shard, '0', '-1'), 'a b c d e')
    assert.equal(range(shard, '1', '2'), 'b c')
    assert.equal(range(shard, '-2', '-1'), 'd e')
    assert.equal(range(shard, '0', '1', 'REV'), 'e d')
    assert.equal(range(shard, '-2', '-1', 'rev'), 'b a')
    assert.equal(range(shard, '3', '99', 'REV'), 'b a')
    assert.equal(range(shard, '3', '1'), '')
    assert.equal(range(shard, '9', '10', 'REV'), '')
    assert.equal(names(shard.call('ZRANGE', 'none', '0', '-1')), '')
  })

  it('by score: bounds with ( exclude, inf is the end, REV begins with the higher bound', () => {
    const shard = abcde()
    assert.equal(range(shard, '2', '4', 'BYSCORE'), 'b c d')
    assert.equal(range(shard, '(2', '(4', 'BYSCORE'), 'c')
    assert.equal(range(shard, '-inf', '(3', 'BYSCORE'), 'a b')
    assert.equal(range(shard, '+inf', '(3', 'BYSCORE', 'REV'), 'e d')
    assert.equal(range(shard, '4', '2', 'BYSCORE'), '')
    assert.equal(range(shard, '(2', '(2', 'BYSCORE'), '')
    assert.deepEqual(shard.call('ZRANGE', 'z', '2.5', '3.5', 'BYSCORE', 'WITHSCORES'), [['c', '3']])
  })

  it('by member, where all scores are one', () => {
    const shard = new Shard()
    shard.call('ZADD', 'z', '0', 'a', '0', 'b', '0', 'ba', '0', 'c')
    assert.equal(range(shard, '-', '+', 'BYLEX'), 'a b ba c')
    assert.equal(range(shard, '[b', '[c', 'BYLEX'), 'b ba c')
    assert.equal(range(shard, '(b', '(c', 'BYLEX'), 'ba')
    assert.equal(range(shard, '(c', '[b', 'BYLEX', 'REV'), 'ba b')
    assert.equal(range(shard, '+', '-', 'BYLEX'), '')
    assert.equal(names(shard.call('ZRANGE', 'none', '-', '+', 'BYLEX')), '')
  })

  it('LIMIT skips and takes within the range, a negative count takes all', () => {
    const shard = abcde()
    assert.equal(range(shard, '2', '5', 'BYSCORE', 'LIMIT', '1', '2'), 'c d')
    assert.equal(range(shard, '5', '2', 'BYSCORE', 'REV', 'LIMIT', '1', '2'), 'd c')
    assert.equal(range(shard, '2', '5', 'BYSCORE', 'LIMIT', '1', '-1'), 'c d e')
    assert.equal(range(shard, '5', '2', 'BYSCORE', 'LIMIT', '3', '-1', 'REV'), 'b')
    assert.equal(range(shard, '2', '5', 'BYSCORE', 'LIMIT', '9', '1'), '')
    assert.equal(range(shard, '2', '5', 'BYSCORE', 'LIMIT', '-1', '1'), '')
    assert.equal(range(shard, '5', '2', 'BYSCORE', 'REV', 'LIMIT', '-1', '1'), '')
    assert.equal(range(shard, '2', '5', 'BYSCORE', 'LIMIT', '0', '0'), '')
  })

  it('refuses what Redis refuses', () => {
    const shard = abcde()
    const refused = (text: RegExp | { message: string }, ...args: string[]) =>
      assert.throws(() => shard.call('ZRANGE', 'z', ...args), text, args.join(' '))
    refused(/value is not an integer/, 'a', '1')
    refused(/^RoundhouseError: ERR min or max is not a float/, 'a', '1', 'BYSCORE')
    refused(/^RoundhouseError: ERR min or max is not a float/, '(', '1', 'BYSCORE')
    refused(/^RoundhouseError: ERR min or max not valid string range item/, 'a', '[b', 'BYLEX')
    refused(
      { message: 'ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX' },
      '0',
      '1',
      'LIMIT',
      '0',
      '1',
    )
    refused(
      { message: 'ERR syntax error, WITHSCORES not supported in combination with BYLEX' },
      '-',
      '+',
      'BYLEX',
      'WITHSCORES',
    )
    refused(/syntax error/, '0', '1', 'BYSCORE', 'BYLEX')
    refused(/syntax error/, '0', '1', 'BYSCORE', 'LIMIT', '1')
    refused(/value is not an integer/, '0', '1', 'BYSCORE', 'LIMIT', 'a', '1')
  })

  it('answers 10,000 members and refuses more, wherever they stand in a large one', () => {
    const shard = new Shard()
    const pairs = (from: number) =>
      Array.from({ length: 10_000 }, (_, i) => [`${from + i}`, `m${from + i}`]).flat()
    for (const from of [0, 10_000]) shard.call('ZADD', 'z', ...pairs(from))
    assert.equal(range(shard, '15000', '15001'), 'm15000 m15001')
    assert.equal(range(shard, '15000', '15001', 'REV'), 'm4999 m4998')
    assert.equal(range(shard, '0', '9999').split(' ').length, 10_000)
    assert.throws(() => range(shard, '0', '10000'), refusal('REPLY_TOO_LARGE'))
    assert.equal(range(shard, '-inf', 'inf', 'BYSCORE', 'LIMIT', '12345', '1'), 'm12345')
  })
})

describe('commands of sorted sets', () => {
  it('refuse keys of other types', () => {
    const shard = new Shard()
    shard.call('SADD', 's', 'a')
    for (const call of [
      ['ZADD', 's', '1', 'a'],
      ['ZADD', 's', 'XX', '1', 'a'],
      ['ZREM', 's', 'a'],
      ['ZSCORE', 's', 'a'],
      ['ZRANGE', 's', '0', '1'],
      ['ZRANGE', 's', '0', '1', 'BYSCORE'],
      ['ZRANGE', 's', '-', '+', 'BYLEX'],
      ['ZCARD', 's'],
      ['ZINCRBY', 's', '1', 'a'],
      ['ZRANK', 's', 'a'],
    ] as [string, ...string[]][])
      assert.throws(() => shard.call(...call), refusal('WRONG_TYPE'), call.join(' '))
    shard.call('ZADD', 'z', '1', 'a')
    assert.throws(() => shard.call('SADD', 'z', 'a'), refusal('WRONG_TYPE'))
    assert.equal(shard.call('TYPE', 'z'), 'zset')
  })
})

describe('a score as text', () => {
  it('comes back as the same double', () =>
    fc.assert(
      fc.property(fc.double({ noNaN: true }), score =>
        assert.equal(0 + parseScore(scoreBytes(0 + score))!, 0 + score),
      ),
      { numRuns: 1000 },
    ))

  it('is read as C reads decimals, and written in the fewest digits', () => {
    const read = (text: string) => parseScore(fromLatin1(text))
    assert.deepEqual(['+1', '.5', '5.', '1e3', '-1E-2', 'INF', '-Infinity', '+inf', '0e999'].map(read), [
      1,
      0.5,
      5,
      1000,
      -0.01,
      Infinity,
      -Infinity,
      Infinity,
      0,
    ])
    assert.deepEqual(
      [0.1, 1e21, -5, 1 / 3, Infinity, -Infinity].map(score => toLatin1(scoreBytes(score))),
      ['0.1', '1e+21', '-5', '0.3333333333333333', 'inf', '-inf'],
    )
  })
})
