import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { addExact, countOf, integerBytes, parseAmount, parseInt64 } from './integer.ts'
import { refuseHashValue } from './refusals.ts'
import { count } from './replies.ts'

/** As with INCRBY, what is there keeps its expiry. */
export const hincrby: Command = {
  name: 'HINCRBY',
  summary: 'Adds to an integer in a field of a hash',
  usage: 'key field amount',
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'write',
  check(args) {
    checkFields(args.slice(1, 2))
    parseAmount(args[2]!)
  },
  run(keyspace, [key, field, amount]) {
    const [text] = keyspace.hashes.get(key!, [field!])
    const old = text === undefined ? 0n : parseInt64(text)
    if (old === undefined) refuseHashValue(text!)
    const sum = addExact(old, parseAmount(amount!))
    keyspace.hashes.put(key!, [[field!, integerBytes(sum)]], 'keep')
    return count(countOf(sum))
  },
}
