import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Command, GatherPart, ListItem, Reply } from './command.ts'
import { count, ReplyBudget } from './replies.ts'

/**
 * A call whose keys live in several shards: taken apart by keys, run a part a shard, and its replies put together. Parts
 * run side by side and are not one transaction: a scattered MSET may be seen in part. Keys of one hash tag are one part.
 */

/** The call's keys in order; none where the command has none. */
export function keysOf(command: Command, args: readonly Bytes[]): readonly Bytes[] {
  switch (command.keys) {
    case 'first':
      return args.slice(0, 1)
    case 'pair':
      return args.slice(0, 2)
    case 'all':
      return args
    case 'alternate':
      return args.filter((_, i) => i % 2 === 0)
    case 'none':
    case 'every-shard':
    case 'shard-by-shard':
      return []
  }
}

/** The arguments of the part that has the keys at `positions` among the call's keys. */
export function argsOfPart(command: Command, args: readonly Bytes[], positions: readonly number[]): Bytes[] {
  if (command.keys === 'all') return positions.map(position => args[position]!)
  assert(command.keys === 'alternate', `${command.name} can't be taken apart`)
  return positions.flatMap(position => [args[2 * position]!, args[2 * position + 1]!])
}

export function sumCounts(parts: readonly GatherPart[]): Reply {
  let sum = 0
  for (const { reply } of parts) {
    assert(reply.kind === 'count', `a ${reply.kind} among counts`)
    sum += Number(reply.count)
  }
  return count(sum)
}

/** Puts each part's items at its keys' positions. Throws REPLY_TOO_LARGE. */
export function placeItems(parts: readonly GatherPart[]): Reply {
  const budget = new ReplyBudget('ask for fewer keys at once')
  const items: ListItem[] = new Array(parts.reduce((sum, part) => sum + part.positions.length, 0))
  for (const { positions, reply } of parts) {
    assert(reply.kind === 'list' && reply.items.length === positions.length, 'an item for each key')
    for (const [i, item] of reply.items.entries()) {
      budget.spend(item.value)
      items[positions[i]!] = item
    }
  }
  return { kind: 'list', items }
}
