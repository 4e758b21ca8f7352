/**
 * The lean client of both sides: one connection to one node, unary gRPC calls of messages that are bytes already. So
 * the only difference between the sides is what their servers make of a call.
 */
import { type ChannelCredentials, Client, Metadata, type ServiceError } from '@grpc/grpc-js'
import { channelOptions, failureOf } from '../lane.ts'

const asBuffer = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const asIs = (bytes: Buffer) => bytes
const noMetadata = new Metadata()

export type RawAnswer = (failure: string | null, response: Uint8Array) => void

const nothing = new Uint8Array()

export class RawClient {
  private readonly client: Client

  constructor(address: string, credentials: ChannelCredentials) {
    // Where a node is killed: what is asked of it fails at once, and once.
    this.client = new Client(address, credentials, {
      ...channelOptions,
      'grpc.enable_retries': 0,
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 100,
    })
  }

  send(path: string, message: Uint8Array, answer: RawAnswer, msMax?: number): void {
    const options = msMax === undefined ? {} : { deadline: Date.now() + msMax }
    const end = (error: ServiceError | null, response?: Buffer) =>
      error === null ? answer(null, response ?? nothing) : answer(failureOf(error), nothing)
    this.client.makeUnaryRequest(path, asBuffer, asIs, message, noMetadata, options, end)
  }

  /** Rejects with what the server said. */
  ask(path: string, message: Uint8Array, msMax: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const end: RawAnswer = (failure, response) =>
        failure === null ? resolve(response) : reject(new Error(failure))
      this.send(path, message, end, msMax)
    })
  }

  close(): void {
    this.client.close()
  }
}
