/**
 * A place in a log by (index, term), which names the whole log up to it (log matching, Raft §5.3), as the context of a
 * vote's answer carries it: granted, the candidate's last entry as it was asked about; refused, the last entry that the
 * voter knows to be committed.
 *
 *   0                8               16
 *   ┌───────────────┬───────────────┐
 *   │ index, u64 BE │ term, u64 BE  │
 *   └───────────────┴───────────────┘
 */
const positionBytes = 16

export function encodePosition(index: number, term: number): Uint8Array {
  const bytes = new Uint8Array(positionBytes)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, BigInt(index))
  view.setBigUint64(8, BigInt(term))
  return bytes
}

/** null when it is none: it may come from anywhere. */
export function decodePosition(bytes: Uint8Array): { readonly index: number; readonly term: number } | null {
  if (bytes.byteLength !== positionBytes) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, positionBytes)
  const index = Number(view.getBigUint64(0))
  const term = Number(view.getBigUint64(8))
  return Number.isSafeInteger(index) && Number.isSafeInteger(term) ? { index, term } : null
}
