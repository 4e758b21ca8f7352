/**
 * Bad input from good input: bytes that a real encoder wrote, damaged so that decoders get past their first checks. One
 * draw of a Prng decides each step, so a seed and a number name an input for ever.
 *
 * Damage follows what decoders get wrong: bits flip, ends are cut off, ranges are doubled, left out and swapped, two
 * inputs are spliced, and numbers, above all lengths, go to their extremes in every width and order they are written in.
 */
import type { Bytes } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'

/** Longer inputs are cut to this, so that doubling does not run away. */
export const inputBytesMax = 64 * 1024
/** Steps of damage on one input. */
const stepsMax = 5

/** Where limits, signs and widths end. */
const integers = [
  0,
  1,
  2,
  0x7f,
  0x80,
  0xff,
  0x100,
  0x7fff,
  0x8000,
  0xffff,
  2 ** 20,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 52,
  2 ** 53 - 1,
  2 ** 53,
].map(BigInt)
const wide = [...integers, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]

/** As protobuf and our own codecs write it; `padding` are zero groups that no writer adds. */
function varint(value: bigint, padding: number): Bytes {
  const bytes: number[] = []
  for (let rest = value; ; ) {
    const low = Number(rest & 0x7fn)
    rest >>= 7n
    if (rest === 0n) {
      bytes.push(low)
      break
    }
    bytes.push(low | 0x80)
  }
  for (let i = 0; i < padding; i++) {
    bytes[bytes.length - 1]! |= 0x80
    bytes.push(0)
  }
  return Uint8Array.from(bytes)
}

/** An extreme number in one of the forms in which formats here write numbers. */
function extreme(random: Prng): Bytes {
  const value = wide[random.below(wide.length)]!
  const buffer = Buffer.alloc(8)
  switch (random.below(7)) {
    case 0:
      return Uint8Array.of(Number(value & 0xffn))
    case 1:
      buffer.writeUInt16LE(Number(value & 0xffffn))
      return buffer.subarray(0, 2)
    case 2:
      buffer.writeUInt32LE(Number(value & 0xffff_ffffn))
      return buffer.subarray(0, 4)
    case 3:
      buffer.writeBigUInt64LE(value)
      return buffer
    case 4:
      buffer.writeBigUInt64BE(value)
      return buffer
    case 5: {
      const odd = [Number(value), -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]
      buffer.writeDoubleLE(odd[random.below(odd.length)]!)
      return buffer
    }
    default:
      return varint(value, random.below(8) === 0 ? random.below(4) : 0)
  }
}

/** Of texts: what parsers of JSON, YAML, TOML, EDN and of settings trip over. */
export const textTokens: readonly Bytes[] = [
  ...['null', 'true', '-1', '0', '1e999', '-0', '9007199254740993', '1.5', 'NaN', '{}', '[]', '[', '{', ']'],
  ...[
    '}',
    '"',
    "'",
    '\\',
    '\\u0000',
    '\\ud800',
    '"__proto__":',
    '"constructor"',
    '"toString"',
    ',',
    ':',
    '=',
  ],
  ...['\n', '\r\n', '\t', '\0', '  - ', '- - - ', '? ', '&a', '*a', '<<: *a', '!!js/function ', '#', '---\n'],
  ...['[[a]]\n', '"""', "'''", '1979-05-27T07:32:00Z', '0x', '$HOME', '\u2028', '\ufeff', 'é', '\u{1f600}'],
].map(each => Buffer.from(each))
const tokens = [
  ...textTokens,
  Uint8Array.of(0xff),
  Uint8Array.of(0xc0, 0x80),
  Uint8Array.of(0xed, 0xa0, 0x80),
]

export interface MutatorOptions {
  /** Inserts words of text formats as well. */
  readonly isText?: boolean
  readonly inputBytesMax?: number
}

export class Mutator {
  private readonly corpus: readonly Bytes[]
  private readonly isText: boolean
  private readonly bytesMax: number

  /** `corpus` is what real encoders wrote; at least one, the more kinds the better. */
  constructor(corpus: readonly Bytes[], options: MutatorOptions = {}) {
    this.corpus = corpus
    this.isText = options.isText === true
    this.bytesMax = options.inputBytesMax ?? inputBytesMax
  }

  /** The next input, a copy: mostly damaged, one in 32 nothing but noise, one in 64 as it was written. */
  next(random: Prng): Uint8Array {
    const kind = random.below(64)
    if (kind === 0) return Uint8Array.from(this.pick(random))
    if (kind <= 2) return random.bytes(random.below(1 + 2 ** random.below(11)))
    let bytes: Uint8Array = Uint8Array.from(this.pick(random))
    for (let steps = 1 + random.below(stepsMax); steps > 0; steps--) bytes = this.damaged(bytes, random)
    return bytes.byteLength > this.bytesMax ? bytes.slice(0, this.bytesMax) : bytes
  }

  private pick(random: Prng): Bytes {
    return this.corpus[random.below(this.corpus.length)]!
  }

  private damaged(bytes: Uint8Array, random: Prng): Uint8Array {
    const { length } = bytes
    const at = random.below(length + 1)
    switch (random.below(this.isText ? 12 : 10)) {
      case 0:
      case 1:
        if (length > 0) bytes[at % length]! ^= 1 << random.below(8)
        return bytes
      case 2:
        if (length > 0) bytes[at % length] = random.below(256)
        return bytes
      case 3:
        return bytes.slice(0, at)
      case 4:
        return replaced(bytes, at, this.range(length - at, random), new Uint8Array(0))
      case 5: {
        const from = random.below(length + 1)
        return replaced(bytes, at, 0, bytes.slice(from, from + this.range(length - from, random)))
      }
      case 6: {
        const other = this.pick(random)
        return replaced(bytes, at, length - at, other.subarray(random.below(other.byteLength + 1)))
      }
      case 7: {
        // Over what stands there: positions behind it stay where they were.
        const number = extreme(random)
        return replaced(bytes, at, number.byteLength, number)
      }
      case 8: {
        // Instead of one byte: where that was a varint of one, the number behind its tag is another.
        return replaced(bytes, at, 1, extreme(random))
      }
      case 9: {
        const moved = this.range(length - at, random)
        const piece = bytes.slice(at, at + moved)
        const rest = replaced(bytes, at, moved, new Uint8Array(0))
        return replaced(rest, random.below(rest.byteLength + 1), 0, piece)
      }
      default:
        return replaced(
          bytes,
          at,
          random.below(2) * this.range(length - at, random),
          tokens[random.below(tokens.length)]!,
        )
    }
  }

  /** Short ranges more often than long ones. */
  private range(max: number, random: Prng): number {
    return Math.min(max, random.below(1 + 2 ** random.below(10)))
  }
}

function replaced(bytes: Uint8Array, at: number, removed: number, inserted: Bytes): Uint8Array {
  const end = Math.min(bytes.byteLength, at + removed)
  const out = new Uint8Array(at + inserted.byteLength + bytes.byteLength - end)
  out.set(bytes.subarray(0, at))
  out.set(inserted, at)
  out.set(bytes.subarray(end), at + inserted.byteLength)
  return out
}

const oddValues: readonly unknown[] = [
  ...[null, true, false, 0, 1, -1, -0, 0.5, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e300, '', 'x', 'node1'],
  ...['\ud800', '__proto__', 'x'.repeat(2_000), [], {}, [[]], [null], [1, 2], [{}], { length: 2 ** 31 }],
  ...[
    { voters: null },
    [{ node: 1 }],
    [{ node: 'node1', replica: 'x' }],
    JSON.parse('{"__proto__":{"a":1}}'),
  ],
]

/**
 * A value that JSON can carry, with parts of it replaced, left out or doubled: what a peer of another release, or a
 * liar, sends where bytes alone would only break the JSON.
 */
export function damagedJson(value: unknown, random: Prng): unknown {
  if (random.below(12) === 0) return oddValues[random.below(oddValues.length)]
  if (Array.isArray(value)) {
    const copy: unknown[] = value.map(each => (random.below(3) === 0 ? damagedJson(each, random) : each))
    if (random.below(6) === 0) copy.splice(random.below(copy.length + 1), random.below(3))
    if (random.below(6) === 0) copy.push(oddValues[random.below(oddValues.length)])
    if (random.below(12) === 0) copy.push(...copy)
    return copy
  }
  if (typeof value === 'object' && value !== null) {
    const copy: Record<string, unknown> = {}
    for (const [key, each] of Object.entries(value)) {
      if (random.below(10) === 0) continue
      copy[key] = random.below(3) === 0 ? damagedJson(each, random) : each
    }
    if (random.below(8) === 0) copy[`extra${random.below(3)}`] = oddValues[random.below(oddValues.length)]
    return copy
  }
  return oddValues[random.below(oddValues.length)]
}
