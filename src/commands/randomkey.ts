import type { Command, Plan, Reply } from './command.ts'
import { integerBytes, parseSafeInteger } from './integer.ts'
import { refuseSyntax } from './refusals.ts'
import { nil, valueOrNil } from './replies.ts'

const seedMax = 2 ** 32

/**
 * Asks a shard by chance, and only where that has no key all others at once. Shards hold about as many keys each as hash
 * tags let them; how chance falls within one stands in keyspace/scan.ts. The argument is between nodes: what the shard is
 * to draw its key by.
 */
export const randomkey: Command = {
  name: 'RANDOMKEY',
  summary: 'A key by chance; nothing when there is none',
  usage: '',
  arity: { min: 0, max: 1 },
  keys: 'shard-by-shard',
  access: 'read',
  check: ([seed]) => void (seed === undefined || parseSeed(seed)),
  plan([given], shardCount, random) {
    const seed = given === undefined ? random.below(seedMax) : parseSeed(given)
    const args = [integerBytes(seed)]
    const first = seed % shardCount
    return {
      ask: [{ shard: first, args }],
      next([reply]): Plan | Reply {
        if (reply!.kind !== 'nil' || shardCount === 1) return reply!
        // Those behind it first: the seed chooses among the shards that have keys, too.
        const others = Array.from({ length: shardCount - 1 }, (_, i) => (first + 1 + i) % shardCount)
        return {
          ask: others.map(shard => ({ shard, args })),
          next: replies => replies.find(({ kind }) => kind !== 'nil') ?? nil,
        }
      },
    }
  },
  run: (keyspace, [seed]) => valueOrNil(keyspace.randomKey(seed === undefined ? 0 : parseSeed(seed))),
}

function parseSeed(text: Uint8Array): number {
  const seed = parseSafeInteger(text)
  if (seed === undefined || seed < 0 || seed >= seedMax) refuseSyntax('a seed is an integer of 32 bits')
  return seed
}
