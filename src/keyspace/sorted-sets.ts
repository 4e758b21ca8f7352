import { type Bytes, toLatin1 } from '../lib/bytes.ts'
import { CountedTree, type Entry, type Place } from './counted-tree.ts'
import { checkGrowth, checkReplySize, type Keys } from './keys.ts'
import { decodeScore, encodeScore, endOf, prefixes, type SortedSetHeader } from './rows.ts'

/**
 * Sorted sets, each twice: a row a member with its score ('f', so that a score costs one get), and a tree that has them
 * in order and counts ('n', see counted-tree.ts). Cost in rows, n members, a member m bytes:
 *
 * ```
 *   ZSCORE        1                     ZADD, ZREM, ZINCRBY   1 + O(log n) a member; nodes are read and written once a command
 *   ZCARD         the header            ZRANK, a bound        1 + O(log n)
 *   ZSCAN         a row a member        ZRANGE                O(log n) + a node for about 1,800 / (10 + m) entries
 * ```
 * Invariant: members, 'f' rows and entries of the tree are the same ones, with the same scores.
 */
export interface AddRule {
  /** NX adds only, XX updates only. */
  readonly only: 'new' | 'present' | null
  /** GT moves scores only up, LT only down; both add. */
  readonly move: 'up' | 'down' | null
  /** The scores given are added to those that are there. */
  readonly isIncrement: boolean
}

/** What became of one pair. `score` is null where the rule left things as they are. */
export interface Added {
  readonly outcome: 'added' | 'updated' | 'same' | 'refused'
  readonly score: number
}

export class SortedSets {
  private readonly keys: Keys

  constructor(keys: Keys) {
    this.keys = keys
  }

  /** What became of each pair; a pair whose sum is no number is given to `notANumber`, which throws. Throws WRONG_TYPE. */
  add(
    key: Bytes,
    pairs: readonly (readonly [score: number, member: Bytes])[],
    rule: AddRule,
    notANumber: (member: Bytes) => never,
  ): Added[] {
    const name = toLatin1(key)
    if (rule.only === 'present' && this.keys.findTyped(name, 'zset') === undefined)
      return pairs.map(([score]) => ({ outcome: 'refused', score }))
    const header = this.keys.findOrCreate(name, 'zset', newSortedSet)
    checkGrowth(header, pairs.length)
    const tree = new CountedTree(this.keys.rows, header)
    const results: Added[] = []
    for (const [given, memberBytes] of pairs) {
      const member = toLatin1(memberBytes)
      const old = this.load(header, member)
      if (old === undefined) {
        // 0 + -0 is 0: the two are one score, and of one spelling.
        const score = 0 + given
        if (rule.only === 'present') results.push({ outcome: 'refused', score })
        else {
          this.write(header, tree, { score, member })
          header.members++
          results.push({ outcome: 'added', score })
        }
        continue
      }
      if (rule.only === 'new') {
        results.push({ outcome: 'refused', score: old })
        continue
      }
      const score = rule.isIncrement ? old + given : 0 + given
      if (Number.isNaN(score)) notANumber(memberBytes)
      if ((rule.move === 'up' && score <= old) || (rule.move === 'down' && score >= old)) {
        results.push({ outcome: 'refused', score: old })
        continue
      }
      if (score !== old) {
        tree.remove({ score: old, member })
        this.write(header, tree, { score, member })
      }
      results.push({ outcome: score === old ? 'same' : 'updated', score })
    }
    tree.flush()
    this.keys.store(name, header)
    return results
  }

  /** Answers how many were there; the last one takes the key with it. Throws WRONG_TYPE. */
  remove(key: Bytes, members: readonly Bytes[]): number {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'zset')
    if (header === undefined) return 0
    const tree = new CountedTree(this.keys.rows, header)
    const before = header.members
    for (const bytes of members) {
      const member = toLatin1(bytes)
      const score = this.load(header, member)
      if (score === undefined) continue
      tree.remove({ score, member })
      this.keys.rows.delete(prefixes.field + header.generation + member)
      header.members--
    }
    if (header.members === before) return 0
    tree.flush()
    this.keys.settle(name, header)
    return before - header.members
  }

  /** undefined = no such key or member. Throws WRONG_TYPE. */
  score(key: Bytes, member: Bytes): number | undefined {
    const header = this.keys.findTyped(toLatin1(key), 'zset')
    return header && this.load(header, toLatin1(member))
  }

  /** 0 when the key is missing. Throws WRONG_TYPE. */
  count(key: Bytes): number {
    return this.keys.findTyped(toLatin1(key), 'zset')?.members ?? 0
  }

  /** From 0, the lowest; undefined = no such key or member. Throws WRONG_TYPE. */
  rank(key: Bytes, member: Bytes): number | undefined {
    const header = this.keys.findTyped(toLatin1(key), 'zset')
    const score = header && this.load(header, toLatin1(member))
    if (score === undefined) return undefined
    return new CountedTree(this.keys.rows, header!).countBefore({ score, member: toLatin1(member) })
  }

  /** How many entries stand before each place. Throws WRONG_TYPE. */
  countBefore(key: Bytes, ...places: readonly Place[]): number[] {
    const header = this.keys.findTyped(toLatin1(key), 'zset')
    if (header === undefined) return places.map(() => 0)
    const tree = new CountedTree(this.keys.rows, header)
    return places.map(place => tree.countBefore(place))
  }

  /** Entries by rank, half-open, the lowest first. Throws WRONG_TYPE, REPLY_TOO_LARGE. */
  slice(key: Bytes, from: number, to: number): Entry[] {
    const header = this.keys.findTyped(toLatin1(key), 'zset')
    if (header === undefined || from >= to) return []
    const end = Math.min(to, header.members)
    checkReplySize(end - from, 'the range', 'ask for a shorter one')
    return new CountedTree(this.keys.rows, header).slice(from, end)
  }

  /** Members and tree of `from` become those of a new sorted set. */
  copy(from: SortedSetHeader): SortedSetHeader {
    const { rows } = this.keys
    const copy: SortedSetHeader = { ...from, generation: this.keys.birth() }
    for (const prefix of [prefixes.field, prefixes.node]) {
      const start = prefix + from.generation
      for (const [row, value] of this.keys.collect(start, endOf(start)))
        rows.put(prefix + copy.generation + row.slice(start.length), value)
    }
    return copy
  }

  private load(header: SortedSetHeader, member: string): number | undefined {
    const bytes = this.keys.rows.get(prefixes.field + header.generation + member)
    return bytes && decodeScore(bytes)
  }

  private write(header: SortedSetHeader, tree: CountedTree, entry: Entry): void {
    this.keys.rows.put(prefixes.field + header.generation + entry.member, encodeScore(entry.score))
    tree.insert(entry)
  }
}

function newSortedSet(generation: string): SortedSetHeader {
  return { type: 'zset', revision: 0, expiresAtMs: null, generation, members: 0, root: 0, nextNode: 1 }
}
