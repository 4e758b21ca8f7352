/**
 * Messages of a call, all that came meanwhile together: what a log sends record by record goes on in batches, the larger
 * the longer each takes. From `bytesMax` on the call is paused, and HTTP/2's windows hold the sender back.
 */
import type { ClientReadableStream } from '@grpc/grpc-js'

/** Ends with the call, with all that came before; throws what the call ended with. */
export async function* gathered<Message>(
  call: ClientReadableStream<Message>,
  bytesOf: (message: Message) => number,
  bytesMax: number,
): AsyncGenerator<readonly Message[]> {
  let waiting: Message[] = []
  let bytes = 0
  let isOver = false
  let failure = null as Error | null
  let wake = () => {}
  call.on('data', (message: Message) => {
    waiting.push(message)
    bytes += bytesOf(message)
    if (bytes >= bytesMax) call.pause()
    wake()
  })
  call.on('error', error => {
    failure = error
    wake()
  })
  call.on('end', () => {
    isOver = true
    wake()
  })
  for (;;) {
    const some = waiting
    waiting = []
    bytes = 0
    if (some.length > 0) {
      call.resume()
      yield some
    } else if (failure !== null) throw failure
    else if (isOver) return
    else
      await new Promise<void>(resolve => {
        wake = resolve
      })
  }
}
