/**
 * HPACK's Huffman code (RFC 7541, appendix B), reading only: what we send is short and goes as it is. The code is canonical:
 * of equal lengths, codes grow with their symbols, and each length goes on where the shorter one ended. So the lengths say
 * it all.
 */

/** Bits of the code of each byte; the last is the end of a string, which must not stand in one. */
const lengths = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28,
  28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7,
  8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19,
  13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
  28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21,
  22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23,
  22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25,
  25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
]
const endOfString = 256
const longest = 30

/** Symbols by length, then by value; `starts[n]` is where those of n bits begin, `firstCodes[n]` the code of the first. */
const symbols = lengths.map((_, symbol) => symbol).sort((a, b) => lengths[a]! - lengths[b]! || a - b)
const starts = new Uint16Array(longest + 2)
const firstCodes = new Uint32Array(longest + 2)
for (let bits = 1, code = 0, at = 0; bits <= longest; bits++) {
  code *= 2
  starts[bits] = at
  firstCodes[bits] = code
  while (at < symbols.length && lengths[symbols[at]!] === bits) {
    at++
    code++
  }
  starts[bits + 1] = at
}

/** A byte takes five bits at least. */
function decodedBytesMax(bytes: number): number {
  return Math.ceil((bytes * 8) / 5)
}

/** What `bytes` from `from` to `to` stand for; null where they are not of the code. */
export function decodeHuffman(bytes: Uint8Array, from: number, to: number): Buffer | null {
  const decoded = Buffer.allocUnsafe(decodedBytesMax(to - from))
  let length = 0
  let code = 0
  let bits = 0
  for (let at = from; at < to; at++) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((bytes[at]! >> bit) & 1)
      bits++
      const nth = code - firstCodes[bits]!
      if (nth < 0 || nth >= starts[bits + 1]! - starts[bits]!) {
        if (bits === longest) return null
        continue
      }
      const symbol = symbols[starts[bits]! + nth]!
      if (symbol === endOfString) return null
      decoded[length++] = symbol
      code = 0
      bits = 0
    }
  }
  // The last byte is filled with ones, of which no more than seven (section 5.2).
  const isPadding = bits < 8 && code === 2 ** bits - 1
  return isPadding ? decoded.subarray(0, length) : null
}
