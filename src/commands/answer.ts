import { type FactsOf, isErrorCode, RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import { ByteReader, Malformed } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Reply } from './command.ts'
import { readReply, writeReply } from './reply-codec.ts'

/** What became of an entry: a reply for each operation, or one refusal for all of them. */
export type Answer = { readonly revision: number } & (
  | { readonly kind: 'replies'; readonly replies: readonly Reply[] }
  /** Nothing was applied. `operation` is the place of the one that was refused. */
  | { readonly kind: 'refused'; readonly error: RoundhouseError; readonly operation: number }
)

/**
 * An answer as a session keeps it for the client that asks again.
 *
 * ```
 *  varint revision, kind 1 byte, then
 *    0 replies   varint count, replies (reply-codec.ts)
 *    1 refused   varint operation, sized code, sized facts as JSON
 *    2 applied   varint count: the replies passed 4 KiB and are not kept
 * ```
 * An error is kept by its facts and not by its text: rows must be the same on all replicas, and nodes of two releases
 * may word an error differently. (A change of the *facts* needs a feature level, as any change of rows does.) Refusals
 * are kept at all because their client was told: a copy of the request that comes late must not be applied after that.
 */
export function encodeAnswer(answer: Answer): Bytes {
  const writer = new ByteWriter(32)
  writer.varint(answer.revision)
  if (answer.kind === 'refused') {
    writer.byte(1)
    writer.varint(answer.operation)
    writer.sized(fromUtf8(answer.error.code))
    writer.sized(fromUtf8(JSON.stringify(answer.error.facts)))
    return writer.finish()
  }
  writer.byte(0)
  writer.varint(answer.replies.length)
  let isKept = true
  for (const reply of answer.replies) {
    writeReply(writer, reply)
    isKept = writer.written <= limits.sessionReplyBytesMax
    // However many there are: what is not kept is not written down either.
    if (!isKept) break
  }
  if (isKept) return writer.finish()
  const applied = new ByteWriter(16)
  applied.varint(answer.revision)
  applied.byte(2)
  applied.varint(answer.replies.length)
  return applied.finish()
}

/** A reply that was not kept comes back as `success`. Throws CORRUPT. */
export function decodeAnswer(bytes: Bytes): Answer {
  try {
    return readAnswer(new ByteReader(bytes))
  } catch (error) {
    // Whatever it is: facts that are not those of the code are found where its text is made from them.
    throw new RoundhouseError('CORRUPT', { where: 'kept answer', what: (error as Error).message })
  }
}

function readAnswer(reader: ByteReader): Answer {
  const revision = reader.varint()
  const kind = reader.byte()
  if (kind > 2) throw new Malformed(`kind ${kind}`)
  if (kind === 1) {
    const operation = reader.varint()
    const code = toUtf8(reader.sized())
    if (!isErrorCode(code)) throw new Malformed(`error ${code}`)
    const facts = JSON.parse(toUtf8(reader.sized())) as FactsOf<typeof code>
    reader.end()
    return { kind: 'refused', revision, operation, error: new RoundhouseError(code, facts) }
  }
  const count = reader.varint()
  if (count > limits.operationsMax) throw new Malformed(`${count} replies`)
  const replies = Array.from(
    { length: count },
    (): Reply => (kind === 2 ? { kind: 'success', success: true } : readReply(reader)),
  )
  reader.end()
  return { kind: 'replies', revision, replies }
}
