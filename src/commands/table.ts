import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import { type Bytes, quote } from '../lib/bytes.ts'
import { slotOf } from '../lib/slot.ts'
import { append } from './append.ts'
import { atomic } from './atomic.ts'
import type { Command } from './command.ts'
import { copy } from './copy.ts'
import { dbsize } from './dbsize.ts'
import { decr } from './decr.ts'
import { decrby } from './decrby.ts'
import { del } from './del.ts'
import { echo } from './echo.ts'
import type { Operation } from './envelope.ts'
import { exists } from './exists.ts'
import { expire } from './expire.ts'
import { expireat } from './expireat.ts'
import { get } from './get.ts'
import { getdel } from './getdel.ts'
import { groupCommit } from './group-commit.ts'
import { groupDelete } from './group-delete.ts'
import { groupDescribe } from './group-describe.ts'
import { groupHeartbeat } from './group-heartbeat.ts'
import { groupJoin } from './group-join.ts'
import { groupLeave } from './group-leave.ts'
import { groupList } from './group-list.ts'
import { groupOffsets } from './group-offsets.ts'
import { groupReset } from './group-reset.ts'
import { hdel } from './hdel.ts'
import { hexists } from './hexists.ts'
import { hget } from './hget.ts'
import { hgetall } from './hgetall.ts'
import { hincrby } from './hincrby.ts'
import { hkeys } from './hkeys.ts'
import { hlen } from './hlen.ts'
import { hmget } from './hmget.ts'
import { hscan } from './hscan.ts'
import { hset } from './hset.ts'
import { hsetnx } from './hsetnx.ts'
import { hvals } from './hvals.ts'
import { incr } from './incr.ts'
import { incrby } from './incrby.ts'
import { lindex } from './lindex.ts'
import { llen } from './llen.ts'
import { lpop } from './lpop.ts'
import { lpush } from './lpush.ts'
import { lrange } from './lrange.ts'
import { lrem } from './lrem.ts'
import { lset } from './lset.ts'
import { ltrim } from './ltrim.ts'
import type { CommandTable } from './machine.ts'
import { mget } from './mget.ts'
import { mset } from './mset.ts'
import { persist } from './persist.ts'
import { pexpire } from './pexpire.ts'
import { pexpireat } from './pexpireat.ts'
import { ping } from './ping.ts'
import { pttl } from './pttl.ts'
import { randomkey } from './randomkey.ts'
import { rename } from './rename.ts'
import { rpop } from './rpop.ts'
import { rpush } from './rpush.ts'
import { sadd } from './sadd.ts'
import { scan } from './scan.ts'
import { scard } from './scard.ts'
import { keysOf } from './scatter.ts'
import { set } from './set.ts'
import { sismember } from './sismember.ts'
import { smembers } from './smembers.ts'
import { srem } from './srem.ts'
import { sscan } from './sscan.ts'
import { streamAppend } from './stream-append.ts'
import { streamBatch } from './stream-batch.ts'
import { streamCopy } from './stream-copy.ts'
import { streamDrop } from './stream-drop.ts'
import { streamGone } from './stream-gone.ts'
import { streamInfo } from './stream-info.ts'
import { streamRead } from './stream-read.ts'
import { streamRetain } from './stream-retain.ts'
import { streamSeek } from './stream-seek.ts'
import { streamTrim } from './stream-trim.ts'
import { strlen } from './strlen.ts'
import { ttl } from './ttl.ts'
import { type } from './type.ts'
import { zadd } from './zadd.ts'
import { zcard } from './zcard.ts'
import { zincrby } from './zincrby.ts'
import { zrange } from './zrange.ts'
import { zrank } from './zrank.ts'
import { zrem } from './zrem.ts'
import { zscan } from './zscan.ts'
import { zscore } from './zscore.ts'

/** What clients may call, by name. A new command is one new file and its line here. */
export const commands: CommandTable = new Map(
  [
    ...[ping, echo, dbsize, scan, randomkey, atomic],
    ...[del, exists, type, expire, pexpire, expireat, pexpireat, ttl, pttl, persist, rename, copy],
    ...[set, get, getdel, mset, mget, append, strlen, incr, incrby, decr, decrby],
    ...[hset, hsetnx, hget, hmget, hdel, hgetall, hkeys, hvals, hlen, hexists, hincrby, hscan],
    ...[lpush, rpush, lpop, rpop, llen, lrange, lindex, lset, ltrim, lrem],
    ...[sadd, srem, smembers, sismember, scard, sscan],
    ...[streamAppend, streamBatch, streamCopy, streamRead, streamSeek, streamInfo],
    ...[streamTrim, streamDrop, streamRetain, streamGone],
    ...[zadd, zrem, zscore, zrange, zcard, zincrby, zrank, zscan],
    ...[groupJoin, groupHeartbeat, groupLeave, groupCommit, groupOffsets],
    ...[groupDescribe, groupReset, groupDelete, groupList],
  ].map(command => [command.name, command]),
)

export interface ParsedCall {
  readonly command: Command
  readonly args: readonly Bytes[]
}

/**
 * The one door for calls, whatever wire they came by: finds the command and checks all that can be seen without state.
 * Throws UNKNOWN_COMMAND, WRONG_ARITY, EMPTY_KEY, TOO_LARGE, INVALID_ARGUMENT, and what the command's `check` throws, which
 * arguments that this node has made itself (`isChecked`) need not pass.
 */
export function parseCall(
  name: string,
  args: readonly Bytes[],
  table: CommandTable = commands,
  isChecked = false,
): ParsedCall {
  const command = table.get(name) ?? table.get(name.toUpperCase())
  if (command === undefined || command.isInternal === true)
    throw new RoundhouseError('UNKNOWN_COMMAND', { command: name.slice(0, 64), known: knownIn(table) })
  const { arity, keys, usage } = command
  if (args.length < arity.min || args.length > arity.max || (keys === 'alternate' && args.length % 2 !== 0))
    throw new RoundhouseError('WRONG_ARITY', {
      command: command.name,
      usage: `${command.name} ${usage}`.trim(),
    })
  if (args.length > limits.argumentsMax)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `number of arguments ${args.length}`,
      accepted: `at most ${limits.argumentsMax}`,
    })
  for (const key of keysOf(command, args)) {
    if (key.byteLength === 0) throw new RoundhouseError('EMPTY_KEY', { command: command.name })
    checkSize('key', key.byteLength, limits.keyBytesMax)
  }
  let bytes = 0
  for (const { byteLength } of args) {
    if (command.isPacked !== true) checkSize('value', byteLength, limits.valueBytesMax)
    bytes += byteLength
  }
  checkSize('command', bytes, limits.callBytesMax)
  if (!isChecked) command.check?.(args)
  if (command.operations !== undefined) checkOperations(args[0]!, command.operations(args), table)
  return { command, args }
}

/** Each is a call of its own, on keys of the one slot. Throws CROSS_SHARD and what `parseCall` throws. */
function checkOperations(key: Bytes, operations: readonly Operation[], table: CommandTable): void {
  if (operations.length > limits.operationsMax)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `${operations.length} commands`,
      accepted: `at most ${limits.operationsMax}`,
    })
  const slot = slotOf(key)
  for (const { command: name, args } of operations) {
    const { command } = parseCall(name, args, table)
    const keys = keysOf(command, args)
    if (keys.length === 0 || command.operations !== undefined || command.mayBeAtomic === false)
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `${name} in an atomic entry`,
        accepted: 'commands on keys of one hash tag; of a stream, STREAM.APPEND and STREAM.TRIM',
      })
    for (const other of keys)
      if (slotOf(other) !== slot)
        throw new RoundhouseError('CROSS_SHARD', {
          ...{ first: quote(key), firstSlot: slot },
          ...{ other: quote(other), otherSlot: slotOf(other) },
        })
  }
}

function checkSize(what: string, bytes: number, max: number): void {
  if (bytes > max) throw new RoundhouseError('TOO_LARGE', { what, bytes, max })
}

/** Those with a dot are what nodes make of calls to other services. */
function knownIn(table: CommandTable): string {
  return [...table.values()]
    .filter(({ name, isInternal }) => isInternal !== true && !name.includes('.'))
    .map(command => command.name)
    .sort()
    .join(' ')
}
