/**
 * Where a watch stands, as people and programs keep it: by shard the index of the last entry whose changes were seen.
 * As text `3:1044,17:9`, shards in order.
 */
export type WatchCursor = Readonly<Record<number, number>>

export function cursorText(cursor: Iterable<readonly [shard: number, index: number]>): string {
  return [...cursor]
    .sort(([a], [b]) => a - b)
    .map(([shard, index]) => `${shard}:${index}`)
    .join(',')
}

/** null where it is no such text. */
export function parseCursor(text: string): WatchCursor | null {
  const found: Record<number, number> = {}
  for (const part of text.split(',')) {
    const [, shard, index] = /^\s*([0-9]{1,5}):([0-9]{1,16})\s*$/.exec(part) ?? []
    if (shard === undefined || Number(shard) in found || !Number.isSafeInteger(Number(index))) return null
    found[Number(shard)] = Number(index)
  }
  return found
}
