/**
 * How much a node should and may hold. Bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018) keep every node at or below
 * 1.10 × its fair share, so that small imbalances cost no moves. The same slack is allowed downwards: without a lower
 * bound the eleventh node of a cluster would stay empty, because ten nodes at 1/10 are all within 1.10/11 of the data.
 */
import { assert } from '../lib/assert.ts'

/** A node above `(1 + slack) × mean` gives, one below `(1 - slack) × mean` gets. */
const slack = 0.1
/** Sums of weights are doubles: a mean this close to an integer is that integer. */
const epsilon = 1e-9

/** One entry a node, all in whole replicas (or leaders) but `mean`. */
export interface Bounds {
  readonly mean: Float64Array
  /** ⌊mean⌋: a node that gets is filled to here, and no node gives below it. */
  readonly share: Int32Array
  /** min(share, ⌈0.90 × mean⌉). */
  readonly lower: Int32Array
  /** max(⌈mean⌉, ⌊1.10 × mean⌋), never more than `perNodeMax`. */
  readonly upper: Int32Array
}

/**
 * Bounds for sharing `total` things by `weights`, where a node can hold `perNodeMax` at most: what a heavy node can't
 * take is shared by the others. `total ≤ perNodeMax × weights.length`, so `mean` sums to `total`.
 */
export function boundsFor(weights: readonly number[], total: number, perNodeMax: number): Bounds {
  assert(total <= perNodeMax * weights.length, `${total} can't be held by ${weights.length} × ${perNodeMax}`)
  const mean = fairShares(weights, total, perNodeMax)
  return {
    mean,
    share: Int32Array.from(mean, floor),
    lower: Int32Array.from(mean, each => Math.min(floor(each), ceil(each * (1 - slack)))),
    upper: Int32Array.from(mean, each =>
      Math.min(perNodeMax, Math.max(ceil(each), floor(each * (1 + slack)))),
    ),
  }
}

/** Shares by weight; nodes above the maximum are set to it and the rest is shared anew, until none is above. */
function fairShares(weights: readonly number[], total: number, perNodeMax: number): Float64Array {
  const mean = new Float64Array(weights.length)
  const isFull = new Uint8Array(weights.length)
  for (;;) {
    let left = total
    let weightLeft = 0
    weights.forEach((weight, node) => {
      if (isFull[node]) left -= perNodeMax
      else weightLeft += weight
    })
    let overflowed = false
    weights.forEach((weight, node) => {
      mean[node] = isFull[node] ? perNodeMax : (left * weight) / weightLeft
      if (mean[node]! <= perNodeMax + epsilon) return
      isFull[node] = 1
      overflowed = true
    })
    if (!overflowed) return mean
  }
}

function floor(value: number): number {
  return Math.floor(value + epsilon)
}

function ceil(value: number): number {
  return Math.ceil(value - epsilon)
}
