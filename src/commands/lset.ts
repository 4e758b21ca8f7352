import type { Command } from './command.ts'
import { parseInt64 } from './integer.ts'
import { parseIndex } from './lists.ts'
import { refuseIndex, refuseNoSuchKey } from './refusals.ts'
import { done } from './replies.ts'

/**
 * Redis's form has an index and one element. Anything else is GOKV's, all elements of the list; so a list of two whose
 * first is an integer can't be set that way.
 */
export const lset: Command = {
  name: 'LSET',
  summary: 'Sets an element of a list; without an index the whole list',
  usage: 'key index element, or key element [element …]',
  arity: { min: 2, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  run(keyspace, [key, ...elements]) {
    const [index, element] = elements
    if (elements.length !== 2 || parseInt64(index!) === undefined) {
      keyspace.lists.replace(key!, elements)
      return done
    }
    const at = parseIndex(index!)
    const outcome = keyspace.lists.setAt(key!, at, element!)
    if (outcome === 'no-key') refuseNoSuchKey(key!)
    if (outcome === 'out-of-range') refuseIndex(at)
    return done
  },
}
