import { WatchChange, WatchResponse } from '../../src/gen/roundhouse/v1/watch.ts'

/** What a node tells a watch; `places`: of shard 0, 1, … */
export function told(
  $case: 'created' | 'progress' | 'compacted',
  ...places: readonly number[]
): WatchResponse {
  return WatchResponse.fromPartial({
    news: { $case, value: { places: Object.fromEntries(places.map((place, i) => [i, BigInt(place)])) } },
  })
}

/** That `a` changed, which is all up to there. */
export function changed(index: number, type: string): WatchResponse {
  const change = WatchChange.fromPartial({ index: BigInt(index), key: Buffer.from('a'), type })
  return WatchResponse.fromPartial({
    news: { $case: 'changes', value: { place: BigInt(index), changes: [change] } },
  })
}
