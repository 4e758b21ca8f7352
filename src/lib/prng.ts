/**
 * Randomness as a port. Production draws from the platform; a simulation from one seed, so that a run can be repeated.
 */
export interface Random {
  /** A double in [0, 1). */
  next(): number
  /** An integer in [0, bound), bound ≤ 2^53. */
  below(bound: number): number
  bytes(length: number): Uint8Array
}

/** The platform's: not to be repeated, good enough for ids. */
export const systemRandom: Random = {
  next: () => Math.random(),
  below: bound => Math.floor(Math.random() * bound),
  bytes: length => crypto.getRandomValues(new Uint8Array(length)),
}

/** xoshiro128** (Blackman, Vigna 2018), seeded through splitmix32: small, fast, the same on every machine. */
export class Prng implements Random {
  private a: number
  private b: number
  private c: number
  private d: number

  constructor(seed: number) {
    let state = seed >>> 0
    const mix = () => {
      state = (state + 0x9e3779b9) >>> 0
      let z = state
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
      return (z ^ (z >>> 16)) >>> 0
    }
    this.a = mix()
    this.b = mix()
    this.c = mix()
    this.d = mix()
  }

  uint32(): number {
    const product = Math.imul(this.b, 5)
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0
    const t = this.b << 9
    this.c ^= this.a
    this.d ^= this.b
    this.b ^= this.c
    this.a ^= this.d
    this.c ^= t
    this.d = (this.d << 11) | (this.d >>> 21)
    return result
  }

  next(): number {
    return (this.uint32() * 2 ** 21 + (this.uint32() >>> 11)) / 2 ** 53
  }

  below(bound: number): number {
    return Math.floor(this.next() * bound)
  }

  bytes(length: number): Uint8Array {
    const out = new Uint8Array(length)
    for (let i = 0; i < length; i++) out[i] = this.uint32() & 0xff
    return out
  }

  /** A child generator: parts of a simulation draw from their own, so that one more draw here changes nothing there. */
  fork(): Prng {
    return new Prng(this.uint32())
  }
}
