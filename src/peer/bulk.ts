/**
 * Chunks of snapshots from one peer: a StreamCommand of its own on a connection of its own. Answers come in the order of
 * the requests, so a queue of those who wait is all the bookkeeping. A stream that fails or is late fails all of them; they
 * ask again and go on where they stopped.
 */
import { type ClientDuplexStream, Metadata, type ServiceError } from '@grpc/grpc-js'
import { isErrorCode, RemoteError, RoundhouseError } from '../errors.ts'
import { CommandRequest, CommandResponse } from '../gen/clusterpb/cluster.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import { crc32 } from '../lib/crc.ts'
import { type Deferred, deferred } from '../lib/deferred.ts'
import type { Transfer } from '../node/ports.ts'
import { writeTransfer } from './call-codec.ts'
import { cancelSoon } from './cancel.ts'
import type { Channel } from './channel.ts'
import { decodeMessage, encodeMessage } from './proto-io.ts'

const path = '/clusterpb.ClusterNode/StreamCommand'

interface Waiting {
  readonly transfer: Transfer
  readonly chunk: Deferred<Bytes>
  readonly cancelTimeout: () => void
}

export class BulkStream {
  private readonly channel: Channel
  private readonly clock: Clock
  private readonly stream: ClientDuplexStream<Buffer, Buffer>
  private readonly call: { readonly neverSent: () => boolean; readonly end: () => void }
  private readonly waiting: Waiting[] = []
  private readonly onEnd: () => void
  private isOver = false
  private askedAtMs = 0

  /** `onEnd` is called once, when no chunk can come over it any more. */
  constructor(channel: Channel, clock: Clock, onEnd: () => void) {
    this.channel = channel
    this.clock = clock
    this.onEnd = onEnd
    this.call = channel.begin()
    const raw = (bytes: Buffer) => bytes
    this.stream = channel.client.makeBidiStreamRequest(path, raw, raw, new Metadata(), {})
    this.stream.on('data', (bytes: Buffer) => this.settle(bytes))
    this.stream.on('error', (error: ServiceError) =>
      this.finish(channel.failure(error, this.call.neverSent(), 'StreamCommand', 0)),
    )
    this.stream.on('end', () => this.finish(this.closed()))
  }

  /** For how long nothing was asked, ms. */
  get idleMs(): number {
    return this.waiting.length > 0 ? 0 : this.clock.now() - this.askedAtMs
  }

  fetch(transfer: Transfer, timeoutMs: number): Promise<Bytes> {
    if (this.isOver) return Promise.reject(this.closed())
    this.askedAtMs = this.clock.now()
    const chunk = deferred<Bytes>()
    const cancelTimeout = this.clock.after(timeoutMs, () => {
      const { snapshot, part, position } = transfer
      const what = `${snapshot}/${part} at ${position} from ${this.channel.address}`
      this.finish(new RoundhouseError('DEADLINE', { afterMs: timeoutMs, what }))
    })
    this.waiting.push({ transfer, chunk, cancelTimeout })
    this.stream.write(encodeMessage(CommandRequest, writeTransfer(transfer)))
    return chunk.promise
  }

  close(): void {
    this.finish(this.closed())
  }

  private settle(bytes: Buffer): void {
    const next = this.waiting.shift()
    if (next === undefined) {
      this.finish(this.broken('an answer that nobody asked for'))
      return
    }
    next.cancelTimeout()
    try {
      next.chunk.resolve(this.check(bytes, next.transfer))
    } catch (error) {
      next.chunk.reject(error instanceof Error ? error : this.broken(String(error)))
    }
  }

  private check(bytes: Buffer, { part, position, length }: Transfer): Bytes {
    const { error, code, response, id } = this.decode(bytes)
    if (error !== '') {
      if (isErrorCode(code)) throw new RemoteError(code, error)
      throw new RoundhouseError('OUTCOME_UNKNOWN', { why: `${this.channel.address}: ${error}` })
    }
    if (response?.$case !== 'value') throw this.broken('an answer without a chunk')
    const chunk = response.value
    const where = `${part} at ${position} from ${this.channel.address}`
    if (chunk.length > length) {
      throw new RoundhouseError('CORRUPT', {
        where,
        what: `${chunk.length} bytes came where ${length} were asked`,
      })
    }
    if (BigInt(crc32(chunk)) !== id)
      throw new RoundhouseError('CORRUPT', { where, what: 'the checksum differs' })
    return chunk
  }

  private decode(bytes: Buffer): CommandResponse {
    try {
      return decodeMessage(CommandResponse, bytes)
    } catch {
      throw this.broken('an answer that is no protobuf clusterpb.CommandResponse')
    }
  }

  private finish(error: Error): void {
    if (this.isOver) return
    this.isOver = true
    cancelSoon(this.stream)
    for (const { chunk, cancelTimeout } of this.waiting.splice(0)) {
      cancelTimeout()
      chunk.reject(error)
    }
    this.call.end()
    this.onEnd()
  }

  private closed(): RoundhouseError {
    return new RoundhouseError('UNREACHABLE', { address: this.channel.address, why: 'the stream was closed' })
  }

  private broken(what: string): RoundhouseError {
    return new RoundhouseError('CORRUPT', { where: `the stream from ${this.channel.address}`, what })
  }
}
