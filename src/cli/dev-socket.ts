/**
 * How `dev add-node` talks to the running `dev start`: a Unix socket in the data directory, one JSON object a line.
 * The socket is also what keeps a second `dev start` off the same data. A socket file that nobody listens on was left
 * by a supervisor that was killed; it is taken over. (Two starts in the same instant could both do so; the nodes'
 * ports and locks stop the second of them.)
 *
 *   → {"kind":"who"}       ← {"kind":"who","pid":123}
 *   → {"kind":"add-node"}  ← {"kind":"progress","text":"…"} …  ← {"kind":"added","node":"node4","address":"…"}
 *                                                        or  ← {"kind":"failed","why":"…"}
 */
import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { Lines } from './log-file.ts'

export type SupervisorRequest = { readonly kind: 'who' } | { readonly kind: 'add-node' }

export type SupervisorAnswer =
  | { readonly kind: 'who'; readonly pid: number }
  | { readonly kind: 'progress'; readonly text: string }
  | { readonly kind: 'added'; readonly node: string; readonly address: string }
  | { readonly kind: 'failed'; readonly why: string }

/** sockaddr_un holds 108 bytes with the final zero on Linux, 104 on macOS. */
const pathBytesMax = 100
const whoMsMax = 2_000

/** `DATA/dev.sock`, or, where that is too long for a socket, a name in the temporary directory made from the path. */
export function socketPath(dataDir: string): string {
  const absolute = join(resolve(dataDir), 'dev.sock')
  const fits = [absolute, relative(process.cwd(), absolute)].find(
    path => Buffer.byteLength(path) <= pathBytesMax,
  )
  const digest = createHash('sha256').update(absolute).digest('hex').slice(0, 24)
  return fits ?? join(tmpdir(), `roundhouse-${digest}.sock`)
}

/** Asks and waits for the last answer; null when nobody listens. */
export function ask(
  path: string,
  request: SupervisorRequest,
  onProgress: (text: string) => void,
  signal?: AbortSignal,
): Promise<SupervisorAnswer | null> {
  return new Promise((settle, reject) => {
    const socket = createConnection(path)
    const stop = () => socket.destroy(new Error('interrupted'))
    const finish = (answer: SupervisorAnswer | null) => {
      signal?.removeEventListener('abort', stop)
      socket.destroy()
      settle(answer)
    }
    signal?.addEventListener('abort', stop, { once: true })
    if (request.kind === 'who') socket.setTimeout(whoMsMax, () => socket.destroy(new Error('no answer')))
    const lines = new Lines(line => {
      const answer: SupervisorAnswer = JSON.parse(line)
      if (answer.kind === 'progress') onProgress(answer.text)
      else finish(answer)
    })
    socket.on('connect', () => socket.write(`${JSON.stringify(request)}\n`))
    socket.on('data', chunk => lines.push(chunk))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED' || error.code === 'ENOTSOCK') finish(null)
      else reject(error)
    })
    socket.on('close', () => reject(new Error('npm start ended before it answered')))
  })
}

export type SupervisorHandler = (
  request: SupervisorRequest,
  answer: (answer: SupervisorAnswer) => void,
) => void

/** Listens, or answers with the pid of the supervisor that already does. */
export async function listen(
  path: string,
  handle: SupervisorHandler,
): Promise<Server | { readonly pid: number }> {
  const other = await ask(path, { kind: 'who' }, () => {})
  if (other?.kind === 'who') return { pid: other.pid }
  rmSync(path, { force: true })
  const server = createServer(socket => converse(socket, handle))
  await new Promise<void>((done, reject) => {
    server.once('error', reject)
    server.listen(path, done)
  })
  return server
}

function converse(socket: Socket, handle: SupervisorHandler): void {
  const answer = (message: SupervisorAnswer) => {
    if (socket.writable) socket.write(`${JSON.stringify(message)}\n`)
  }
  const lines = new Lines(line => {
    try {
      const request: SupervisorRequest = JSON.parse(line)
      handle(request, answer)
    } catch {
      socket.destroy()
    }
  })
  socket.on('data', chunk => lines.push(chunk))
  // The asker may go away at any time; what it asked for goes on.
  socket.on('error', () => socket.destroy())
}
