import { limits } from '../keyspace/limits.ts'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Command, ListItem, Plan, Reply } from './command.ts'
import { readKeyCursor, scanEnd, writeKeyCursor } from './cursor.ts'
import { pageLimits, parseScanOptions } from './paging.ts'
import { refuseCursor } from './refusals.ts'

/** Shards that one call visits at most, one after another, while they have too few keys for a page. */
const shardsPerPageMax = 16

/**
 * Pages of keys, shard after shard, in each by name. A key that is there from the first page to the last comes exactly
 * once; one that comes or goes meanwhile may or may not. The cursor is all there is: it may be asked of any node, any
 * time later (cursor.ts).
 */
export const scan: Command = {
  name: 'SCAN',
  summary: 'A page of keys, and the cursor of the next; begin with 0, the end is 0',
  usage: 'cursor [MATCH pattern] [COUNT count] [TYPE type]',
  arity: { min: 1, max: Number.POSITIVE_INFINITY },
  keys: 'shard-by-shard',
  access: 'read',
  check(args) {
    readKeyCursor(args[0]!)
    parse(args)
  },
  plan(args, shardCount) {
    const { shard } = readKeyCursor(args[0]!)
    if (shard >= shardCount) refuseCursor(args[0]!)
    const { count } = parse(args)
    const items: ListItem[] = []
    let bytes = 0
    let asked = 0
    const ask = (shard: number, cursor: Bytes): Plan => ({
      ask: [{ shard, args: [cursor, ...args.slice(1)] }],
      next([reply]): Plan | Reply {
        assert(reply?.kind === 'list' && reply.cursor !== undefined, 'a page has a cursor')
        items.push(...reply.items)
        for (const { key } of reply.items) bytes += key!.byteLength + 8
        const { cursor } = reply
        const { shard: next } = readKeyCursor(cursor)
        if (next === shardCount) return { kind: 'list', items, cursor: scanEnd }
        const isFull = items.length >= count || bytes > limits.scanBytesMax || ++asked >= shardsPerPageMax
        return next === shard || isFull ? { kind: 'list', items, cursor } : ask(next, cursor)
      },
    })
    return ask(shard, args[0]!)
  },
  /** One shard's page; behind its last key the cursor is the beginning of the next shard, whether there is one or not. */
  run(keyspace, args) {
    const { shard, after } = readKeyCursor(args[0]!)
    const options = parse(args)
    const { glob, type } = options
    const page = keyspace.scan(
      after,
      glob?.prefix ?? '',
      pageLimits(options),
      (name, header) => (type === null || header.type === type) && (glob === null || glob.matches(name)),
    )
    const next = page.after === null ? { shard: shard + 1, after: null } : { shard, after: page.after }
    return { kind: 'list', items: page.items.map(key => ({ key })), cursor: writeKeyCursor(next) }
  },
}

const parse = (args: readonly Bytes[]) => parseScanOptions(args, 1, ['MATCH', 'COUNT', 'TYPE'])
