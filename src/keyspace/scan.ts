import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import { Prng, type Random } from '../lib/prng.ts'
import type { Keys } from './keys.ts'
import { limits } from './limits.ts'
import { decodeField, decodeHeader, decodeScore, endOf, type Header, prefixes } from './rows.ts'

/**
 * Going through keys, or the elements of one, a page at a time. A page goes on behind a name: rows are ordered by their
 * names, so whatever was there from the first page to the last is met, exactly once, whatever came and went meanwhile.
 * There is nothing to keep between pages, and no other replica to ask than one that has the rows.
 */
export interface PageLimits {
  /** Rows to visit, wanted or not. */
  readonly rowsMax: number
  /** Asked after each row: whether matching has cost enough. */
  readonly isTired: () => boolean
}

/** `after`: where the next page goes on; null = there is none. */
export interface Page<Item> {
  readonly items: readonly Item[]
  readonly after: Bytes | null
}

/** Names of live keys behind `after` that begin with `prefix`, as `wanted` chooses. */
export function scanKeys(
  keys: Keys,
  after: Bytes | null,
  prefix: string,
  page: PageLimits,
  wanted: (name: string, header: Header) => boolean,
): Page<Bytes> {
  const first = prefixes.header + prefix
  const behind = after === null ? first : `${prefixes.header}${toLatin1(after)}\0`
  const items: Bytes[] = []
  const budget = new PageBudget(page)
  const last = endOf(first)
  if (behind >= last) return { items, after: null }
  for (const [row, bytes] of keys.rows.range(behind > first ? behind : first, last)) {
    if (budget.isSpent()) return { items, after: budget.last }
    const name = row.slice(prefixes.header.length)
    budget.visit(name, bytes)
    const header = decodeHeader(bytes)
    if (wanted(name, header) && keys.isLive(header)) items.push(budget.last!)
  }
  return { items, after: null }
}

export type ScannedType = 'hash' | 'set' | 'zset'

export interface Element {
  readonly name: Bytes
  /** Of a hash's field its value, of a set's member nothing, of a sorted set's member its score. */
  readonly value: Bytes | number | undefined
}

/** Live elements behind `after`, in the order of their names; none when the key is missing. Throws WRONG_TYPE. */
export function scanElements(
  keys: Keys,
  key: Bytes,
  type: ScannedType,
  after: Bytes | null,
  page: PageLimits,
  wanted: (name: string) => boolean,
): Page<Element> {
  const items: Element[] = []
  const header = keys.findTyped(toLatin1(key), type)
  if (header === undefined) return { items, after: null }
  const prefix = prefixes.field + header.generation
  const budget = new PageBudget(page)
  const from = after === null ? prefix : `${prefix}${toLatin1(after)}\0`
  for (const [row, bytes] of keys.rows.range(from, endOf(prefix))) {
    if (budget.isSpent()) return { items, after: budget.last }
    const name = row.slice(prefix.length)
    budget.visit(name, bytes)
    if (!wanted(name)) continue
    if (type === 'hash') {
      const { value, expiresAtMs } = decodeField(bytes)
      if (!keys.isExpired(expiresAtMs)) items.push({ name: budget.last!, value })
    } else items.push({ name: budget.last!, value: type === 'zset' ? decodeScore(bytes) : undefined })
  }
  return { items, after: null }
}

class PageBudget {
  last: Bytes | null = null
  private readonly limits: PageLimits
  private visited = 0
  private bytes = 0

  constructor(limits: PageLimits) {
    this.limits = limits
  }

  visit(name: string, value: Bytes): void {
    this.last = fromLatin1(name)
    this.visited++
    this.bytes += name.length + value.byteLength
  }

  isSpent(): boolean {
    return (
      this.visited >= Math.min(this.limits.rowsMax, limits.rowsVisitedMax) ||
      this.bytes > limits.scanBytesMax ||
      (this.visited > 0 && this.limits.isTired())
    )
  }
}

/** Rows that a choice by chance looks at before it takes what it has. */
const probesMax = 500
/** Keys behind the place that was found, of which one is taken. */
const neighboursMax = 64

/**
 * A live key by chance; undefined when none was met. Each key of a shard of up to 64 has the same chance. Of a larger one
 * a place is found byte by byte, each taken from those that names go on with there, and one of the keys behind it is
 * chosen: every key can come, those with few neighbours more often. (A fair choice needs a count over all names, which
 * every write would pay for.)
 */
export function randomKey(keys: Keys, seed: number): Bytes | undefined {
  const random: Random = new Prng(seed)
  const place = keys.count <= neighboursMax ? prefixes.header : randomPlace(keys, random)
  const found = neighbours(keys, place)
  if (found.length === 0 && place !== prefixes.header) found.push(...neighbours(keys, prefixes.header))
  return found.length === 0 ? undefined : found[random.below(found.length)]
}

function randomPlace(keys: Keys, random: Random): string {
  let probes = 0
  let place: string = prefixes.header
  while (probes < probesMax) {
    const next: string[] = []
    const end = endOf(place)
    for (let from = place; from < end && probes < probesMax; probes++) {
      const row = firstRow(keys, from, end)
      if (row === undefined) break
      if (row.length === place.length) {
        next.push('')
        from = `${place}\0`
        continue
      }
      next.push(row[place.length]!)
      from = endOf(row.slice(0, place.length + 1))
    }
    const chosen = next[random.below(Math.max(1, next.length))]
    if (chosen === undefined || chosen === '') return place
    place += chosen
  }
  return place
}

function firstRow(keys: Keys, from: string, to: string): string | undefined {
  for (const [row] of keys.rows.range(from, to)) return row
  return undefined
}

/** The live keys among the first few rows at and behind a place. */
function neighbours(keys: Keys, place: string): Bytes[] {
  const found: Bytes[] = []
  let visited = 0
  let bytes = 0
  for (const [row, value] of keys.rows.range(place, endOf(prefixes.header))) {
    bytes += value.byteLength
    if (keys.isLive(decodeHeader(value))) found.push(fromLatin1(row.slice(prefixes.header.length)))
    if (found.length >= neighboursMax || ++visited >= probesMax || bytes > limits.scanBytesMax) break
  }
  return found
}
