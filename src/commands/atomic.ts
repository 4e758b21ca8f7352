import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import { ByteReader } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { type Bytes, fromLatin1, quote, toLatin1 } from '../lib/bytes.ts'
import type { Command, Reply } from './command.ts'
import type { Operation } from './envelope.ts'
import { integerBytes, parseSafeInteger } from './integer.ts'
import { readReply, writeReply } from './reply-codec.ts'

/**
 * Several commands on keys of one slot as one entry: all are applied or none. One that is refused, or whose condition is not
 * met (it would answer `success: false`: SET with NX, XX or IFEQ), keeps all others from being applied: that is the guard.
 *
 * It is a call and never an operation: the leader makes an entry of the commands in it (envelope.ts). Its arguments are the
 * key that finds the shard, then for each command its name, the number of its arguments, and these. The reply is a list,
 * each value a reply as bytes (reply-codec.ts); wires make their own of it.
 */
export const atomic: Command = {
  name: 'ATOMIC',
  summary: 'Runs commands on keys of one hash tag as one entry: all are applied, or none',
  usage: 'key command count [argument …] [command count [argument …] …]',
  arity: { min: 3, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check: args => void operationsOf(args),
  operations: operationsOf,
  run() {
    throw new RoundhouseError('UNSUPPORTED_ENTRY', { what: 'ATOMIC inside an entry' })
  },
}

/** Throws SYNTAX. */
export function operationsOf(args: readonly Bytes[]): Operation[] {
  const operations: Operation[] = []
  for (let at = 1; at < args.length; ) {
    const command = toLatin1(args[at]!).toUpperCase()
    const text = args[at + 1]
    const count = text === undefined ? undefined : parseSafeInteger(text)
    if (count === undefined || count < 0 || at + 2 + count > args.length)
      throw new RoundhouseError('SYNTAX', {
        detail: `after ${command} comes the number of its arguments, and so many; there is ${text === undefined ? 'nothing' : quote(text)}`,
      })
    operations.push({ command, args: args.slice(at + 2, at + 2 + count) })
    at += 2 + count
  }
  return operations
}

/** The arguments of the call. `key` is any key of the operations. */
export function atomicArgs(key: Bytes, operations: readonly Operation[]): Bytes[] {
  return [
    key,
    ...operations.flatMap(({ command, args }) => [fromLatin1(command), integerBytes(args.length), ...args]),
  ]
}

/** The reply of the call. */
export function atomicReply(replies: readonly Reply[]): Reply {
  const items = replies.map(reply => {
    const writer = new ByteWriter(32)
    writeReply(writer, reply)
    return { value: writer.finish() }
  })
  return { kind: 'list', items }
}

/** What each of the commands answered. */
export function repliesOf(reply: Reply): Reply[] {
  assert(reply.kind === 'list', `a ${reply.kind} for ATOMIC`)
  return reply.items.map(({ value }) => readReply(new ByteReader(value!)))
}
