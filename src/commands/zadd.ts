import type { AddRule } from '../keyspace/sorted-sets.ts'
import { type Bytes, toLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { refuseNotANumber, refuseOptions, refuseSyntax } from './refusals.ts'
import { count, nil, valueOrNil } from './replies.ts'
import { readScore, scoreBytes } from './score.ts'

export const zadd: Command = {
  name: 'ZADD',
  summary: 'Sets scores of members of a sorted set; answers how many are new, with CH how many changed too',
  usage: 'key [NX | XX] [GT | LT] [CH] [INCR] score member [score member …]',
  arity: { min: 3, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check: args => void parse(args),
  run(keyspace, args) {
    const { pairs, rule, countsChanges } = parse(args)
    const results = keyspace.sortedSets.add(args[0]!, pairs, rule, refuseNotANumber)
    if (rule.isIncrement) {
      const [result] = results
      return result!.outcome === 'refused' ? nil : valueOrNil(scoreBytes(result!.score))
    }
    const counted = countsChanges ? ['added', 'updated'] : ['added']
    return count(results.filter(({ outcome }) => counted.includes(outcome)).length)
  },
}

/** Throws SYNTAX, NOT_FLOAT, TOO_LARGE. */
function parse(args: readonly Bytes[]) {
  const options = new Set<string>()
  let at = 1
  for (; at < args.length; at++) {
    const option = toLatin1(args[at]!).toUpperCase()
    if (!['NX', 'XX', 'GT', 'LT', 'CH', 'INCR'].includes(option)) break
    options.add(option)
  }
  const rest = args.slice(at)
  if (rest.length === 0 || rest.length % 2 !== 0) refuseSyntax('scores and members come in pairs')
  if (options.has('NX') && options.has('XX'))
    refuseOptions('XX and NX options at the same time are not compatible')
  if (
    (options.has('GT') && options.has('LT')) ||
    (options.has('NX') && (options.has('GT') || options.has('LT')))
  )
    refuseOptions('GT, LT, and/or NX options at the same time are not compatible')
  if (options.has('INCR') && rest.length > 2)
    refuseOptions('INCR option supports a single increment-element pair')
  const pairs: [score: number, member: Bytes][] = []
  for (let i = 0; i < rest.length; i += 2) pairs.push([readScore(rest[i]!), rest[i + 1]!])
  checkFields(
    pairs.map(([, member]) => member),
    'member',
  )
  const rule: AddRule = {
    only: options.has('NX') ? 'new' : options.has('XX') ? 'present' : null,
    move: options.has('GT') ? 'up' : options.has('LT') ? 'down' : null,
    isIncrement: options.has('INCR'),
  }
  return { pairs, rule, countsChanges: options.has('CH') }
}
