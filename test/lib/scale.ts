/**
 * How big the tests with real processes are. Every day they are small; with ROUNDHOUSE_FULL=1 (`npm run test:full`,
 * by hand, on a quiet machine) they are of the size that the README's promises name.
 */
export const isFull = process.env.ROUNDHOUSE_FULL === '1'

export function scale(everyDay: number, full: number): number {
  return isFull ? full : everyDay
}
