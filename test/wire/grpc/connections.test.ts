import assert from 'node:assert/strict'
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { describe, it } from 'node:test'
import { status } from '@grpc/grpc-js'
import { CommandRequest } from '../../../src/gen/clusterpb/cluster.ts'
import { deferred } from '../../../src/lib/deferred.ts'
import { encodeFrames, encodeHandshake } from '../../../src/peer/frames.ts'
import { encodeMessage } from '../../../src/peer/proto-io.ts'
import { draft } from '../../../src/raft/types.ts'
import { callBytes, firstAnswerBytes } from '../../../src/wire/grpc/connections.ts'
import { type ConnectionLimits, connectionLimits, connectionsWithin } from '../../../src/wire/grpc/options.ts'
import { wholeOf } from '../../peer/encoded.ts'
import { value } from './fake-service.ts'
import { type Harness, startServer, until } from './harness.ts'

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const emptySettings = Buffer.from('000000040000000000', 'hex')

const confState = { voters: [1], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false }
const meta = { index: 5, term: 3, confState }

interface Limited extends Partial<ConnectionLimits> {
  readonly messageTimeoutMs?: number
}

async function withServer(
  { messageTimeoutMs = 5_000, ...limits }: Limited,
  test: (h: Harness) => Promise<void>,
) {
  const h = await startServer(messageTimeoutMs, limits)
  try {
    await test(h)
    assert.deepEqual(h.unexpected, [])
  } finally {
    await h.close()
  }
}

function open({ port }: Harness): Socket & { isClosed: boolean } {
  const socket = Object.assign(connect(port, '127.0.0.1'), { isClosed: false })
  socket.on('error', () => {})
  socket.on('close', () => {
    socket.isClosed = true
  })
  socket.resume()
  return socket
}

function session({ address }: Harness): ClientHttp2Session {
  const opened = connectHttp2(`http://${address}`)
  opened.on('error', () => {})
  return opened
}

/** A call whose answer nobody reads, until somebody resumes it. */
function call(from: ClientHttp2Session, method = 'RunCommand'): ClientHttp2Stream {
  const stream = from.request({
    ':method': 'POST',
    ':path': `/clusterpb.ClusterNode/${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
  })
  stream.on('error', () => {})
  return stream
}

function framed(request: Partial<CommandRequest>, length?: number): Buffer {
  const message = encodeMessage(CommandRequest, CommandRequest.fromPartial(request))
  const head = Buffer.alloc(5)
  head.writeUInt32BE(length ?? message.length, 1)
  return Buffer.concat([head, message])
}

/** grpc-status once all is read; null where the stream was reset. */
function ended(stream: ClientHttp2Stream): Promise<number | null> {
  return new Promise(resolve => {
    let code: number | null = null
    const note = (headers: Record<string, unknown>) => {
      if (headers['grpc-status'] !== undefined) code = Number(headers['grpc-status'])
    }
    stream.on('response', note)
    stream.on('trailers', note)
    stream.on('close', () => resolve(code))
    stream.resume()
  })
}

const get = framed({ command: 'GET', key: 'k' })
const answered = ({ client }: Harness) =>
  new Promise<void>((resolve, reject) => {
    client.runCommand(CommandRequest.create({ command: 'GET', key: 'k' }), error =>
      error === null ? resolve() : reject(error),
    )
  })

/** Long enough for a server that would read on to have read on. */
async function answeredOften(h: Harness): Promise<void> {
  h.service.onExecute = async () => value('v')
  for (let i = 0; i < 200; i++) await answered(h)
}

describe('connections', () => {
  it('beyond the limit are closed at once, counted and told; room that is given back is used', async () => {
    await withServer({ connectionsMax: 5 }, async h => {
      h.service.onExecute = async () => value('v')
      // Two of them: a client for commands, one for Admin.
      await answered(h)
      await h.counters()
      const sockets = [open(h), open(h), open(h)]
      await until('all are there', async () => (await h.counters()).connections === 5)
      const late = open(h)
      await until('it is closed', () => late.isClosed)
      assert.deepEqual(
        sockets.map(socket => socket.isClosed),
        [false, false, false],
      )
      await answered(h)
      const { connections, connections_refused: refused } = await h.counters()
      assert.deepEqual([connections, refused], [5, 1])
      assert.match(h.refusals[0]!.from, /^127\.0\.0\.1:\d+$/)
      assert.match(h.refusals[0]!.why, /^5 connections are open/)
      sockets[0]!.destroy()
      await until('there is room', async () => (await h.counters()).connections === 4)
      const again = session(h)
      const stream = call(again)
      stream.end(get)
      assert.equal(await ended(stream), status.OK)
      again.destroy()
      for (const socket of sockets) socket.destroy()
    })
  })

  it('are counted over all addresses that are listened on', async () => {
    await withServer({ connectionsMax: 4 }, async h => {
      h.service.onExecute = async () => value('v')
      await answered(h)
      await h.counters()
      const port = await h.server.listen('127.0.0.1', 0)
      const [one, other] = [open(h), open({ ...h, port })]
      await until('all are there', async () => (await h.counters()).connections === 4)
      const late = [open(h), open({ ...h, port })]
      await until('they are closed', () => late.every(socket => socket.isClosed))
      assert.deepEqual([one.isClosed, other.isClosed], [false, false])
      await answered(h)
      const { connections, connections_max: max, connections_refused: refused } = await h.counters()
      assert.deepEqual([connections, max, refused], [4, 4, 2])
      for (const socket of [one, other]) socket.destroy()
    })
  })

  it('leave half of the files that may be open to others', () => {
    assert.equal(connectionsWithin(1_024), 512)
    assert.equal(connectionsWithin(1_000_000), connectionLimits.connectionsMax)
    assert.equal(connectionsWithin(null), connectionLimits.connectionsMax)
  })

  it('that do not begin to speak HTTP/2 in time are closed; those that have may be silent', async () => {
    await withServer({ handshakeMsMax: 150 }, async h => {
      const [mute, partly, nearly, complete] = [open(h), open(h), open(h), open(h)]
      partly.write(preface.subarray(0, 10))
      nearly.write(preface)
      complete.write(Buffer.concat([preface, emptySettings]))
      await until('they are closed', () => [mute, partly, nearly].every(socket => socket.isClosed))
      // The deadline of those that came later has gone by, so that of `complete` has.
      const last = open(h)
      await until('the last is closed', () => last.isClosed)
      assert.equal(complete.isClosed, false)
      assert.equal((await h.counters()).connections_too_slow, 4)
      assert.match(h.refusals[0]!.why, /did not begin to speak HTTP\/2 within 150 ms/)
      complete.destroy()
    })
  })
})

describe('answers that a connection does not read', () => {
  const large = 'x'.repeat(512 * 1024)
  const unreadBytesMax = 4 * 1024 * 1024

  it('make its further calls wait, and nobody else’s; once it reads, all are answered', async () => {
    await withServer({ unreadBytesMax }, async h => {
      h.service.onExecute = async () => value(large)
      const silent = session(h)
      const streams = Array.from({ length: 100 }, () => call(silent))
      for (const stream of streams) stream.end(get)
      await until('the others wait', async () => (await h.counters()).calls_waited! > 0)
      await answered(h)
      const begun = h.service.calls.length - 1
      // The first are taken for small ones.
      assert.ok(begun >= 7 && begun <= unreadBytesMax / firstAnswerBytes, `${begun} were begun`)
      assert.ok((await h.counters()).calls_bytes! < 2 * unreadBytesMax + 102 * callBytes)
      assert.deepEqual(
        await Promise.all(streams.map(ended)),
        streams.map(() => status.OK),
      )
      assert.equal(h.service.calls.length, 102 - 1)
      silent.destroy()
      // Stats itself is the call that is left.
      await until('nothing is held', async () => (await h.counters()).calls_bytes! < 2 * callBytes)
      assert.deepEqual(h.refusals, [])
    })
  })

  it('let what waits in vain be OVERLOADED, and begin nothing of it', async () => {
    await withServer({ unreadBytesMax, messageTimeoutMs: 200 }, async h => {
      h.service.onExecute = async () => value(large)
      const silent = session(h)
      const streams = Array.from({ length: 40 }, () => call(silent))
      for (const stream of streams) stream.end(get)
      const codes: (number | null)[] = []
      for (const stream of streams)
        stream.on('response', headers => {
          if (headers['grpc-status'] !== undefined) codes.push(Number(headers['grpc-status']))
        })
      await until('the last is refused', () => h.service.calls.length + codes.length === streams.length)
      assert.ok(codes.length >= 24)
      assert.deepEqual(
        codes,
        codes.map(() => status.RESOURCE_EXHAUSTED),
      )
      silent.destroy()
    })
  })

  it('are forgotten with those that wait for them when the connection goes', async () => {
    await withServer({ unreadBytesMax }, async h => {
      h.service.onExecute = async () => value(large)
      const socket = connect(h.port, '127.0.0.1')
      const silent = connectHttp2(`http://${h.address}`, { createConnection: () => socket })
      silent.on('error', () => {})
      for (let i = 0; i < 100; i++) call(silent).end(get)
      await until(
        'the others wait',
        async () => (await h.counters()).calls_waited === 100 - h.service.calls.length,
      )
      const begun = h.service.calls.length
      socket.destroy()
      await until('nothing is held', async () => (await h.counters()).calls_bytes! < 2 * callBytes)
      assert.equal(h.service.calls.length, begun)
    })
  })

  it('are few at first, so that an answer of any size finds room', async () => {
    await withServer({ unreadBytesMax: 100_000 }, async h => {
      h.service.onExecute = async () => value(large)
      const reader = session(h)
      const codes = await Promise.all(
        Array.from({ length: 10 }, () => {
          const stream = call(reader)
          stream.end(get)
          return ended(stream)
        }),
      )
      assert.deepEqual(
        codes,
        codes.map(() => status.OK),
      )
      reader.destroy()
    })
  })
})

describe('reflection', () => {
  it('asks no further where its answers are not read', async () => {
    await withServer({}, async h => {
      const explorer = session(h)
      const stream = explorer.request({
        ':method': 'POST',
        ':path': '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
        'content-type': 'application/grpc',
        te: 'trailers',
      })
      stream.on('error', () => {})
      // { 4 file_containing_symbol }: 40 bytes ask for some kilobytes.
      const symbol = Buffer.from('clusterpb.ClusterNode')
      const question = Buffer.concat([
        Buffer.from([0, 0, 0, 0, symbol.length + 2, 0x22, symbol.length]),
        symbol,
      ])
      const flood = Buffer.concat(Array.from({ length: 20_000 }, () => question))
      let isTaken = false
      stream.write(flood, () => {
        isTaken = true
      })
      await until('some of it has come', async () => (await h.counters()).calls_bytes! > 3 * callBytes)
      await answeredOften(h)
      assert.equal(isTaken, false)
      assert.ok((await h.counters()).calls_bytes! < flood.length / 2)
      stream.resume()
      await until('the rest comes when the answers are read', () => isTaken, 20_000)
      explorer.destroy()
    })
  })
})

describe('a connection that holds too much', () => {
  const part = Buffer.alloc(256 * 1024)

  it('is cut: by requests that never end', async () => {
    await withServer({ connectionBytesMax: 8 * 1024 * 1024 }, async h => {
      h.service.onExecute = async () => value('v')
      const greedy = session(h)
      for (let i = 0; i < 100; i++) {
        const stream = call(greedy)
        stream.write(framed({ command: 'SET', key: 'k' }, 10 * 1024 * 1024))
        stream.write(part)
      }
      await until('it is gone', () => greedy.destroyed)
      const { connections_cut: cut, calls_bytes: bytes } = await h.counters()
      assert.equal(cut, 1)
      assert.ok(bytes! < 2 * callBytes)
      assert.equal(h.refusals.length, 1)
      assert.match(h.refusals[0]!.why, /its calls hold more than 8388608 bytes/)
      await answered(h)
    })
  })

  it('is cut: by answers of pipelined calls, though it does not read what would tell it', async () => {
    await withServer({ connectionBytesMax: 8 * 1024 * 1024 }, async h => {
      h.service.onExecute = async () => value('x'.repeat(1024 * 1024))
      const greedy = session(h)
      for (let i = 0; i < 30; i++) {
        const stream = call(greedy, 'StreamCommand')
        for (let j = 0; j < 10; j++) stream.write(get)
      }
      await until('it is gone', () => greedy.destroyed, 20_000)
      assert.equal((await h.counters()).connections_cut, 1)
    })
  })

  it('counts frames of peers that never end as well, and not those that have come whole', async () => {
    await withServer({ connectionBytesMax: 2 * 1024 * 1024 }, async h => {
      const [encoded] = encodeFrames([
        {
          group: 1,
          message: { ...draft('MsgSnap', 2, 1, 3), snapshot: { meta, data: Buffer.alloc(500_000) } },
        },
      ]).frames
      const frame = wholeOf(encoded!)
      const identity = { clusterId: 'c1', nodeId: 'n2', storeId: 's2' }
      const prefixed = (bytes: Buffer, length = bytes.length) => {
        const head = Buffer.alloc(5)
        head.writeUInt32BE(length, 1)
        return Buffer.concat([head, bytes])
      }
      const frames = (from: ClientHttp2Session) => {
        const stream = from.request({
          ':method': 'POST',
          ':path': '/roundhouse.v1.Peer/Frames',
          'content-type': 'application/grpc',
          te: 'trailers',
        })
        stream.on('error', () => {})
        stream.write(prefixed(encodeHandshake(identity, 'appends')))
        return stream
      }
      const peer = session(h)
      const stream = frames(peer)
      for (let i = 1; i <= 20; i++) {
        stream.write(prefixed(frame))
        await until('it is taken', () => h.peerService.received.length === i)
      }
      assert.equal((await h.counters()).connections_cut, 0)
      const greedy = session(h)
      for (let i = 0; i < 8; i++) frames(greedy).write(prefixed(frame, 10 * frame.length))
      await until('it is cut', () => greedy.destroyed)
      assert.equal(peer.destroyed, false)
      peer.destroy()
    })
  })

  it('counts a long stream by what it holds, not by what has gone through it', async () => {
    await withServer({ connectionBytesMax: 2 * 1024 * 1024 }, async h => {
      h.service.onExecute = async () => value('x'.repeat(100_000))
      const reader = session(h)
      const stream = call(reader, 'StreamCommand')
      let bytes = 0
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      const request = framed({ command: 'SET', key: 'k', args: [Buffer.alloc(100_000)] })
      for (let i = 1; i <= 50; i++) {
        stream.write(request)
        await until('it is answered', () => bytes >= i * 100_000)
      }
      assert.equal((await h.counters()).connections_cut, 0)
      stream.close()
      await until('nothing is held', async () => (await h.counters()).calls_bytes! < 2 * callBytes)
      reader.destroy()
    })
  })

  it('is the one that is cut when all together hold too much', async () => {
    await withServer({ allBytesMax: 8 * 1024 * 1024 }, async h => {
      const wait = deferred<void>()
      h.service.onExecute = () => wait.promise.then(() => value('v'))
      const modest = session(h)
      const streams = Array.from({ length: 10 }, () => call(modest))
      for (const stream of streams) stream.end(framed({ command: 'SET', key: 'k', args: [part] }))
      await until('they run', () => h.service.calls.length === 10)
      const greedy = session(h)
      for (let i = 0; i < 40; i++) call(greedy).end(framed({ command: 'SET', key: 'k', args: [part] }))
      await until('it is gone', () => greedy.destroyed)
      wait.resolve()
      assert.deepEqual(
        await Promise.all(streams.map(ended)),
        streams.map(() => status.OK),
      )
      assert.match(h.refusals[0]!.why, /it holds most/)
      modest.destroy()
    })
  })
})
