/**
 * What two sides that were measured in turn say together. A machine has better and worse minutes: the medians of all runs
 * give the ratio, and the pairs of neighbours (the same minute) say how far it can be trusted.
 */
import type { Ratio, SideName } from './ports.ts'

export interface Reading {
  readonly side: SideName
  readonly value: number
}

/** null: no values. Of an even number the mean of the two in the middle. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A B A B …, so often each. */
export function inTurn(rounds: number): { readonly side: SideName; readonly round: number }[] {
  return Array.from({ length: rounds }, (_, round) => [
    { side: 'roundhouse' as const, round },
    { side: 'etcd' as const, round },
  ]).flat()
}

/** Of readings in the order in which they were made. null: a side has none, or theirs are nothing to divide by. */
export function ratioOf(readings: readonly Reading[]): Ratio | null {
  const ofSide = (side: SideName) => readings.filter(each => each.side === side).map(each => each.value)
  const [our, their] = [ofSide('roundhouse'), ofSide('etcd')]
  const [ours, theirs] = [median(our), median(their)]
  if (ours === null || theirs === null || theirs === 0) return null
  const pairs = our.flatMap((value, round) => {
    const other = their[round]
    return other === undefined || other === 0 ? [] : [value / other]
  })
  const ratio = ours / theirs
  return { ours, theirs, ratio, min: Math.min(ratio, ...pairs), max: Math.max(ratio, ...pairs) }
}
