/**
 * The lean client of both sides: one connection to one node, unary gRPC calls of messages that are bytes already. So
 * the only difference between the sides is what their servers make of a call. Where a node is killed, what is asked of it
 * fails at once, and once.
 */
import type { ChannelCredentials } from '@grpc/grpc-js'
import { Wire } from '../wire.ts'

export type RawAnswer = (failure: string | null, response: Uint8Array) => void

const nothing = new Uint8Array()

export class RawClient {
  private readonly wire: Wire

  constructor(address: string, credentials: ChannelCredentials) {
    this.wire = new Wire(address, credentials)
  }

  send(path: string, message: Uint8Array, answer: RawAnswer, msMax?: number): void {
    let response: Uint8Array = nothing
    const call = this.wire.call(path, {
      message: bytes => {
        response = bytes
      },
      end: failure => {
        clearTimeout(timer)
        answer(failure, failure === null ? response : nothing)
      },
    })
    const late = () => {
      call.cancel()
      answer(`DEADLINE_EXCEEDED: no answer within ${msMax} ms`, nothing)
    }
    const timer = msMax === undefined ? undefined : setTimeout(late, msMax)
    call.send(message)
    call.finish()
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
    this.wire.close()
  }
}
