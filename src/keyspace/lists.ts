import { RoundhouseError } from '../errors.ts'
import { type Bytes, equalBytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import { checkGrowth, checkReplySize, type Keys } from './keys.ts'
import { limits } from './limits.ts'
import { type ListHeader, numberKey, prefixes } from './rows.ts'

/**
 * Lists: an element a row, at a position that is its number from the middle of the safe integers. The header knows the
 * first and the one after the last, and all between are there:
 *
 * ```
 *   header  head 2^52 - 2                                          tail 2^52 + 2
 *              ▼                                                      ▼
 *   rows      l…(2^52-2) "a"   l…(2^52-1) "b"   l…(2^52) "c"   l…(2^52+1) "d"
 * ```
 * So both ends, an index and the length cost O(1), a range its length. A trim of many elements moves head and tail and
 * leaves the rows outside to the sweep (a garbage row with the key in it); a push there again writes over them.
 * Removing from the middle moves the elements before or behind, and is bounded as a visit of rows is.
 */
const origin = 2 ** 52

export type End = 'head' | 'tail'

/** Rows that a trim deletes at once; what is more is left to the sweep. */
const trimRowsMax = limits.sweepRowsMax

export class Lists {
  private readonly keys: Keys

  constructor(keys: Keys) {
    this.keys = keys
  }

  /** Adds the values one after another at that end; answers the new length. Throws WRONG_TYPE. */
  push(key: Bytes, values: readonly Bytes[], end: End): number {
    const name = toLatin1(key)
    const header = this.keys.findOrCreate(name, 'list', newList)
    checkGrowth(header, values.length)
    for (const value of values)
      this.keys.rows.put(rowOf(header, end === 'head' ? --header.head : header.tail++), value)
    this.keys.store(name, header)
    return header.tail - header.head
  }

  /**
   * Takes up to `count` elements from that end, the outermost first; undefined = no such key. Throws WRONG_TYPE, and
   * REPLY_TOO_LARGE for what could not be answered.
   */
  pop(key: Bytes, end: End, count: number): Bytes[] | undefined {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'list')
    if (header === undefined) return undefined
    const taken = Math.min(count, header.tail - header.head)
    checkReplySize(taken, 'what is popped', 'pop fewer at once')
    const values: Bytes[] = []
    let bytes = 0
    for (let i = 0; i < taken; i++) {
      const row = rowOf(header, end === 'head' ? header.head++ : --header.tail)
      const value = this.keys.rows.get(row)!
      bytes += value.byteLength
      if (bytes > limits.replyBytesMax)
        throw new RoundhouseError('REPLY_TOO_LARGE', { max: limits.replyBytesMax, hint: 'pop fewer at once' })
      values.push(value)
      this.keys.rows.delete(row)
    }
    if (taken > 0) this.keys.settle(name, header)
    return values
  }

  /** 0 when the key is missing. Throws WRONG_TYPE. */
  count(key: Bytes): number {
    const header = this.keys.findTyped(toLatin1(key), 'list')
    return header === undefined ? 0 : header.tail - header.head
  }

  /** `index` counts from the head, or from the tail down from -1. Throws WRONG_TYPE. */
  at(key: Bytes, index: number): Bytes | undefined {
    const header = this.keys.findTyped(toLatin1(key), 'list')
    const position = header && positionOf(header, index)
    return position === undefined ? undefined : this.keys.rows.get(rowOf(header!, position))
  }

  /** Throws WRONG_TYPE. */
  setAt(key: Bytes, index: number, value: Bytes): 'done' | 'no-key' | 'out-of-range' {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'list')
    if (header === undefined) return 'no-key'
    const position = positionOf(header, index)
    if (position === undefined) return 'out-of-range'
    this.keys.rows.put(rowOf(header, position), value)
    this.keys.store(name, header)
    return 'done'
  }

  /** Elements `start` to `stop`, both included, each from the head or (negative) from the tail. Throws WRONG_TYPE, REPLY_TOO_LARGE. */
  *range(key: Bytes, start: number, stop: number): Generator<Bytes> {
    const header = this.keys.findTyped(toLatin1(key), 'list')
    if (header === undefined) return
    const { from, to } = windowOf(header, start, stop)
    if (from >= to) return
    checkReplySize(to - from, 'the range', 'ask for a shorter one')
    for (const [, value] of this.keys.rows.range(rowOf(header, from), rowOf(header, to))) yield value
  }

  /** Keeps elements `start` to `stop`, both included; O(1) for what is dropped. Throws WRONG_TYPE. */
  trim(key: Bytes, start: number, stop: number): void {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'list')
    if (header === undefined) return
    const { rows } = this.keys
    const { from, to } = windowOf(header, start, stop)
    if (from >= to) {
      this.keys.remove(name, header)
      return
    }
    const { head, tail } = header
    if (from - head + (tail - to) > trimRowsMax)
      rows.put(prefixes.garbage + header.generation, fromLatin1(name))
    else {
      for (let position = head; position < from; position++) rows.delete(rowOf(header, position))
      for (let position = to; position < tail; position++) rows.delete(rowOf(header, position))
    }
    header.head = from
    header.tail = to
    this.keys.store(name, header)
  }

  /**
   * Removes elements equal to `value`: the first `count` from the head, the first -`count` from the tail, or (0) all;
   * answers how many. It looks no further than it must, and what it looked at is moved together. Throws WRONG_TYPE, and
   * INVALID_ARGUMENT where that would be more than one command may visit.
   */
  removeEqual(key: Bytes, count: number, value: Bytes): number {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'list')
    if (header === undefined) return 0
    const { rows } = this.keys
    const { head, tail } = header
    const step = count < 0 ? -1 : 1
    const wanted = count === 0 ? Number.POSITIVE_INFINITY : Math.abs(count)
    const first = step === 1 ? head : tail - 1
    const kept: Bytes[] = []
    let visited = 0
    let bytes = 0
    let removed = 0
    let moved = 0
    for (; visited < tail - head && removed < wanted; visited++) {
      const element = rows.get(rowOf(header, first + step * visited))!
      bytes += element.byteLength
      if (visited >= limits.rowsVisitedMax || bytes > limits.movedBytesMax)
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: `removal from the middle of a list of ${tail - head} elements`,
          accepted: `what is found within ${limits.rowsVisitedMax} elements and ${limits.movedBytesMax} bytes of its end`,
        })
      if (equalBytes(element, value)) {
        removed++
        moved = visited + 1
      } else kept.push(element)
    }
    if (removed === 0) return 0
    // What stays of the elements up to the last removed moves against the others; the end that it leaves is the new one.
    for (let i = 0; i < moved; i++) {
      const row = rowOf(header, first + step * i)
      if (i < removed) rows.delete(row)
      else rows.put(row, kept[i - removed]!)
    }
    if (step === 1) header.head += removed
    else header.tail -= removed
    this.keys.settle(name, header)
    return removed
  }

  /** The list holds these values and nothing else from now on; its expiry stays. Throws WRONG_TYPE. */
  replace(key: Bytes, values: readonly Bytes[]): void {
    const name = toLatin1(key)
    const old = this.keys.findTyped(name, 'list')
    this.keys.clear(name)
    this.push(key, values, 'tail')
    if (old !== undefined) this.keys.store(name, this.keys.load(name)!, old.expiresAtMs)
  }

  /** The elements of `from` become those of a new list. */
  copy(from: ListHeader): ListHeader {
    const { rows } = this.keys
    const elements = this.keys.collect(rowOf(from, from.head), rowOf(from, from.tail))
    const copy = newList(this.keys.birth())
    for (const [, value] of elements) rows.put(rowOf(copy, copy.tail++), value)
    return copy
  }
}

function newList(generation: string): ListHeader {
  return { type: 'list', revision: 0, expiresAtMs: null, generation, head: origin, tail: origin }
}

function rowOf(header: ListHeader, position: number): string {
  return prefixes.element + header.generation + numberKey(position)
}

function positionOf({ head, tail }: ListHeader, index: number): number | undefined {
  const position = index < 0 ? tail + index : head + index
  return position >= head && position < tail ? position : undefined
}

/** Positions of the elements `start` to `stop`, half-open; empty where `from` is not below `to`. */
function windowOf({ head, tail }: ListHeader, start: number, stop: number): { from: number; to: number } {
  const from = Math.max(head, start < 0 ? tail + start : head + start)
  const to = Math.min(tail, (stop < 0 ? tail + stop : head + stop) + 1)
  return { from, to }
}
