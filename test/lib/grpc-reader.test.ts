import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { grpcFrame } from '../../src/lib/grpc-frame.ts'
import { GrpcReader, type Unreadable } from '../../src/lib/grpc-reader.ts'

class Refused extends Error {
  readonly why: Unreadable

  constructor(why: Unreadable) {
    super('refused')
    this.why = why
  }
}

const reader = (bytesMax = 100_000) => new GrpcReader(bytesMax, why => new Refused(why))

/** Cuts `bytes` into pieces of these lengths, again and again. */
function* pieces(bytes: Buffer, lengths: readonly number[]): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes.byteLength; i++) {
    const length = lengths[i % lengths.length]!
    // A buffer of its own each, as from a socket: what is kept must not be a view of another.
    yield Buffer.from(bytes.subarray(at, at + length))
    at += length
  }
}

describe('messages of gRPC', () => {
  it('come out as they were, in whatever pieces, looked for after each piece or now and then', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 3000 }), { maxLength: 12 }),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 6000 })), {
          minLength: 1,
        }),
        fc.integer({ min: 1, max: 40 }),
        (messages, lengths, every) => {
          const all = Buffer.concat(messages.map(each => grpcFrame(each)))
          const read = reader()
          const found: Buffer[] = []
          const look = () => {
            for (let next = read.next(); next !== null; next = read.next()) found.push(next)
          }
          let count = 0
          for (const piece of pieces(all, lengths)) {
            read.push(piece)
            if (++count % every === 0) look()
          }
          look()
          assert.deepEqual(
            found.map(each => each.toString('hex')),
            messages.map(each => Buffer.from(each).toString('hex')),
          )
          assert.equal(read.isEmpty, true)
        },
      ),
    )
  })

  it('are refused as soon as their first bytes say what they are', () => {
    const large = reader(10)
    large.push(grpcFrame(Buffer.alloc(11)).subarray(0, 5))
    assert.throws(() => large.next(), { why: { bytes: 11, max: 10 } })
    const compressed = reader()
    compressed.push(Buffer.from([1, 0, 0, 0, 9]))
    assert.throws(() => compressed.next(), { why: 'compressed' })
  })

  it('take about their own length in memory, though they come byte by byte', () => {
    const read = reader(1_000_000)
    const message = grpcFrame(Buffer.alloc(1_000_000, 7))
    for (const piece of pieces(message.subarray(0, -1), [1])) read.push(piece)
    const parts = (read as unknown as { parts: readonly unknown[] }).parts.length
    assert.ok(parts <= message.byteLength / 4096 + 2, `${parts} parts`)
    read.push(message.subarray(-1))
    assert.equal(read.next()?.byteLength, 1_000_000)
  })
})
