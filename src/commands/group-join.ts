import { RoundhouseError } from '../errors.ts'
import { strategies } from '../keyspace/assignment.ts'
import type { Joining } from '../keyspace/groups.ts'
import { limits } from '../keyspace/limits.ts'
import { type Bytes, quote } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { checkGroup, checkMember, isWord, membershipReply, parseNumber, parseStream } from './groups.ts'

const usage = 'group member timeoutMs range|sticky stream partitions [stream partitions …]'

/** A member that joins again begins anew: whatever was sent under its name before is of an old generation. */
export const groupJoin: Command = {
  name: 'GROUP.JOIN',
  summary: 'Makes a member of a consumer group; answers its generation and its partitions',
  usage,
  arity: { min: 6, max: 4 + 2 * limits.groupStreamsMax },
  keys: 'first',
  access: 'write',
  check: args => void parse(args),
  run: (keyspace, args) => membershipReply(keyspace.groups.join(args[0]!, parse(args))),
}

/** Throws WRONG_ARITY, EMPTY_KEY, TOO_LARGE, INVALID_ARGUMENT. */
function parse(args: readonly Bytes[]): Joining {
  checkGroup(groupJoin, args[0]!)
  const [, member, timeout, strategyText] = args
  checkMember(groupJoin, member!)
  const timeoutMs = parseNumber('timeout in ms', timeout!, limits.groupTimeoutMsMin, limits.groupTimeoutMsMax)
  const strategy = strategies.find(name => isWord(strategyText, name.toUpperCase()))
  if (strategy === undefined)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `assignment ${quote(strategyText!)}`,
      accepted: strategies.join(', '),
    })
  if (args.length % 2 !== 0)
    throw new RoundhouseError('WRONG_ARITY', { command: 'GROUP.JOIN', usage: `GROUP.JOIN ${usage}` })
  const reads = new Map<number, number>()
  for (let i = 4; i < args.length; i += 2) {
    const stream = parseStream(args[i]!)
    if (reads.has(stream))
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `second number of partitions of stream ${stream}`,
        accepted: 'one a stream',
      })
    reads.set(stream, parseNumber('number of partitions', args[i + 1]!, 1, limits.groupPartitionsMax))
  }
  return {
    member: member!,
    timeoutMs,
    strategy,
    reads: [...reads].sort(([a], [b]) => a - b).map(([stream, partitions]) => ({ stream, partitions })),
  }
}
