import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { argsOfPart, keysOf } from '../../src/commands/scatter.ts'
import { commands, parseCall } from '../../src/commands/table.ts'
import { limits } from '../../src/keyspace/limits.ts'
import { toUtf8 } from '../../src/lib/bytes.ts'
import { plain, refusal, Shard, toBytes } from './shard.ts'

const parse = (name: string, ...args: (string | Uint8Array)[]) => parseCall(name, args.map(toBytes))

describe('the table of commands', () => {
  it('names each by its own name, in capitals, with words for help', () => {
    for (const [name, command] of commands) {
      assert.equal(command.name, name)
      assert.equal(name, name.toUpperCase())
      assert.ok(command.summary.length > 0 && !command.summary.endsWith('.'))
    }
  })

  it('says how to gather each that can be scattered', () => {
    for (const { name, keys, gather } of commands.values())
      assert.equal(gather !== undefined, ['all', 'alternate', 'every-shard'].includes(keys), name)
  })
})

describe('the door for calls', () => {
  it('takes names in any case', () => assert.equal(parse('gEt', 'k').command.name, 'GET'))

  it('refuses an unknown command and names those it knows, internal ones not', () => {
    assert.throws(
      () => parse('NOPE', 'k'),
      /ERR unknown command 'NOPE': known are APPEND ATOMIC COPY DBSIZE .* ZSCORE/,
    )
    assert.throws(() => parse('SWEEP', '1'), refusal('UNKNOWN_COMMAND'))
    assert.throws(() => parse('constructor'), refusal('UNKNOWN_COMMAND'))
  })

  it('refuses too few and too many arguments with the usage', () => {
    assert.throws(() => parse('GET'), /ERR wrong number of arguments for 'get' command: usage GET key/)
    assert.throws(() => parse('GET', 'a', 'b'), refusal('WRONG_ARITY'))
    assert.throws(() => parse('MSET', 'a', 'b', 'c'), refusal('WRONG_ARITY'))
    const many = new Array<string>(limits.argumentsMax + 1).fill('k')
    assert.throws(() => parse('DEL', ...many), refusal('INVALID_ARGUMENT'))
  })

  it('refuses an empty key, wherever a key stands, and no other empty argument', () => {
    assert.throws(() => parse('GET', ''), refusal('EMPTY_KEY'))
    assert.throws(() => parse('DEL', 'a', ''), refusal('EMPTY_KEY'))
    assert.throws(() => parse('MSET', 'a', '1', '', '2'), refusal('EMPTY_KEY'))
    assert.equal(parse('MSET', 'a', '').command.name, 'MSET')
    assert.equal(parse('ECHO', '').command.name, 'ECHO')
    assert.equal(parse('HSET', 'h', '', '').command.name, 'HSET')
  })

  it('refuses keys over 1,024 bytes, fields over 512, values over 1 MiB and calls over 8 MiB', () => {
    const sized = (bytes: number) => new Uint8Array(bytes)
    const tooLarge = refusal('TOO_LARGE')
    assert.equal(parse('SET', sized(1024), sized(1024 * 1024)).args.length, 2)
    assert.throws(() => parse('SET', sized(1025), 'v'), tooLarge)
    assert.throws(() => parse('MSET', 'a', 'v', sized(1025), 'v'), tooLarge)
    assert.throws(() => parse('SET', 'k', sized(1024 * 1024 + 1)), tooLarge)
    assert.equal(parse('HSET', 'h', sized(512), sized(600)).args.length, 3)
    assert.throws(() => parse('HSET', 'h', sized(513), 'v'), tooLarge)
    assert.throws(() => parse('HSET', 'h', 'f', 'v', sized(513), 'v'), tooLarge)
    assert.throws(() => parse('HGET', 'h', 'f', sized(513)), tooLarge)
    assert.throws(() => parse('HDEL', 'h', sized(513)), tooLarge)
    const mebibytes = Array.from({ length: 9 }, (_, i) => [`k${i}`, sized(1024 * 1024)]).flat()
    assert.throws(() => parse('MSET', ...mebibytes), tooLarge)
  })
})

describe('a scattered call', () => {
  /** Runs the parts on shards of their own, keys dealt out by turns, and gathers. */
  function scattered(shards: readonly Shard[], name: string, ...args: string[]) {
    const { command, args: parsed } = parse(name, ...args)
    const keys = keysOf(command, parsed)
    const parts = shards.map((shard, turn) => {
      const positions = keys.map((_, i) => i).filter(i => i % shards.length === turn)
      const partArgs = command.keys === 'every-shard' ? parsed : argsOfPart(command, parsed, positions)
      if (command.access === 'read') {
        const result = shard.machine.read(command, partArgs, { wallNowMs: null })
        assert.ok(result.kind === 'reply')
        return { positions, reply: result.reply }
      }
      const applied = shard.applyOperations([shard.operation(name, ...partArgs)])
      assert.ok(applied.kind === 'replies')
      return { positions, reply: applied.replies[0]! }
    })
    return plain(command.gather!(parts, parsed))
  }

  it('answers as one shard would', () => {
    const shards = [new Shard(), new Shard()]
    assert.equal(scattered(shards, 'MSET', 'a', '1', 'b', '2', 'c', '3'), true)
    assert.deepEqual(scattered(shards, 'MGET', 'a', 'b', 'c', 'd'), ['1', '2', '3', null])
    assert.equal(scattered(shards, 'DBSIZE'), 3)
    assert.equal(scattered(shards, 'EXISTS', 'a', 'b', 'x', 'y'), 2)
    assert.equal(scattered(shards, 'DEL', 'a', 'x', 'c', 'y'), 2)
    assert.deepEqual(scattered(shards, 'MGET', 'a', 'b', 'c', 'b'), [null, '2', null, '2'])
  })

  it('knows its keys by where they stand', () => {
    const keys = (name: string, ...args: string[]) => {
      const { command, args: parsed } = parse(name, ...args)
      return keysOf(command, parsed).map(toUtf8)
    }
    assert.deepEqual(keys('HSET', 'h', 'f', 'v'), ['h'])
    assert.deepEqual(keys('DEL', 'a', 'b'), ['a', 'b'])
    assert.deepEqual(keys('MSET', 'a', '1', 'b', '2'), ['a', 'b'])
    assert.deepEqual([keys('PING', 'x'), keys('DBSIZE')], [[], []])
  })
})
