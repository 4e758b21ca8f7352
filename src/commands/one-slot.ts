import { RoundhouseError } from '../errors.ts'
import { type Bytes, quote } from '../lib/bytes.ts'
import { slotOf } from '../lib/slot.ts'

/** Of commands that take two keys to be one entry. Throws CROSS_SHARD, which names both. */
export function checkOneSlot(first: Bytes, other: Bytes): void {
  const [firstSlot, otherSlot] = [slotOf(first), slotOf(other)]
  if (firstSlot === otherSlot) return
  throw new RoundhouseError('CROSS_SHARD', { first: quote(first), firstSlot, other: quote(other), otherSlot })
}
