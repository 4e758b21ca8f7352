/**
 * What a watch has received, whichever node it came from: messages become changes, whole entries only, and the cursor that
 * another node is asked to go on from. Of an entry that was cut off the part that came is forgotten: it comes again.
 */
import { type WatchChange, WatchChange_Kind, type WatchResponse } from '../gen/roundhouse/v1/watch.ts'
import type { WatchCursor } from '../lib/watch-cursor.ts'

export type ChangeKind = 'set' | 'delete' | 'expire'

export interface ReceivedChange {
  readonly shard: number
  /** Raft index of the entry, which is the key's revision. */
  readonly index: number
  /** Within the entry, from 0. */
  readonly number: number
  readonly kind: ChangeKind
  readonly key: Buffer
  readonly type: string
  /** By the shard's log clock, ms since 1970. */
  readonly timestampMs: number
  readonly value: Buffer | null
  /** The cursor of the shard once it is dealt with; null: the entry has more changes. */
  readonly place: number | null
}

/** Of a COMPACTED whose status did not come. */
export const compactedText =
  'COMPACTED what came after the cursor is not kept any more: read the keys anew, and watch on from the cursor that comes with this'

const kinds: Readonly<Record<WatchChange_Kind, ChangeKind>> = {
  [WatchChange_Kind.SET]: 'set',
  [WatchChange_Kind.DELETE]: 'delete',
  [WatchChange_Kind.EXPIRE]: 'expire',
}

export class WatchState {
  private readonly places = new Map<number, number>()
  /** Of the entry whose rest has not come. */
  private cut: WatchChange[] = []
  isCreated = false
  /** The node said that it is over, and `cursor` is where to go on. */
  isCompacted = false

  constructor(from: WatchCursor | null) {
    for (const [shard, place] of Object.entries(from ?? {})) this.places.set(Number(shard), place)
  }

  get cursor(): WatchCursor {
    return Object.fromEntries(this.places)
  }

  /** For the wire. */
  get asked(): { [shard: number]: bigint } {
    return Object.fromEntries([...this.places].map(([shard, place]) => [shard, BigInt(place)]))
  }

  /** The call broke off. */
  broken(): void {
    this.cut = []
  }

  /** What a message brought; `progress` moves the cursor alone. */
  take({ news }: WatchResponse): readonly ReceivedChange[] {
    // Of a release that knows more kinds.
    if (news === undefined) return []
    switch (news.$case) {
      case 'changes': {
        const { shard, isCut, place } = news.value
        let changes = [...this.cut, ...news.value.changes]
        this.cut = []
        if (isCut) {
          const last = changes.at(-1)?.index
          this.cut = changes.filter(each => each.index === last)
          changes = changes.filter(each => each.index !== last)
        }
        this.places.set(shard, Number(place))
        return changes.map((each, i) => {
          const next = changes[i + 1]
          const isLast = next?.index !== each.index
          return received(
            shard,
            each,
            next === undefined ? Number(place) : isLast ? Number(each.index) : null,
          )
        })
      }
      default:
        for (const [shard, place] of Object.entries(news.value.places))
          this.places.set(Number(shard), Number(place))
        if (news.$case === 'created') this.isCreated = true
        if (news.$case === 'compacted') this.isCompacted = true
        return []
    }
  }
}

function received(shard: number, change: WatchChange, place: number | null): ReceivedChange {
  const { index, number, kind, key, type, timestampMs, value } = change
  return {
    shard,
    index: Number(index),
    number,
    kind: kinds[kind],
    key,
    type,
    timestampMs: Number(timestampMs),
    value: value ?? null,
    place,
  }
}
