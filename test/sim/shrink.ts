import { type RunOptions, type RunResult, runSeed } from './campaign.ts'
import type { Fault } from './swarm.ts'

/** Runs that shrinking may take. */
const runsMax = 60

/**
 * Drops faults from a failing seed's plan as long as it keeps failing (delta debugging, Zeller and Hildebrandt 2002): first
 * those after the failure, then halves, quarters and so on. What is left need not fail in the same way, only fail.
 */
export async function shrink(options: RunOptions, result: RunResult): Promise<readonly Fault[]> {
  const { logs, ...silent } = options
  let runs = 0
  const fails = async (faults: readonly Fault[]) => {
    if (runs >= runsMax) return false
    runs++
    const { violations } = await runSeed({ ...silent, faults: faults.map(({ id }) => id) })
    return violations.length > 0
  }
  let left: readonly Fault[] = result.swarm.faults
  const { violatedAtMs } = result
  if (violatedAtMs !== null) {
    const before = left.filter(({ atMs }) => atMs <= violatedAtMs)
    if (before.length < left.length && (await fails(before))) left = before
  }
  for (let size = Math.ceil(left.length / 2); size >= 1 && left.length > 0; ) {
    let isSmaller = false
    for (let from = 0; from < left.length; ) {
      const without = [...left.slice(0, from), ...left.slice(from + size)]
      if (await fails(without)) {
        left = without
        isSmaller = true
      } else from += size
    }
    if (runs >= runsMax) break
    if (size > 1) size = Math.ceil(size / 2)
    else if (!isSmaller) break
  }
  return left
}
