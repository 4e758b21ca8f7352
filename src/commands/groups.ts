import { RoundhouseError } from '../errors.ts'
import type { Partition } from '../keyspace/group-rows.ts'
import type { Membership } from '../keyspace/groups.ts'
import { limits } from '../keyspace/limits.ts'
import { type Bytes, fromLatin1, fromUtf8, quote, toLatin1 } from '../lib/bytes.ts'
import type { Command, ListItem, Reply } from './command.ts'
import { parseSafeInteger } from './integer.ts'

/**
 * The forms that the GROUP commands share (what groups are stands in keyspace/groups.ts). Numbers are decimal text;
 * `stream` is the stream's id in the catalogue, `offset` that of the record to be read next.
 *
 * ```
 *  GROUP.JOIN group member timeoutMs range|sticky stream partitions [stream partitions …]   write → membership
 *  GROUP.HEARTBEAT group member generation                                                 write → membership
 *  GROUP.LEAVE group member [generation]                                                   write → success
 *  GROUP.COMMIT group member generation stream partition offset [stream partition offset …]  write → success
 *  GROUP.RESET group [FORCE] stream partition offset|NONE [stream partition offset|NONE …] write → success
 *  GROUP.DELETE group [FORCE]                                                              write → success
 *  GROUP.OFFSETS group [stream]                       read → list, key `stream partition`, value the offset
 *  GROUP.DESCRIBE group                               read → value, JSON (group-describe.ts)
 *  GROUP.LIST [stream]                                read of all shards → list, key the group, value `members generation`
 *
 *  membership: a list. key `generation`, value the generation; then for each stream of which there are some
 *              key `assigned` or `revoked`, value `stream partitions`, partitions as in `0-3,7`
 * ```
 * All of them may be repeated without a session: a second JOIN begins anew, a late COMMIT changes nothing. (But for RESET:
 * a copy that comes late would undo commits.)
 */
export function membershipReply({ generation, assigned, revoked }: Membership): Reply {
  const items: ListItem[] = [{ key: fromLatin1('generation'), value: fromLatin1(`${generation}`) }]
  for (const [key, partitions] of [
    ['assigned', assigned],
    ['revoked', revoked],
  ] as const)
    for (const [stream, numbers] of byStream(partitions))
      items.push({ key: fromLatin1(key), value: fromLatin1(`${stream} ${rangesOf(numbers)}`) })
  return { kind: 'list', items }
}

/** What JOIN and HEARTBEAT answered, read again by who asked; generation 0 where there was no membership. */
export function readMembership(items: readonly (readonly [key: string, value: string])[]): Membership {
  let generation = 0
  const found: Record<string, Partition[]> = { assigned: [], revoked: [] }
  for (const [name, text] of items) {
    if (name === 'generation') generation = Number(text)
    const [stream, ranges] = text.split(' ')
    for (const range of ranges?.split(',') ?? []) {
      const [from, to = from] = range.split('-').map(Number)
      for (let partition = from!; partition <= to!; partition++)
        found[name]?.push({ stream: Number(stream), partition })
    }
  }
  return { generation, assigned: found.assigned!, revoked: found.revoked! }
}

/** Partitions' numbers by stream, both in the order they came in. */
export function byStream(partitions: readonly Partition[]): Map<number, number[]> {
  const streams = new Map<number, number[]>()
  for (const { stream, partition } of partitions) {
    const numbers = streams.get(stream)
    if (numbers === undefined) streams.set(stream, [partition])
    else numbers.push(partition)
  }
  return streams
}

/** Ascending numbers as text: `0-3,7`. */
function rangesOf(numbers: readonly number[]): string {
  const ranges: { from: number; to: number }[] = []
  for (const number of numbers) {
    const last = ranges.at(-1)
    if (last?.to === number - 1) last.to = number
    else ranges.push({ from: number, to: number })
  }
  return ranges.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`)).join(',')
}

// --- Arguments --------------------------------------------------------------------------------------------------------

/** Throws EMPTY_KEY, TOO_LARGE, INVALID_ARGUMENT. */
export function checkGroup(command: Pick<Command, 'name'>, group: Bytes): void {
  checkName(command, 'group name', group)
}

/** Throws EMPTY_KEY, TOO_LARGE, INVALID_ARGUMENT. */
export function checkMember(command: Pick<Command, 'name'>, member: Bytes): void {
  checkName(command, 'member id', member)
}

function checkName({ name }: Pick<Command, 'name'>, what: string, text: Bytes): void {
  if (text.byteLength === 0) throw new RoundhouseError('EMPTY_KEY', { command: name })
  if (text.byteLength > limits.groupNameBytesMax)
    throw new RoundhouseError('TOO_LARGE', { what, bytes: text.byteLength, max: limits.groupNameBytesMax })
  if (text.some(byte => byte < 0x20 || byte === 0x7f))
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `${what} ${quote(text)}`,
      accepted: 'text without control characters',
    })
}

/** A safe integer from `min` to `max`. Throws INVALID_ARGUMENT. */
export function parseNumber(what: string, text: Bytes, min: number, max = Number.MAX_SAFE_INTEGER): number {
  const number = parseSafeInteger(text)
  if (number === undefined || number < min || number > max)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `${what} ${quote(text)}`,
      accepted:
        max === Number.MAX_SAFE_INTEGER ? `an integer from ${min}` : `an integer from ${min} to ${max}`,
    })
  return number
}

export const parseGeneration = (text: Bytes) => parseNumber('generation', text, 1)
export const parseStream = (text: Bytes) => parseNumber('stream id', text, 0)

export function isWord(text: Bytes | undefined, word: string): boolean {
  return text !== undefined && text.byteLength === word.length && toLatin1(text).toUpperCase() === word
}

/** `stream partition offset` and so on, each partition once. Throws WRONG_ARITY, INVALID_ARGUMENT. */
export function parseOffsets<Offset>(
  { name, usage }: Pick<Command, 'name' | 'usage'>,
  args: readonly Bytes[],
  parseOffset: (text: Bytes) => Offset,
): (Partition & { offset: Offset })[] {
  if (args.length === 0 || args.length % 3 !== 0)
    throw new RoundhouseError('WRONG_ARITY', { command: name, usage: `${name} ${usage}` })
  if (args.length > 3 * limits.groupPartitionsMax)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `number of offsets ${args.length / 3}`,
      accepted: `at most ${limits.groupPartitionsMax}`,
    })
  const seen = new Set<string>()
  return Array.from({ length: args.length / 3 }, (_, i) => {
    const stream = parseStream(args[3 * i]!)
    const partition = parseNumber('partition', args[3 * i + 1]!, 0)
    const offset = parseOffset(args[3 * i + 2]!)
    if (seen.size === seen.add(`${stream}/${partition}`).size)
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `second offset of partition ${partition} of stream ${stream}`,
        accepted: 'one a partition',
      })
    return { stream, partition, offset }
  })
}

export const parseOffset = (text: Bytes) => parseNumber('offset', text, 0)

export function json(value: unknown): Reply {
  return { kind: 'value', value: fromUtf8(JSON.stringify(value)) }
}
