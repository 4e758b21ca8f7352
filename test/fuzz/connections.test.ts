/**
 * Connections that are up to no good, on a real node: too large, too slow, half closed, of another protocol, too many, and
 * never read. All the while somebody else reads and must be answered; at the end the node holds about what it held before.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import { CommandRequest } from '../../src/gen/clusterpb/cluster.ts'
import { encodeMessage } from '../../src/peer/proto-io.ts'
import { grpcLimits } from '../../src/wire/grpc/options.ts'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { freePort, type NodeProcess, removeDirectory, temporaryDirectory } from '../lib/cluster-node.ts'
import { programPath } from '../lib/cluster-program.ts'

/** Connections that come and go. */
const connections = 10_000
const sessions = 1_000
const atOnce = 100
/** What the second half of a flood may add to what the first one has left: less than 10 kB a connection. */
const leakBytesMax = 48 * 2 ** 20
/** Resident more than before, at any time: the windows of a few clients who don't read, and a few large requests. */
const grownBytesMax = 256 * 2 ** 20
/** V8's heap: on a large machine it would let garbage lie until there are gigabytes of it. What leaks ends the node. */
const heapFlags = '--max-old-space-size=128 --max-semi-space-size=4'
const alone = { nodes: 1, shardCount: 4, runtime: [], env: { NODE_OPTIONS: heapFlags } }
const answerMsMax = 5_000

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const emptySettings = Buffer.from('000000040000000000', 'hex')
const isLinux = process.platform === 'linux'

function descriptors({ pid }: NodeProcess): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

function residentBytes({ pid }: NodeProcess): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024
}

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`

/** Somebody who has nothing to do with it: reads one key after another, and wants each answer. */
class Bystander {
  readonly times: number[] = []
  failure: Error | null = null
  private isOver = false
  private readonly done: Promise<void>

  constructor({ client }: Cluster, { address }: NodeProcess) {
    this.done = (async () => {
      while (!this.isOver) {
        const startedMs = performance.now()
        await client.run(address, { command: 'GET', key: 'k' }, answerMsMax)
        this.times.push(performance.now() - startedMs)
        await new Promise(resolve => setTimeout(resolve, 5))
      }
    })().catch((error: Error) => {
      this.failure = error
    })
  }

  async end(): Promise<string> {
    this.isOver = true
    await this.done
    if (this.failure !== null) throw this.failure
    const sorted = this.times.sort((a, b) => a - b)
    const at = (part: number) => `${sorted[Math.floor(part * (sorted.length - 1))]!.toFixed(1)} ms`
    return `${sorted.length} GETs beside it: p50 ${at(0.5)}, p99 ${at(0.99)}, worst ${at(1)}`
  }
}

/** Runs `trouble` beside a bystander; then the node has as many descriptors as before, and has logged no error. */
async function during(t: TestContext, cluster: Cluster, trouble: (node: NodeProcess) => Promise<void>) {
  const node = cluster.node(1)
  const descriptorsBefore = isLinux ? descriptors(node) : 0
  const before = isLinux ? residentBytes(node) : 0
  let most = before
  const watch = setInterval(() => {
    if (isLinux && node.isRunning) most = Math.max(most, residentBytes(node))
  }, 20)
  const bystander = new Bystander(cluster, node)
  try {
    await trouble(node)
  } finally {
    clearInterval(watch)
    t.diagnostic(await bystander.end())
  }
  assert.ok(node.isRunning)
  assert.doesNotMatch(node.output, /"level":"error"|Warning/)
  if (!isLinux) return
  t.diagnostic(`resident before ${mib(before)}, at most ${mib(most)}, after ${mib(residentBytes(node))}`)
  assert.ok(most - before < grownBytesMax, `it grew from ${mib(before)} to ${mib(most)}`)
  await eventually('its descriptors are as many as before', 10_000, () => {
    const now = descriptors(node)
    // A timer's or a compaction's file may be open just now.
    if (now > descriptorsBefore + 4) throw new Error(`${now}, there were ${descriptorsBefore}`)
    return true
  })
}

/** Whoever ends it, and however. */
function closed(socket: Socket, withinMs: number): Promise<boolean> {
  return new Promise(resolve => {
    const timer = setTimeout(() => {
      socket.destroy()
      resolve(false)
    }, withinMs)
    socket.on('error', () => {})
    socket.on('data', () => {})
    socket.once('close', () => {
      clearTimeout(timer)
      resolve(true)
    })
  })
}

const opened = (socket: Socket): Promise<Socket> =>
  new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket))
    socket.once('error', reject)
  })

/** `count` of them, `atOnce` at a time. */
async function many(count: number, work: () => Promise<void>): Promise<void> {
  let left = count
  const worker = async () => {
    while (left-- > 0) await work()
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

// --- gRPC by hand: its client library is too well-behaved -----------------------------------------------------------

const methodOf = (name: string) => ({
  ':method': 'POST',
  ':path': `/clusterpb.ClusterNode/${name}`,
  'content-type': 'application/grpc',
  te: 'trailers',
})

function framed(message: Uint8Array, length = message.byteLength): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(length, 1)
  return Buffer.concat([head, message])
}

const requestOf = (command: string, key = '') =>
  framed(encodeMessage(CommandRequest, CommandRequest.fromPartial({ command, key })))

function http2(node: NodeProcess): ClientHttp2Session {
  // Mebibytes; the default would end large requests before the node has said anything.
  const session = connectHttp2(`http://${node.address}`, { maxSessionMemory: 64 })
  session.on('error', () => {})
  return session
}

function request(session: ClientHttp2Session, method: string): ClientHttp2Stream {
  const stream = session.request(methodOf(method))
  stream.on('error', () => {})
  return stream
}

/** The stream's grpc-status; null when it was reset without one. */
function statusOf(stream: ClientHttp2Stream): Promise<number | null> {
  return new Promise(resolve => {
    let status: number | null = null
    const note = (headers: Record<string, unknown>) => {
      if (headers['grpc-status'] !== undefined) status = Number(headers['grpc-status'])
    }
    stream.on('response', note)
    stream.on('trailers', note)
    stream.on('data', () => {})
    stream.once('close', () => resolve(status))
  })
}

const ok = 0
const invalidArgument = 3

/** Of one write: enough of them for several checkpoints and files. */
const large = Buffer.alloc(64 * 1024)

const timed = { timeout: 60_000 }

describe('a node', () => {
  it('answers others while clients misbehave, and keeps nothing of them', timed, async t => {
    await Cluster.with(alone, async cluster => {
      const { client } = cluster
      const { address } = cluster.node(1)
      const large = 'x'.repeat(512 * 1024)
      await client
        .session()
        .write(() => address, { command: 'SET', key: 'k', args: ['v'] }, Date.now() + 10_000)
      await client
        .session()
        .write(() => address, { command: 'SET', key: 'large', args: [large] }, Date.now() + 10_000)
      const part = (name: string, trouble: (node: NodeProcess) => Promise<void>) =>
        t.test(name, sub => during(sub, cluster, trouble))

      await part('messages that are too large, or say so', async node => {
        const send = async (bytes: Buffer) => {
          const session = http2(node)
          const stream = request(session, 'RunCommand')
          const status = statusOf(stream)
          stream.end(bytes)
          await status
          session.destroy()
          return status
        }
        const arguments16MiB = Buffer.alloc(grpcLimits.requestBytesMax - 2)
        for (let at = 0; at < arguments16MiB.length; at += 2) arguments16MiB[at] = (3 << 3) | 2
        const tooLarge = Buffer.alloc(grpcLimits.requestBytesMax + 1)
        const farTooLarge = Buffer.alloc(grpcLimits.messageBytesMax + 1)
        assert.equal(await send(framed(arguments16MiB)), invalidArgument)
        assert.equal(await send(framed(tooLarge)), invalidArgument)
        // Refused while it still comes.
        assert.equal(await send(framed(farTooLarge)), invalidArgument)
        // Four gigabytes are promised, and a few bytes come.
        assert.equal(await send(framed(Buffer.alloc(100), 2 ** 32 - 1)), invalidArgument)
        // A message that is not there to its end is none.
        assert.notEqual(await send(framed(Buffer.alloc(10), 1_000)), ok)
      })

      await part('another protocol', async node => {
        const hello = Buffer.from(`1603010200010001fc0303${'ab'.repeat(505)}`, 'hex')
        const all = [
          Buffer.from('GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n'),
          Buffer.from(
            'POST /clusterpb.ClusterNode/RunCommand HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123456789',
          ),
          hello,
          Buffer.from('*2\r\n$3\r\nGET\r\n$1\r\nk\r\n'),
          Buffer.concat([preface, Buffer.from('ffffff0000ffffffff', 'hex'), Buffer.alloc(10_000)]),
        ]
        const ends = await Promise.all(
          [...all, ...all].map(async bytes => {
            const socket = await opened(connect(node.port, '127.0.0.1'))
            socket.write(bytes)
            return closed(socket, answerMsMax)
          }),
        )
        assert.deepEqual(
          ends,
          ends.map(() => true),
          'the node ends them',
        )
      })

      await part('a byte a second, and half-closed connections', async node => {
        const slow = await Promise.all(
          Array.from({ length: 50 }, () => opened(connect(node.port, '127.0.0.1'))),
        )
        // On a connection like any other: the request is what comes so slowly.
        const session = http2(node)
        const streams = Array.from({ length: 50 }, () => request(session, 'RunCommand'))
        const answers = streams.map(statusOf)
        const bytes = requestOf('GET', 'k')
        let sent = 0
        const drip = () => {
          for (const socket of slow) socket.write(preface.subarray(sent, sent + 1))
          for (const stream of streams) stream.write(bytes.subarray(sent, sent + 1))
          sent++
        }
        drip()
        const timer = setInterval(drip, 1_000)
        try {
          // The other side of theirs is closed before, or after, anything was said.
          const half = await Promise.all(
            Array.from({ length: 200 }, async (_, i) => {
              const socket = await opened(
                connect({ port: node.port, host: '127.0.0.1', allowHalfOpen: true }),
              )
              if (i % 2 === 0) socket.write(Buffer.concat([preface, emptySettings]))
              socket.end()
              return closed(socket, answerMsMax)
            }),
          )
          assert.deepEqual(
            half,
            half.map(() => true),
            'the node closes its side too',
          )
          await eventually('some seconds of it have gone by', 5_000, () => sent >= 3)
        } finally {
          clearInterval(timer)
        }
        // What came so slowly is answered once it is there.
        for (const stream of streams) stream.end(bytes.subarray(sent))
        assert.deepEqual(
          await Promise.all(answers),
          streams.map(() => ok),
        )
        session.destroy()
        for (const socket of slow) socket.destroy()
      })

      await part('clients that ask and never read', async node => {
        const silent = Array.from({ length: 4 }, () => {
          const session = http2(node)
          const stream = request(session, 'StreamCommand')
          stream.pause()
          // 5 GB of answers, if anybody made them.
          for (let i = 0; i < 2_500; i++) stream.write(requestOf('GET', 'large'))
          return session
        })
        const reader = http2(node)
        for (let i = 0; i < 20; i++) {
          const stream = request(reader, 'RunCommand')
          stream.end(requestOf('GET', 'large'))
          assert.equal(await statusOf(stream), ok)
        }
        reader.destroy()
        for (const session of silent) session.destroy()
      })

      await part('clients that call one by one and never read', async node => {
        const silent = Array.from({ length: 4 }, () => {
          const session = http2(node)
          // 2 GB of answers, if anybody made them.
          for (let i = 0; i < grpcLimits.concurrentStreamsMax; i++)
            request(session, 'RunCommand').end(requestOf('GET', 'large'))
          return session
        })
        const reader = http2(node)
        const streams = Array.from({ length: 30 }, () => request(reader, 'RunCommand'))
        for (const stream of streams) stream.end(requestOf('GET', 'large'))
        for (const stream of streams) assert.equal(await statusOf(stream), ok)
        reader.destroy()
        for (const session of silent) session.destroy()
      })

      await part('requests that never end', async node => {
        const greedy = http2(node)
        const gone = new Promise<void>(resolve => greedy.once('close', resolve))
        // 16 GB are promised; no more of them come than are taken.
        const bytes = framed(Buffer.alloc(1024 * 1024), grpcLimits.requestBytesMax)
        for (let i = 0; i < grpcLimits.concurrentStreamsMax; i++) request(greedy, 'RunCommand').write(bytes)
        await gone
      })

      await part(`${connections} connections, opened and closed`, async node => {
        let number = 0
        const open = async () => {
          const socket = await opened(connect(node.port, '127.0.0.1'))
          const kind = number++ % 4
          if (kind === 1) socket.write(preface)
          if (kind === 2) socket.write(Buffer.concat([preface, emptySettings]))
          const gone = closed(socket, answerMsMax)
          if (kind === 3) socket.resetAndDestroy()
          else socket.end()
          assert.ok(await gone)
        }
        await many(connections / 2, open)
        const middle = isLinux ? residentBytes(node) : 0
        await many(connections / 2, open)
        if (isLinux) {
          const leaked = residentBytes(node) - middle
          assert.ok(leaked < leakBytesMax, `the second half added ${mib(leaked)}`)
        }
      })

      await part(`${sessions} sessions of HTTP/2, each with a call`, async node => {
        const one = async () => {
          const session = http2(node)
          const stream = request(session, 'RunCommand')
          stream.end(requestOf('PING'))
          assert.equal(await statusOf(stream), ok)
          await new Promise<void>(resolve => session.close(resolve))
        }
        await many(sessions / 2, one)
        const middle = isLinux ? residentBytes(node) : 0
        await many(sessions / 2, one)
        if (isLinux) {
          const leaked = residentBytes(node) - middle
          assert.ok(leaked < leakBytesMax, `the second half added ${mib(leaked)}`)
        }
      })
    })
  })
})

describe('a node that may open few files', () => {
  it('keeps half of them for itself, however many connect', timed, async t => {
    const directory = temporaryDirectory()
    const port = await freePort()
    const own = ['--node-id', 'n1', '--host', '127.0.0.1', '--port', String(port), '--data-dir', directory]
    const args = [programPath(), 'serve', '--bootstrap', ...own, '--shard-count', '4']
    const child = spawn('sh', ['-c', 'ulimit -n 400; exec "$0" "$@"', process.execPath, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '', ROUNDHOUSE_SUPERVISED: '1' },
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += String(chunk)))
    t.after(async () => {
      const ended = new Promise(resolve => child.once('close', resolve))
      child.kill('SIGTERM')
      await ended
      removeDirectory(directory)
    })
    await eventually('it is ready', 20_000, () => output.includes('"msg":"ready"'))
    assert.match(output, /"connections":200,"open_files":400/)
    const session = connectHttp2(`http://127.0.0.1:${port}`)
    session.on('error', () => {})
    const set = framed(
      encodeMessage(CommandRequest, CommandRequest.fromPartial({ command: 'SET', key: 'k', args: [large] })),
    )
    const write = async () => {
      const stream = request(session, 'RunCommand')
      stream.end(set)
      return statusOf(stream)
    }
    await eventually('it takes a write', 10_000, async () => (await write()) === ok)
    let open = 0
    const sockets = Array.from({ length: 500 }, () => {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => {})
      socket.on('connect', () => {
        open++
        socket.write(Buffer.concat([preface, emptySettings]))
      })
      socket.on('close', () => open--)
      socket.resume()
      return socket
    })
    await eventually('it has closed what is too much', 10_000, () => open === 199)
    for (let i = 0; i < 100; i++) assert.equal(await write(), ok)
    assert.doesNotMatch(output, /"level":"(error|fatal)"|EMFILE/)
    for (const socket of sockets) socket.destroy()
    session.destroy()
  })
})
