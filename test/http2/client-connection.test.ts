/** The client's side: against node:http2's server, against ours, and against a server by hand that keeps to no rule. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  createServer as createHttp2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { afterEach, describe, it } from 'node:test'
import { ClientConnection } from '../../src/http2/client-connection.ts'
import { encodeHeaders, type HeaderList, headerOf } from '../../src/http2/hpack.ts'
import type { ServerConnection } from '../../src/http2/server-connection.ts'
import type { Stream, StreamReceiver } from '../../src/http2/stream.ts'
import { until } from '../wire/grpc/harness.ts'
import {
  ack,
  block,
  codes,
  connectionOf,
  dataFrame,
  endBlock,
  endHeaders,
  endStream,
  type Frame,
  frame,
  framesOf,
  okBlock,
  pingFrame,
  preface,
  requestOf,
  resetFrame,
  Served,
  settingsFrame,
  told,
  turn,
  types,
  uint32,
  Wire,
  windowFrame,
} from './caller.ts'

const receiveWindowBytes = 128 * 1024
const streamsMax = 5

/** A call as who makes it sees it. */
class Made implements StreamReceiver {
  stream!: Stream
  readonly lists: HeaderList[] = []
  readonly chunks: Buffer[] = []
  completed = 0
  takings = 0
  readonly closings: boolean[] = []

  get body(): Buffer {
    return Buffer.concat(this.chunks)
  }

  get trailer(): string | undefined {
    return headerOf(this.lists.at(-1) ?? [], 'x-bytes')
  }

  headers(list: HeaderList): void {
    this.lists.push(list)
  }

  data(bytes: Buffer): void {
    this.chunks.push(bytes)
  }

  complete(): void {
    this.completed++
  }

  taken(): void {
    this.takings++
  }

  closed(wasCut: boolean): void {
    this.closings.push(wasCut)
  }
}

function make(connection: ClientConnection, path: string): Made {
  const made = new Made()
  const stream = connection.request(requestOf(path), made)
  assert.ok(stream !== null)
  made.stream = stream
  return made
}

/** What the servers below do of paths: send back what comes, or reset the call with its first byte. */
const echoPath = '/direct/echo'
const resetPath = '/direct/reset'

class DirectEcho extends Served {
  private sent = 0

  override data(bytes: Buffer): void {
    if (headerOf(this.list, ':path') === resetPath) {
      this.stream.reset(codes.internal)
      return
    }
    this.stream.respond(okBlock)
    this.sent += bytes.byteLength
    this.stream.write(bytes)
  }

  override complete(): void {
    this.stream.respond(okBlock)
    this.stream.finish(encodeHeaders(['x-bytes', `${this.sent}`]))
  }
}

function nodeEcho(stream: ServerHttp2Stream, path: string | undefined): void {
  stream.on('error', () => {})
  if (path === resetPath) {
    stream.on('data', () => stream.close(codes.internal))
    return
  }
  let bytes = 0
  stream.respond({ ':status': 200 }, { waitForTrailers: true })
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-bytes': `${bytes}` }))
  stream.on('data', chunk => {
    bytes += chunk.length
    if (!stream.write(chunk)) stream.pause()
  })
  stream.on('drain', () => stream.resume())
  stream.on('end', () => stream.end())
}

interface Callee {
  readonly server: Server
  /** Of the last connection. */
  readonly drain: () => void
  readonly destroy: (code: number) => void
}

const callees: Record<string, () => Callee> = {
  'node:http2’s server': () => {
    let session!: ServerHttp2Session
    const server = createHttp2Server({ settings: { maxConcurrentStreams: streamsMax } })
    server.on('session', each => {
      session = each
    })
    server.on('sessionError', () => {})
    server.on('stream', (stream, headers) => nodeEcho(stream, headers[':path']))
    return {
      server: server as unknown as Server,
      drain: () => session.close(),
      destroy: code => session.goaway(code),
    }
  },
  'our server': () => {
    let connection!: ServerConnection
    const server = createServer(socket => {
      connection = connectionOf(socket, {
        receiveWindowBytes,
        streamsMax,
        make: (stream, headers) => new DirectEcho(stream, headers),
      })
    })
    return { server, drain: () => connection.drain(), destroy: code => connection.destroy(code) }
  },
}

const bodyOf = (bytes: number, seed: number) =>
  Buffer.from(Uint32Array.from({ length: bytes / 4 }, (_, i) => Math.imul(i + seed, 2_654_435_761)).buffer)

for (const [name, calleeOf] of Object.entries(callees))
  describe(`a client of ${name}`, { timeout: 30_000 }, () => {
    let callee: Callee
    let socket: Socket
    let closings: (string | null)[]
    const dial = async () => {
      callee = calleeOf()
      callee.server.listen(0, '127.0.0.1')
      await once(callee.server, 'listening')
      socket = connect((callee.server.address() as AddressInfo).port, '127.0.0.1')
      await once(socket, 'connect')
      const closed: (string | null)[] = []
      closings = closed
      let settings = 0
      const connection = new ClientConnection(socket, {
        receiveWindowBytes,
        onSettings: () => settings++,
        onClosed: why => closed.push(why),
      })
      await until('it has shown itself', () => settings === 1)
      return connection
    }
    afterEach(() => {
      socket.destroy()
      callee.server.close()
    })

    it('is answered when its request is over, headers first and trailers last', async () => {
      const connection = await dial()
      const call = make(connection, echoPath)
      call.stream.write(Buffer.from('one '))
      await until('a part comes back', () => call.body.byteLength === 4)
      assert.deepEqual(
        [call.lists.length, headerOf(call.lists[0]!, ':status'), call.completed],
        [1, '200', 0],
      )
      call.stream.write(Buffer.from('and two'))
      call.stream.finish(null)
      await until('it is over', () => call.closings.length > 0)
      assert.deepEqual([call.body.toString(), call.trailer, call.lists.length], ['one and two', '11', 2])
      assert.deepEqual([call.completed, call.takings, call.closings], [1, 1, [false]])
      assert.deepEqual([connection.openStreams, connection.room], [0, streamsMax])
    })

    it('sends and takes 5 MiB, on two calls at once', async () => {
      const connection = await dial()
      const bodies = [bodyOf(5 * 1024 * 1024, 1), bodyOf(5 * 1024 * 1024, 2)]
      const calls = bodies.map(body => {
        const call = make(connection, echoPath)
        call.stream.write(body)
        call.stream.finish(null)
        return call
      })
      await until('both are over', () => calls.every(each => each.closings.length === 1), 20_000)
      for (const [i, call] of calls.entries()) {
        assert.ok(call.body.equals(bodies[i]!))
        assert.deepEqual([call.trailer, call.closings], [`${bodies[i]!.byteLength}`, [false]])
      }
    })

    it('keeps calls open for as long as it likes, and says of each part when it has left', async () => {
      const connection = await dial()
      const calls = [make(connection, echoPath), make(connection, echoPath)]
      let left = 0
      for (let i = 0; i < 50; i++) {
        for (const call of calls) call.stream.write(Buffer.from(`part ${i};`), () => left++)
        await until('it is back', () => calls.every(each => each.body.toString().endsWith(`part ${i};`)))
      }
      assert.equal(left, 100)
      assert.deepEqual(
        calls.map(each => [each.completed, each.closings.length]),
        [
          [0, 0],
          [0, 0],
        ],
      )
      for (const call of calls) call.stream.finish(null)
      await until('both are over', () => calls.every(each => each.closings.length === 1))
      assert.deepEqual(closings, [])
    })

    it('begins no more calls than there is room for', async () => {
      const connection = await dial()
      assert.equal(connection.room, streamsMax)
      const calls = Array.from({ length: streamsMax }, () => make(connection, echoPath))
      assert.equal(connection.room, 0)
      assert.equal(connection.request(requestOf(echoPath), new Made()), null)
      calls[0]!.stream.finish(null)
      await until('there is room', () => connection.room === 1)
      calls[1]!.stream.reset(codes.cancel)
      assert.deepEqual([connection.room, calls[1]!.closings], [2, [true]])
      const more = [make(connection, echoPath), make(connection, echoPath)]
      for (const call of more) call.stream.finish(null)
      await until('they are answered', () => more.every(each => each.closings.length === 1))
      assert.deepEqual(
        more.map(each => each.closings),
        [[false], [false]],
      )
    })

    it('hears of a call that the server resets, and goes on with the others', async () => {
      const connection = await dial()
      const other = make(connection, echoPath)
      const call = make(connection, resetPath)
      call.stream.write(Buffer.from('x'))
      await until('it is over', () => call.closings.length > 0)
      assert.deepEqual([call.closings, call.completed], [[true], 0])
      other.stream.write(Buffer.from('y'))
      other.stream.finish(null)
      await until('the other is answered', () => other.closings.length > 0)
      assert.deepEqual([other.body.toString(), other.closings, closings], ['y', [false], []])
    })

    it('ends what it began with a server that says farewell, and begins nothing', async () => {
      const connection = await dial()
      const call = make(connection, echoPath)
      call.stream.write(Buffer.from('x'))
      await until('it is begun', () => call.body.byteLength === 1)
      callee.drain()
      await until('it knows', () => connection.room === 0)
      assert.equal(connection.request(requestOf(echoPath), new Made()), null)
      call.stream.write(Buffer.from('y'))
      call.stream.finish(null)
      await until('the connection is over', () => closings.length > 0)
      assert.deepEqual([call.body.toString(), call.closings, closings], ['xy', [false], [null]])
    })

    it('is over at once with one that says why', async () => {
      const connection = await dial()
      const call = make(connection, echoPath)
      call.stream.write(Buffer.from('x'))
      await until('it is begun', () => call.body.byteLength === 1)
      callee.destroy(codes.enhanceYourCalm)
      await until('the connection is over', () => closings.length > 0)
      assert.match(closings[0]!, /error 11/)
      assert.deepEqual([call.closings, connection.room, connection.openStreams], [[true], 0, 0])
    })
  })

/** A server by hand. */
class HandServer {
  readonly wire = new Wire()
  readonly closings: (string | null)[] = []
  readonly connection: ClientConnection

  constructor() {
    this.connection = new ClientConnection(this.wire as Duplex, {
      receiveWindowBytes,
      onSettings: () => {},
      onClosed: why => this.closings.push(why),
    })
  }

  static async greeted(...values: readonly (readonly [id: number, value: number])[]): Promise<HandServer> {
    const server = new HandServer()
    await turn()
    assert.deepEqual(server.wire.written().subarray(0, preface.byteLength), preface)
    assert.deepEqual(await server.tells(settingsFrame(...values), frame(types.settings, ack, 0)), [
      'settings ack',
    ])
    return server
  }

  async send(...frames: readonly Buffer[]): Promise<Frame[]> {
    this.wire.come(Buffer.concat(frames))
    await turn()
    await turn()
    return framesOf(this.wire.written()).frames
  }

  async tells(...frames: readonly Buffer[]): Promise<string[]> {
    return (await this.send(...frames)).map(told)
  }
}

describe('a client', () => {
  const answer = (stream: number, flags = 0) => frame(types.headers, endHeaders | flags, stream, okBlock)
  const trailers = (stream: number) => frame(types.headers, endHeaders | endStream, stream, endBlock)

  it('says its preface and settings at once, and that nothing is to be pushed', async () => {
    const { wire } = new HandServer()
    await turn()
    const bytes = wire.written()
    assert.deepEqual(bytes.subarray(0, preface.byteLength), preface)
    const { frames } = framesOf(bytes.subarray(preface.byteLength))
    assert.deepEqual(frames.map(told), ['settings', 'window 0 65537'])
    assert.deepEqual(frames[0]!.payload.subarray(0, 6), Buffer.from([0, 2, 0, 0, 0, 0]))
  })

  it('ends the connection with a server that breaks the rules', async () => {
    const wrong: readonly (readonly [code: number, frames: Buffer[]])[] = [
      [codes.protocol, [answer(3)]],
      [codes.protocol, [answer(2)]],
      [codes.protocol, [dataFrame(3, 'x')]],
      [codes.protocol, [resetFrame(3)]],
      [codes.protocol, [windowFrame(1, 0)]],
      [codes.protocol, [frame(types.pushPromise, endHeaders, 1, Buffer.alloc(4))]],
      [codes.flowControl, [windowFrame(1, 2 ** 31 - 1)]],
      [codes.streamClosed, [answer(1, endStream), dataFrame(1, 'x')]],
      [codes.streamClosed, [answer(1, endStream), answer(1)]],
      [codes.streamClosed, [answer(1), trailers(1), trailers(1)]],
      [codes.compression, [frame(types.headers, endHeaders, 1, [0x80])]],
    ]
    for (const [code, frames] of wrong) {
      const server = await HandServer.greeted()
      const call = make(server.connection, '/')
      const heard = await server.tells(...frames)
      assert.equal(heard.at(-1), `goaway 0 ${code}`)
      assert.deepEqual([call.closings, server.closings.length, server.connection.room], [[true], 1, 0])
      assert.ok(call.lists.length + call.completed <= 3 && call.chunks.length === 0)
      server.wire.destroy()
    }
  })

  it('begins calls after the last one that a farewell names no more, and ends those before it', async () => {
    const server = await HandServer.greeted()
    const calls = [1, 3, 5].map(() => make(server.connection, '/'))
    for (const { stream } of calls) stream.finish(null)
    await server.tells(frame(types.goAway, 0, 0, Buffer.concat([uint32(3), uint32(codes.none)])))
    assert.deepEqual(
      calls.map(each => each.closings),
      [[], [], [true]],
    )
    await server.tells(answer(1), trailers(1), answer(3, endStream))
    assert.deepEqual(
      calls.map(each => each.closings),
      [[false], [false], [true]],
    )
    assert.ok(server.wire.isEnded)
  })

  it('has the answer of a call whose request the server wants no more of', async () => {
    const server = await HandServer.greeted()
    const call = make(server.connection, '/')
    call.stream.write(Buffer.alloc(200_000))
    const heard = await server.tells(answer(1), dataFrame(1, 'no'), trailers(1), resetFrame(1, codes.none))
    assert.ok(heard.every(each => each.startsWith('headers 1') || each.startsWith('data 1 ')))
    assert.deepEqual([call.body.toString(), call.lists.length, call.completed], ['no', 2, 1])
    assert.deepEqual([call.closings, server.connection.openStreams], [[true], 0])
    assert.deepEqual(await server.tells(windowFrame(0, 500_000), windowFrame(1, 500_000)), [])
  })

  it('hears no more of a call that it takes back, whatever of it still leaves', async () => {
    const server = await HandServer.greeted()
    server.wire.isStuck = true
    const call = make(server.connection, '/')
    call.stream.finish(null)
    await turn()
    call.stream.reset(codes.cancel)
    server.wire.isStuck = false
    server.wire.unstick()
    assert.deepEqual(await server.tells(), ['headers 1', 'data 1 0 end', 'reset 1 8'])
    assert.deepEqual([call.takings, call.closings], [0, [true]])
  })

  it('bears that a server takes back any number of its calls', async () => {
    const server = await HandServer.greeted()
    for (let i = 0; i < 30; i++) {
      const calls = Array.from({ length: 100 }, () => make(server.connection, '/'))
      await server.send(...calls.map(each => resetFrame(each.stream.id, codes.refused)))
      for (const { closings } of calls) assert.deepEqual(closings, [true])
    }
    assert.deepEqual(server.closings, [])
    assert.equal((await server.tells(pingFrame())).at(-1), 'ping ack pingpong')
  })

  it('ends a call with headers beyond the limit, and no other', async () => {
    const server = await HandServer.greeted()
    const calls = [make(server.connection, '/'), make(server.connection, '/')]
    const entry = Buffer.concat([Buffer.from('4001617f811d', 'hex'), Buffer.alloc(3840, 'x')])
    const many = Buffer.concat([okBlock, entry, Buffer.alloc(20, 0xbe)])
    const heard = await server.tells(frame(types.headers, endHeaders, 1, many), answer(3), dataFrame(1, 'x'))
    assert.deepEqual(heard, ['headers 1', 'headers 3', 'reset 1 8'])
    assert.deepEqual(
      calls.map(each => [each.lists.length, each.closings]),
      [
        [0, [true]],
        [1, []],
      ],
    )
  })

  it('takes headers in several frames, and says that it uses no table where it is asked to', async () => {
    const server = await HandServer.greeted([1, 0])
    const call = make(server.connection, '/')
    const list = block(':status', '200', 'x-long', 'x'.repeat(20_000))
    const heard = await server.send(
      frame(types.headers, 0, 1, list.subarray(0, 10_000)),
      frame(types.continuation, endHeaders, 1, list.subarray(10_000)),
    )
    assert.deepEqual(heard[0]!.payload, Buffer.concat([Buffer.of(0x20), requestOf('/')]))
    assert.equal(headerOf(call.lists[0]!, 'x-long')?.length, 20_000)
  })

  it('asks a server that is silent, and is over where it stays so', async () => {
    const server = await HandServer.greeted()
    const call = make(server.connection, '/')
    await server.tells()
    for (let i = 0; i < 4; i++) {
      server.connection.tick()
      server.connection.tick()
      const [ping] = await server.send()
      assert.equal(ping?.type, types.ping)
      await server.send(frame(types.ping, ack, 0, ping!.payload))
    }
    for (let i = 0; i < 3; i++) server.connection.tick()
    await turn()
    assert.deepEqual([call.closings, server.closings, server.wire.destroyed], [[true], [null], true])
  })
})
