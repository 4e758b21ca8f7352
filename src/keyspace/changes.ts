import type { Bytes } from '../lib/bytes.ts'
import type { ValueType } from './keys.ts'
import type { RowStore } from './row-store.ts'
import {
  encodeHeader,
  expiryOfHeader,
  prefixes,
  revisionOfHeader,
  typeOfHeader,
  valueOfHeader,
} from './rows.ts'

/**
 * What happened to the keys of a shard of late: one change for each key that an entry touched, in the order of the
 * entries, in memory and bounded. Every replica notes the same, for all apply the same; none of it is in checkpoints or
 * snapshots, so a ring begins where its replica did.
 *
 * A key changed when its header was written with a new revision, or taken away. What is noted is what the entry left
 * behind, so it is noted where the entry's rows are committed, and costs one object a key.
 *
 * Invariant: all changes after `start` are here, and none that is not applied. The entry that came last is here whole.
 */
export interface Change {
  /** Raft index of the entry, in the key's shard. */
  readonly index: number
  /** Within the entry, from 0 without gaps. */
  readonly number: number
  /** A char a byte. */
  readonly key: string
  /** expire: its time was over, and the sweep took it. */
  readonly kind: ChangeKind
  /** Of what the key holds now, or held until now. */
  readonly type: ValueType
  /** The log clock, ms since 1970. */
  readonly timeMs: number
  /** What a string was set to; null: another kind or type, longer than `valueBytesMax`, or given up for room. */
  readonly value: Bytes | null
}

export type ChangeKind = 'set' | 'delete' | 'expire'

/** One key, or all keys that begin so; a char a byte. */
export type Target =
  | { readonly kind: 'key'; readonly key: string }
  | { readonly kind: 'prefix'; readonly prefix: string }

export const changeLimits = {
  /** Of one ring. */
  changesMax: 16_384,
  /** An entry with more is not kept: nothing before its end is then. */
  entryChangesMax: 32_768,
  /** Of one ring: what a node gives it lies between these. */
  bytesMin: 256 * 1024,
  bytesMax: 4 * 1024 * 1024,
  /** A longer value is not kept. */
  valueBytesMax: 64 * 1024,
} as const

/** What a change takes beside its key and value, about. */
const changeBytes = 128
const headerCode = prefixes.header.charCodeAt(0)

interface Slot {
  readonly index: number
  readonly number: number
  /** The header's row: its prefix and the key. */
  readonly row: string
  readonly kind: ChangeKind
  readonly type: ValueType
  readonly timeMs: number
  /** The row's value, which holds the string's; null once it is given up. */
  header: Bytes | null
}

export interface FoundChanges {
  readonly changes: readonly Change[]
  /** Whatever fits the target up to this index is in `changes`, or was before. */
  readonly upTo: number
}

export class ChangeRing {
  /** By sequence, of which the slot is the low bits. */
  private slots: (Slot | undefined)[] = new Array(64)
  private first = 0
  private next = 0
  /** Sequence of the oldest that may still have its value. */
  private valued = 0
  private bytes = 0
  private bytesMax: number = changeLimits.bytesMax
  private startIndex = 0
  private entry = { index: 0, timeMs: 0, isSweep: false, changes: 0 }

  /** All changes of later entries are here. */
  get start(): number {
    return this.startIndex
  }

  get size(): number {
    return this.next - this.first
  }

  get byteSize(): number {
    return this.bytes
  }

  /** Empty, and complete from `start` on. */
  reset(start: number): void {
    this.slots = new Array(64)
    this.first = this.next = this.valued = 0
    this.bytes = 0
    this.startIndex = start
    this.entry = { index: start, timeMs: 0, isSweep: false, changes: 0 }
  }

  /** What it may take from now on. */
  limit(bytesMax: number): void {
    const { bytesMin, bytesMax: most } = changeLimits
    this.bytesMax = Math.min(most, Math.max(bytesMin, Math.floor(bytesMax)))
    this.trim()
  }

  // --- What is noted ------------------------------------------------------------------------------------------------

  /** What is noted from here on was done by this entry. */
  begin(index: number, timeMs: number, isSweep: boolean): void {
    const { entry } = this
    entry.index = index
    entry.timeMs = timeMs
    entry.isSweep = isSweep
    entry.changes = 0
  }

  /** The entry makes this row so (null: takes it away); `rows` are those before the entry. */
  note(row: string, value: Bytes | null, rows: RowStore): void {
    if (row.charCodeAt(0) !== headerCode) return
    const { index, timeMs, isSweep } = this.entry
    if (value !== null) {
      // A sweep of a hash's fields writes the header too; the key was not changed by anybody.
      if (revisionOfHeader(value) !== index) return
      const type = typeOfHeader(value)
      const isKept = type === 'string' && value.byteLength <= changeLimits.valueBytesMax
      this.add(row, 'set', type, timeMs, isKept ? value : null)
      return
    }
    const old = rows.get(row)
    // It came and went within the entry.
    if (old === undefined) return
    const expiresAtMs = expiryOfHeader(old)
    const isOver = isSweep || (expiresAtMs !== null && expiresAtMs <= timeMs)
    this.add(row, isOver ? 'expire' : 'delete', typeOfHeader(old), timeMs, null)
  }

  private add(row: string, kind: ChangeKind, type: ValueType, timeMs: number, header: Bytes | null): void {
    const { entry } = this
    const number = entry.changes++
    if (number >= changeLimits.entryChangesMax) {
      if (number === changeLimits.entryChangesMax) this.forget(entry.index)
      return
    }
    this.push({ index: entry.index, number, row, kind, type, timeMs, header })
  }

  /** Changes that another ring gave out, in its order. */
  append(changes: readonly Change[]): void {
    for (const { index, number, key, kind, type, timeMs, value } of changes) {
      const header =
        value === null ? null : encodeHeader({ type: 'string', revision: index, expiresAtMs: null, value })
      this.push({ index, number, row: prefixes.header + key, kind, type, timeMs, header })
    }
  }

  private push(slot: Slot): void {
    if (this.next - this.first === this.slots.length) this.grow()
    this.slots[this.next & (this.slots.length - 1)] = slot
    this.next++
    this.bytes += bytesOf(slot)
    if (this.bytes > this.bytesMax || this.next - this.first > changeLimits.changesMax) this.trim()
  }

  private grow(): void {
    const slots: (Slot | undefined)[] = new Array(2 * this.slots.length)
    for (let at = this.first; at < this.next; at++) slots[at & (slots.length - 1)] = this.at(at)
    this.slots = slots
  }

  /** Values go before changes do: that a key changed is worth more than to what. */
  private trim(): void {
    if (this.next === this.first) return
    const newest = this.at(this.next - 1).index
    for (; this.bytes > this.bytesMax && this.valued < this.next; this.valued++) {
      const slot = this.at(this.valued)
      if (slot.index === newest) break
      if (slot.header === null) continue
      this.bytes -= slot.header.byteLength
      slot.header = null
    }
    while (this.bytes > this.bytesMax || this.next - this.first > changeLimits.changesMax) {
      const slot = this.at(this.first)
      if (slot.index === newest) break
      this.slots[this.first & (this.slots.length - 1)] = undefined
      this.bytes -= bytesOf(slot)
      this.startIndex = slot.index
      this.first++
    }
    this.valued = Math.max(this.valued, this.first)
  }

  private forget(start: number): void {
    const { entry } = this
    this.reset(start)
    this.entry = entry
  }

  // --- What is read -------------------------------------------------------------------------------------------------

  /**
   * Changes after the entry at `after`, which is not before `start`: whole entries, the first in any case, about
   * `bytesMax` of them. `end` is the last entry that was applied.
   */
  read(after: number, end: number, target: Target, bytesMax: number): FoundChanges {
    const changes: Change[] = []
    let bytes = 0
    let last = after
    for (let at = this.firstAfter(after); at < this.next; at++) {
      const slot = this.at(at)
      if (bytes > bytesMax && slot.index !== last) return { changes, upTo: last }
      last = slot.index
      if (!fits(slot.row, target)) continue
      changes.push(changeOf(slot))
      bytes += bytesOf(slot)
    }
    return { changes, upTo: Math.max(after, end) }
  }

  /** The keys of the changes after an entry, in order, each as a char a byte. */
  visit(after: number, visitor: (key: string, index: number) => void): void {
    for (let at = this.firstAfter(after); at < this.next; at++) {
      const { row, index } = this.at(at)
      visitor(row.slice(1), index)
    }
  }

  private at(sequence: number): Slot {
    return this.slots[sequence & (this.slots.length - 1)]!
  }

  /** Sequence of the first change of a later entry. */
  private firstAfter(index: number): number {
    let from = this.first
    let to = this.next
    while (from < to) {
      const middle = Math.floor((from + to) / 2)
      if (this.at(middle).index <= index) from = middle + 1
      else to = middle
    }
    return from
  }
}

function fits(row: string, target: Target): boolean {
  if (target.kind === 'prefix') return row.startsWith(target.prefix, 1)
  return row.length === target.key.length + 1 && row.endsWith(target.key)
}

function bytesOf({ row, header }: Slot): number {
  return changeBytes + row.length + (header?.byteLength ?? 0)
}

function changeOf({ index, number, row, kind, type, timeMs, header }: Slot): Change {
  const value = header === null ? null : valueOfHeader(header)
  return { index, number, key: row.slice(1), kind, type, timeMs, value }
}
