import { type Envelope, encodeEnvelope, envelopeBytes, writeEnvelope } from '../commands/envelope.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import type { Bytes } from '../lib/bytes.ts'

/**
 * The entries of one turn of one replica, small ones written one after the other into one array: they come and go together,
 * and an array each would cost more than its bytes.
 */
export class EntryWriter {
  private readonly writer = new ByteWriter(spareBytes)
  /** Where each small entry ends; a long one is its own. */
  private readonly made: (number | Bytes)[] = []

  /** Answers the entry's bytes. */
  add(envelope: Envelope): number {
    if (envelopeBytes(envelope) > smallBytesMax) {
      const entry = encodeEnvelope(envelope)
      this.made.push(entry)
      return entry.byteLength
    }
    const from = this.writer.written
    writeEnvelope(this.writer, envelope)
    this.made.push(this.writer.written)
    return this.writer.written - from
  }

  /** The entries, in the order in which they were added. Ends the writer. */
  finish(): Bytes[] {
    const small = this.writer.finish()
    let from = 0
    return this.made.map(made => {
      if (typeof made !== 'number') return made
      const entry = small.subarray(from, made)
      from = made
      return entry
    })
  }
}

/** What most turns need. */
const spareBytes = 4 * 1024
/** Copying more than this once more costs more than an array of its own. */
const smallBytesMax = 2 * 1024
