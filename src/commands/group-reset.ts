import type { Bytes } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { checkGroup, isWord, parseOffset, parseOffsets } from './groups.ts'
import { done } from './replies.ts'

/** Refused while members have the partitions; FORCE takes these members out first, and they have to join again. */
export const groupReset: Command = {
  name: 'GROUP.RESET',
  summary: 'Sets the committed offsets of a consumer group, back or forth; NONE forgets one',
  usage: 'group [FORCE] stream partition offset|NONE [stream partition offset|NONE …]',
  arity: { min: 4, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check: args => void parse(args),
  run(keyspace, args) {
    const { offsets, isForced } = parse(args)
    keyspace.groups.reset(args[0]!, offsets, isForced)
    return done
  },
}

/** Throws WRONG_ARITY, EMPTY_KEY, TOO_LARGE, INVALID_ARGUMENT. */
function parse([group, ...rest]: readonly Bytes[]) {
  checkGroup(groupReset, group!)
  const isForced = isWord(rest[0], 'FORCE')
  const offsets = parseOffsets(groupReset, isForced ? rest.slice(1) : rest, text =>
    isWord(text, 'NONE') ? null : parseOffset(text),
  )
  return { offsets, isForced }
}
