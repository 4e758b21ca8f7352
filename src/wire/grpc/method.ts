/**
 * What all methods of the server share: requests arrive with their size and their own error where they are broken, and
 * responses leave as bytes, so that neither a decoding nor an encoding error is thrown inside grpc-js, which would answer
 * INTERNAL and tell nobody.
 */
import type { MethodDefinition } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import type { Bytes } from '../../lib/bytes.ts'
import { callLimits } from '../../peer/call-codec.ts'
import { type Decoder, decodeMessage, hasMoreFields } from '../../peer/proto-io.ts'
import { type GrpcStatus, isExpected, statusOf } from '../../peer/status.ts'
import type { CallMemory } from './connections.ts'
import { grpcLimits } from './options.ts'
import type { Sized } from './ordered-window.ts'

/** A request as it came, or why it is none. */
export type Arrived<Message> = Sized &
  (
    | { readonly message: Message; readonly error: null }
    | { readonly message: null; readonly error: RoundhouseError }
  )

/** Fields of a request, arguments among them: the arguments' own limit is told by their number, this by its kind. */
const fieldsMax = callLimits.argumentsMax + 100

/** The method with our ways in and out. `sizeOf` adds what the answer will weigh, where the request says so. */
export function rawMethod<Message>(
  method: { readonly path: string; readonly requestStream: boolean; readonly responseStream: boolean },
  type: Decoder<Message>,
  sizeOf: (message: Message) => number = () => 0,
): MethodDefinition<Arrived<Message>, Buffer> {
  return {
    path: method.path,
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: () => {
      throw new Error(`${method.path} is served here, not called`)
    },
    requestDeserialize: bytes => arrive(bytes, type, method.path, sizeOf),
    responseSerialize: bytes => bytes,
    responseDeserialize: bytes => bytes,
  }
}

function arrive<Message>(
  bytes: Bytes,
  type: Decoder<Message>,
  path: string,
  sizeOf: (message: Message) => number,
): Arrived<Message> {
  const max = grpcLimits.requestBytesMax
  if (bytes.length > max) {
    const error = new RoundhouseError('TOO_LARGE', { what: 'request', bytes: bytes.length, max })
    return { message: null, error, bytes: bytes.length }
  }
  if (hasMoreFields(bytes, fieldsMax)) {
    const accepted = `at most ${fieldsMax} fields`
    const error = new RoundhouseError('INVALID_ARGUMENT', { what: 'request', accepted })
    return { message: null, error, bytes: bytes.length }
  }
  try {
    const message = decodeMessage(type, bytes)
    return { message, error: null, bytes: bytes.length + sizeOf(message) }
  } catch {
    const error = new RoundhouseError('INVALID_ARGUMENT', {
      what: 'request',
      accepted: `the protobuf message of ${path}, its strings in UTF-8`,
    })
    return { message: null, error, bytes: bytes.length }
  }
}

/** Ends a unary call: with a refusal, or null and the bytes of a message. grpc-js's own callback is one. */
export type Answer = (refusal: GrpcStatus | null, message?: Buffer) => void

export type OnUnexpected = (error: unknown) => void

/** Ends a unary call with an error; what was not expected is reported and its text kept inside. */
export function fail(callback: Answer, memory: CallMemory, error: unknown, onUnexpected: OnUnexpected): void {
  if (!isExpected(error)) onUnexpected(error)
  const status = statusOf(error)
  memory.answered(status.details.length)
  callback(status)
}

/** Runs `answer` and sends what it encodes, or its error. */
export function respond(
  callback: Answer,
  memory: CallMemory,
  onUnexpected: OnUnexpected,
  answer: () => Promise<Buffer> | Buffer,
): void {
  const send = (bytes: Buffer) => {
    memory.answered(bytes.byteLength)
    callback(null, bytes)
  }
  try {
    const answered = answer()
    if (answered instanceof Promise) answered.then(send, error => fail(callback, memory, error, onUnexpected))
    else send(answered)
  } catch (error) {
    fail(callback, memory, error, onUnexpected)
  }
}
