import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import { checkGrowth, checkReplySize, type Keys } from './keys.ts'
import { emptyRow, endOf, prefixes, type SetHeader } from './rows.ts'

/** Sets: a member a row, its name alone; in the order of their bytes. Adding, removing and asking for one cost O(1) rows. */
export class Sets {
  private readonly keys: Keys

  constructor(keys: Keys) {
    this.keys = keys
  }

  /** Answers how many were not there before. Throws WRONG_TYPE. */
  add(key: Bytes, members: readonly Bytes[]): number {
    const name = toLatin1(key)
    const header = this.keys.findOrCreate(name, 'set', newSet)
    checkGrowth(header, members.length)
    const before = header.members
    for (const member of members) {
      const row = prefixes.field + header.generation + toLatin1(member)
      if (this.keys.rows.get(row) !== undefined) continue
      this.keys.rows.put(row, emptyRow)
      header.members++
    }
    if (header.members > before) this.keys.store(name, header)
    return header.members - before
  }

  /** Answers how many were there; the last one takes the key with it. Throws WRONG_TYPE. */
  remove(key: Bytes, members: readonly Bytes[]): number {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'set')
    if (header === undefined) return 0
    const before = header.members
    for (const member of members) {
      const row = prefixes.field + header.generation + toLatin1(member)
      if (this.keys.rows.get(row) === undefined) continue
      this.keys.rows.delete(row)
      header.members--
    }
    if (header.members < before) this.keys.settle(name, header)
    return before - header.members
  }

  /** Throws WRONG_TYPE. */
  has(key: Bytes, member: Bytes): boolean {
    const header = this.keys.findTyped(toLatin1(key), 'set')
    if (header === undefined) return false
    return this.keys.rows.get(prefixes.field + header.generation + toLatin1(member)) !== undefined
  }

  /** 0 when the key is missing. Throws WRONG_TYPE. */
  count(key: Bytes): number {
    return this.keys.findTyped(toLatin1(key), 'set')?.members ?? 0
  }

  /** All members in the order of their bytes. Throws WRONG_TYPE, REPLY_TOO_LARGE. */
  *all(key: Bytes): Generator<Bytes> {
    const header = this.keys.findTyped(toLatin1(key), 'set')
    if (header === undefined) return
    checkReplySize(header.members, 'the set', 'ask for pages with SSCAN')
    const prefix = prefixes.field + header.generation
    for (const [row] of this.keys.rows.range(prefix, endOf(prefix)))
      yield fromLatin1(row.slice(prefix.length))
  }

  /** The members of `from` become those of a new set. */
  copy(from: SetHeader): SetHeader {
    const { rows } = this.keys
    const prefix = prefixes.field + from.generation
    const members = this.keys.collect(prefix, endOf(prefix))
    const copy: SetHeader = { ...newSet(this.keys.birth()), members: from.members }
    for (const [row] of members)
      rows.put(prefixes.field + copy.generation + row.slice(prefix.length), emptyRow)
    return copy
  }
}

function newSet(generation: string): SetHeader {
  return { type: 'set', revision: 0, expiresAtMs: null, generation, members: 0 }
}
