import { elementScan } from './paging.ts'

/** In the order of the members, not of their scores: one whose score changes meanwhile is still met. */
export const zscan = elementScan('ZSCAN', 'zset', 'the members of a sorted set, with scores', [
  'MATCH',
  'COUNT',
])
