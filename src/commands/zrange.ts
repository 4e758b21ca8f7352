import type { Place } from '../keyspace/counted-tree.ts'
import type { Keyspace } from '../keyspace/keyspace.ts'
import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import type { Command, ListItem } from './command.ts'
import { parseIndex } from './lists.ts'
import { refuseMemberBound, refuseOptions, refuseScoreBound, refuseSyntax } from './refusals.ts'
import { parseScore, scoreBytes } from './score.ts'

/**
 * A range by rank (both ends included), by score, or by member where all scores are one. The tree counts, so each becomes a
 * range of ranks first, and a reversed one is the same ranks read from the other end.
 */
export const zrange: Command = {
  name: 'ZRANGE',
  summary: 'Members of a sorted set by rank, score or name, from the lowest or (REV) the highest',
  usage: 'key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]',
  arity: { min: 3, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'read',
  check: args => void parse(args),
  run(keyspace, args) {
    const { isReversed, limit, withScores, range } = parse(args)
    let [from, to] = range(keyspace, args[0]!)
    if (limit !== null) {
      const offset = limit.offset < 0 ? Number.POSITIVE_INFINITY : limit.offset
      const count = limit.count < 0 ? Number.POSITIVE_INFINITY : limit.count
      if (isReversed) [from, to] = [Math.max(from, to - offset - count), to - offset]
      else [from, to] = [from + offset, Math.min(to, from + offset + count)]
    }
    const entries = keyspace.sortedSets.slice(args[0]!, from, to)
    if (isReversed) entries.reverse()
    // 10,000 members of 512 bytes, the most that are visited, fit into a reply, scores and all.
    const items = entries.map(({ score, member }): ListItem => {
      const key = fromLatin1(member)
      return withScores ? { key, value: scoreBytes(score) } : { key }
    })
    return { kind: 'list', items }
  },
}

/** Ranks, half-open, from the lowest. */
type Range = (keyspace: Keyspace, key: Bytes) => [from: number, to: number]

/** Throws SYNTAX, NOT_INTEGER, and INVALID_ARGUMENT for bounds. */
function parse(args: readonly Bytes[]) {
  let by: 'BYSCORE' | 'BYLEX' | null = null
  let isReversed = false
  let withScores = false
  let limit: { readonly offset: number; readonly count: number } | null = null
  for (let i = 3; i < args.length; i++) {
    const option = toLatin1(args[i]!).toUpperCase()
    if (option === 'REV') isReversed = true
    else if (option === 'WITHSCORES') withScores = true
    else if ((option === 'BYSCORE' || option === 'BYLEX') && (by === null || by === option)) by = option
    else if (option === 'LIMIT' && i + 2 < args.length)
      limit = { offset: parseIndex(args[++i]!), count: parseIndex(args[++i]!) }
    else refuseSyntax(`${option.slice(0, 32)} does not fit here`)
  }
  if (limit !== null && by === null)
    refuseOptions('syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX')
  if (withScores && by === 'BYLEX')
    refuseOptions('syntax error, WITHSCORES not supported in combination with BYLEX')
  // Reversed, the first bound is the higher one; ranks count from the other end instead.
  const [low, high] = isReversed && by !== null ? [args[2]!, args[1]!] : [args[1]!, args[2]!]
  const range =
    by === 'BYSCORE'
      ? byScore(low, high)
      : by === 'BYLEX'
        ? byMember(low, high)
        : byRank(low, high, isReversed)
  return { isReversed, limit, withScores, range }
}

function byRank(startText: Bytes, stopText: Bytes, isReversed: boolean): Range {
  const [start, stop] = [parseIndex(startText), parseIndex(stopText)]
  return (keyspace, key) => {
    const members = keyspace.sortedSets.count(key)
    const from = Math.max(0, start < 0 ? members + start : start)
    const to = Math.min(members, (stop < 0 ? members + stop : stop) + 1)
    return isReversed ? [members - to, members - from] : [from, to]
  }
}

/** An inclusive lower bound and an exclusive upper one stand before all of that score, the other two behind. */
function byScore(low: Bytes, high: Bytes): Range {
  const [from, to] = [parseScoreBound(low), parseScoreBound(high)]
  const places: Place[] = [
    { score: from.score, member: from.isExcluded ? null : '' },
    { score: to.score, member: to.isExcluded ? '' : null },
  ]
  return (keyspace, key) => keyspace.sortedSets.countBefore(key, ...places) as [number, number]
}

function parseScoreBound(text: Bytes): { score: number; isExcluded: boolean } {
  const isExcluded = text[0] === '('.charCodeAt(0)
  const score = parseScore(isExcluded ? text.subarray(1) : text)
  if (score === undefined) refuseScoreBound(text)
  return { score, isExcluded }
}

/** Redis promises an order only where all scores are one; that of the lowest is taken for it. */
function byMember(low: Bytes, high: Bytes): Range {
  const [from, to] = [parseMemberBound(low, false), parseMemberBound(high, true)]
  return (keyspace, key) => {
    const [lowest] = keyspace.sortedSets.slice(key, 0, 1)
    if (lowest === undefined) return [0, 0]
    const places = [from, to].map(member => ({ score: lowest.score, member }))
    return keyspace.sortedSets.countBefore(key, ...places) as [number, number]
  }
}

/** The member to stand before; null = behind all. The one right behind a member is that member and a zero byte. */
function parseMemberBound(text: Bytes, isUpper: boolean): string | null {
  const chars = toLatin1(text)
  if (chars === '-') return ''
  if (chars === '+') return null
  if (chars[0] === '[') return isUpper ? `${chars.slice(1)}\0` : chars.slice(1)
  if (chars[0] === '(') return isUpper ? chars.slice(1) : `${chars.slice(1)}\0`
  refuseMemberBound(text)
}
