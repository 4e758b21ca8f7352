/** Varints (LEB128) of safe integers ≥ 0, for who writes into bytes of a size that is known before. */

/** How many bytes `value` takes: seven bits a byte. */
export function varintBytes(value: number): number {
  let bytes = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++
  return bytes
}

/** Answers where it ends. */
export function writeVarint(out: Uint8Array, at: number, value: number): number {
  let next = at
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) out[next++] = (rest % 0x80) | 0x80
  out[next++] = rest
  return next
}
