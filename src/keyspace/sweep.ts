import { assert } from '../lib/assert.ts'
import { toLatin1 } from '../lib/bytes.ts'
import type { Groups } from './groups.ts'
import type { Hashes } from './hashes.ts'
import type { Keys } from './keys.ts'
import { limits } from './limits.ts'
import { dueRange, endOf, numberKey, parseDueKey, prefixes, readNumberKey } from './rows.ts'
import type { SessionTable } from './sessions.ts'

/**
 * What takes away the rows that nobody sees any more: keys, fields and sessions whose time is over, and what deleted
 * collections and trimmed lists left behind. No reader sees a difference, but for `count`. And what takes silent members
 * out of consumer groups: that does make a difference, and is made nowhere else.
 *
 * A sweep is an entry like any other and takes its share only, by rows and by bytes read.
 */
export class Sweeper {
  private readonly keys: Keys
  private readonly hashes: Hashes
  private readonly sessions: SessionTable
  private readonly groups: Groups

  constructor(keys: Keys, hashes: Hashes, sessions: SessionTable, groups: Groups) {
    this.keys = keys
    this.hashes = hashes
    this.sessions = sessions
    this.groups = groups
  }

  /** The log clock at which a sweep has work; one that has passed: now. null = nothing ever expires as things stand. */
  nextDueMs(): number | null {
    const { rows } = this.keys
    for (const _ of rows.range(prefixes.garbage, endOf(prefixes.garbage))) return 0
    for (const [row] of rows.range(prefixes.due, endOf(prefixes.due))) return readNumberKey(row, 1)
    return null
  }

  /**
   * Removes what the log clock has passed, in the order of (expiry, key), then garbage; about `rowsMax` rows at most (the
   * last key may take a few more). Answers how many.
   */
  sweep(rowsMax: number): number {
    const { keys } = this
    const due: string[] = []
    for (const [row] of keys.rows.range(...dueRange(keys.logNowMs))) {
      due.push(row)
      if (due.length >= rowsMax) break
    }
    let swept = 0
    let bytes = 0
    for (const row of due) {
      if (swept >= rowsMax || bytes > limits.sweepBytesMax) return swept
      // An earlier one may have taken its key, and this row with it.
      if (keys.rows.get(row) === undefined) continue
      const { dueMs, kind, name } = parseDueKey(row)
      if (kind === 'session') swept += this.sessions.sweep(name, dueMs, keys.logNowMs, rowsMax - swept)
      else if (kind === 'group') swept += this.groups.sweep(name, dueMs)
      else if (kind === 'fields') {
        const header = keys.load(name)
        assert(header?.type === 'hash', 'due row of fields of a key that is no hash')
        swept += this.hashes.sweep(name, header, rowsMax - swept)
      } else {
        const header = keys.load(name)
        assert(header?.expiresAtMs === dueMs, `due row at ${dueMs} of a key that expires otherwise`)
        if (header.type === 'string') bytes += header.value.byteLength
        keys.remove(name, header)
        swept++
      }
    }
    return swept < rowsMax ? swept + this.sweepGarbage(rowsMax - swept, limits.sweepBytesMax - bytes) : swept
  }

  private sweepGarbage(rowsMax: number, bytesMax: number): number {
    const { rows } = this.keys
    let swept = 0
    let bytes = 0
    const isSpent = () => swept >= rowsMax || bytes > bytesMax
    while (!isSpent()) {
      let garbage: readonly [row: string, value: Uint8Array] | undefined
      for (garbage of rows.range(prefixes.garbage, endOf(prefixes.garbage))) break
      if (garbage === undefined) return swept
      for (const [from, to] of this.garbageRanges(garbage[0].slice(1), toLatin1(garbage[1]))) {
        const gone: string[] = []
        if (isSpent()) break
        for (const [row, value] of rows.range(from, to)) {
          gone.push(row)
          swept++
          bytes += value.byteLength
          if (isSpent()) break
        }
        for (const row of gone) rows.delete(row)
      }
      if (isSpent()) return swept
      rows.delete(garbage[0])
      swept++
    }
    return swept
  }

  /** Where the rows of a garbage row stand: all of that life, or those that the list of that name has no more. */
  private garbageRanges(generation: string, name: string): (readonly [from: string, to: string])[] {
    const all = (prefix: string) => [prefix + generation, endOf(prefix + generation)] as const
    if (name === '') return [prefixes.field, prefixes.fieldDue, prefixes.element, prefixes.node].map(all)
    const header = this.keys.load(name)
    assert(
      header?.type === 'list' && header.generation === generation,
      'garbage of a list that is not there any more',
    )
    const [from, to] = all(prefixes.element)
    return [
      [from, from + numberKey(header.head)],
      [from + numberKey(header.tail), to],
    ]
  }
}
