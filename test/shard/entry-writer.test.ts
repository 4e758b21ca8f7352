import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { decodeEnvelope, type Envelope, encodeEnvelope } from '../../src/commands/envelope.ts'
import { EntryWriter } from '../../src/shard/entry-writer.ts'

const envelopeOf = (bytes: number, stamp: number): Envelope => ({
  timestampMs: stamp,
  session:
    stamp % 3 === 0 ? { id: new Uint8Array(16).fill(stamp), sequence: stamp + 1, ackedBelow: 0 } : null,
  operations: [{ command: 'SET', args: [new Uint8Array(16).fill(1), new Uint8Array(bytes).fill(stamp)] }],
})

describe('entry writer', () => {
  it('makes of each envelope the bytes that it has by itself, long and short ones in their order', () => {
    const lengths = [0, 128, 2_500, 1, 1_900, 100_000, 128, ...Array.from({ length: 200 }, () => 1_000)]
    const envelopes = lengths.map(envelopeOf)
    const writer = new EntryWriter()
    const counted = envelopes.map(envelope => writer.add(envelope))
    const entries = writer.finish()
    assert.deepEqual(
      entries.map(entry => Buffer.from(entry)),
      envelopes.map(envelope => Buffer.from(encodeEnvelope(envelope))),
    )
    assert.deepEqual(
      entries.map(entry => entry.byteLength),
      counted,
    )
    for (const [i, entry] of entries.entries())
      assert.equal(decodeEnvelope(entry).timestampMs, envelopes[i]!.timestampMs)
  })

  it('makes nothing of nothing', () => {
    assert.deepEqual(new EntryWriter().finish(), [])
  })
})
