/** Calls served here and calls of a session of node:http2 behind, side by side on one connection. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  createServer as createHttp2Server,
  type Http2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type Settings,
} from 'node:http2'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { encodeHeaders } from '../../src/http2/hpack.ts'
import { Prng } from '../../src/lib/prng.ts'
import { until } from '../wire/grpc/harness.ts'
import {
  Caller,
  type CallerOptions,
  callFrame,
  codes,
  connectionOf,
  dataFrame,
  endHeaders,
  endStream,
  frame,
  okBlock,
  pingFrame,
  requestOf,
  resetFrame,
  Served,
  settingsFrame,
  told,
  turn,
  types,
  windowFrame,
} from './caller.ts'

const receiveWindowBytes = 128 * 1024
const mebibyte = 1024 * 1024
const bodyOf = (bytes: number, seed: number) => {
  const body = Buffer.allocUnsafe(bytes)
  for (let i = 0, x = seed | 1; i < bytes; i++) {
    x = Math.imul(x, 1_103_515_245) + 12_345
    body[i] = x >>> 16
  }
  return body
}

/** Sends back what it is sent, its length in the trailers. */
class Echo extends Served {
  private sent = 0

  override data(bytes: Buffer): void {
    if (this.sent === 0) this.stream.respond(okBlock)
    this.sent += bytes.byteLength
    this.stream.write(bytes)
  }

  override complete(): void {
    super.complete()
    this.stream.respond(okBlock)
    this.stream.finish(encodeHeaders(['x-bytes', `${this.sent}`]))
  }
}

type Handler = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void

const echo: Handler = stream => {
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

/** As src/wire/grpc/front.ts has it. */
function relayTo(
  server: Http2Server,
  window: number,
  sessions: ServerHttp2Session[],
): CallerOptions['relay'] {
  return inner => {
    server.prependOnceListener('session', session => {
      session.setLocalWindowSize(window)
      sessions.push(session)
    })
    server.emit('connection', inner)
  }
}

interface Answer {
  readonly status: number
  readonly body: Buffer
  readonly trailers: IncomingHttpHeaders
  readonly code: number
}

function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  return new Promise(resolve => {
    const chunks: Buffer[] = []
    let status = 0
    let trailers: IncomingHttpHeaders = {}
    stream.on('response', headers => (status = Number(headers[':status'])))
    stream.on('trailers', headers => (trailers = headers))
    stream.on('data', chunk => chunks.push(chunk))
    stream.on('error', () => {})
    stream.on('close', () =>
      resolve({ status, body: Buffer.concat(chunks), trailers, code: stream.rstCode ?? 0 }),
    )
  })
}

describe('relayed and direct calls', { timeout: 30_000 }, () => {
  let server: Server
  let inner: Http2Server
  let handler: Handler
  let sessions: ServerHttp2Session[]
  let served: Served[]
  let serve: new (...of: ConstructorParameters<typeof Served>) => Served
  let clients: ClientHttp2Session[]
  let closings: (string | null)[]

  beforeEach(async () => {
    handler = echo
    sessions = []
    served = []
    clients = []
    const closed: (string | null)[] = []
    closings = closed
    serve = Echo
    inner = createHttp2Server({ settings: { initialWindowSize: receiveWindowBytes } })
    inner.on('stream', (stream, headers) => {
      stream.on('error', () => {})
      if (!stream.destroyed) handler(stream, headers)
    })
    inner.on('sessionError', () => {})
    server = createServer(socket => {
      connectionOf(socket, {
        ...{ receiveWindowBytes, streamsMax: 300, relay: relayTo(inner, receiveWindowBytes, sessions)! },
        onCall: call => served.push(call),
        make: (stream, headers) => new serve(stream, headers),
        onClosed: why => closed.push(why),
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  afterEach(() => {
    for (const client of clients) client.destroy()
    server.close()
    inner.close()
  })

  const client = (settings: Settings = {}) => {
    const { port } = server.address() as AddressInfo
    const session = connect(`http://127.0.0.1:${port}`, {
      settings,
      maxSendHeaderBlockLength: 200_000,
      maxSessionMemory: 200,
    })
    session.on('error', () => {})
    clients.push(session)
    return session
  }
  const post = (session: ClientHttp2Session, path: string, more: OutgoingHttpHeaders = {}) =>
    session.request({ ':method': 'POST', ':path': path, ...more })
  const echoed = async (session: ClientHttp2Session, path: string, body: Buffer) => {
    const stream = post(session, path)
    const answer = answerOf(stream)
    stream.end(body)
    const { status, body: back, trailers, code } = await answer
    assert.deepEqual([status, code, trailers['x-bytes']], [200, 0, `${body.byteLength}`], path)
    assert.ok(back.equals(body), path)
  }

  it('carry 5 MiB both ways at once, on one connection', async () => {
    const session = client()
    await Promise.all(
      ['/direct', '/relayed', '/direct', '/relayed'].map((path, i) =>
        echoed(session, path, bodyOf(5 * mebibyte, i)),
      ),
    )
    assert.equal(sessions.length, 1)
    assert.deepEqual(
      served.map(each => each.closings),
      [[false], [false]],
    )
  })

  it('keep to windows of one byte, and of a hundred', async () => {
    for (const [initialWindowSize, bytes] of [
      [1, 1_500],
      [100, 50_000],
    ] as const) {
      const session = client({ initialWindowSize })
      await Promise.all(['/direct', '/relayed'].map((path, i) => echoed(session, path, bodyOf(bytes, i))))
    }
  })

  it('keep to windows that change under way, to less and to more', async () => {
    const session = client({ initialWindowSize: 1_000_000 })
    let isOver = false
    const calls = Promise.all(
      ['/direct', '/relayed', '/direct', '/relayed', '/relayed'].map((path, i) =>
        echoed(session, path, bodyOf(2 * mebibyte, i)),
      ),
    ).finally(() => (isOver = true))
    const sizes = [0, 70_000, 1, 2_000_000, 100, 1_000_000, 16_384]
    for (let i = 0; !isOver; i++)
      await Promise.race([
        new Promise<void>(resolve =>
          session.settings({ initialWindowSize: sizes[i % sizes.length]! }, () => resolve()),
        ),
        calls,
      ])
    await calls
  })

  it('keep to a window that is less, where what was said before waits for the connection’s', async () => {
    handler = stream => {
      stream.respond({ ':status': 200 })
      stream.end(bodyOf(400_000, 3))
    }
    const session = client({ initialWindowSize: 1_000_000 })
    const [first, second] = [post(session, '/relayed'), post(session, '/relayed')]
    const answers = [answerOf(first), answerOf(second)]
    for (let i = 0; i < 4; i++) {
      await new Promise<void>(resolve => session.settings({ initialWindowSize: 10 }, () => resolve()))
      await new Promise<void>(resolve => session.settings({ initialWindowSize: 1_000_000 }, () => resolve()))
    }
    for (const answer of await Promise.all(answers))
      assert.deepEqual([answer.code, answer.body.equals(bodyOf(400_000, 3))], [0, true])
  })

  it('have headers of any length both ways, and trailers both ways', async () => {
    const long = 'x'.repeat(40_000)
    const told: IncomingHttpHeaders[] = []
    handler = (stream, headers) => {
      told.push(headers)
      stream.on('trailers', trailers => told.push(trailers))
      stream.resume()
      stream.on('end', () => {
        stream.respond({ ':status': 203, 'x-long': long }, { waitForTrailers: true })
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-end': long.slice(0, 20_000) }))
        stream.end('body')
      })
    }
    const session = client()
    const stream = session.request(
      { ':method': 'PUT', ':path': '/relayed', 'x-long': long, 'x-many': ['a', 'b'], cookie: ['c=1', 'd=2'] },
      { waitForTrailers: true },
    )
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sent': long.slice(0, 30_000) }))
    let seen = ''
    stream.on('response', headers => (seen = String(headers['x-long'])))
    const answer = answerOf(stream)
    stream.end('body')
    const { status, body, trailers } = await answer
    assert.deepEqual([status, body.toString(), trailers['x-end']?.length], [203, 'body', 20_000])
    assert.equal(seen, long)
    const [headers, sent] = told
    assert.deepEqual(
      [headers?.[':method'], headers?.['x-long'], headers?.['x-many'], headers?.cookie],
      ['PUT', long, 'a, b', 'c=1; d=2'],
    )
    assert.equal(sent?.['x-sent']?.length, 30_000)
  })

  it('without bodies have none', async () => {
    handler = stream => stream.respond({ ':status': 204 }, { endStream: true })
    const session = client()
    for (const method of ['GET', 'POST']) {
      const answer = await answerOf(
        session.request({ ':method': method, ':path': '/relayed' }, { endStream: true }),
      )
      assert.deepEqual([answer.status, answer.body.byteLength, answer.code], [204, 0, 0])
    }
  })

  it('are reset by either side, and no other is', async () => {
    const codesSeen: number[] = []
    handler = (stream, headers) => {
      if (headers[':path'] === '/relayed/refuse') stream.close(codes.internal)
      else {
        stream.on('close', () => codesSeen.push(stream.rstCode))
        echo(stream, headers)
      }
    }
    const session = client()
    const begun = post(session, '/relayed')
    begun.write('x')
    await once(begun, 'data')
    begun.close(codes.cancel)
    await until('the session behind knows', () => codesSeen.length === 1)
    assert.deepEqual(codesSeen, [codes.cancel])
    assert.equal((await answerOf(post(session, '/relayed/refuse'))).code, codes.internal)
    // node:http2 says an end before the reset.
    serve = class extends Echo {
      override complete(): void {}
    }
    const direct = post(session, '/direct')
    direct.write('x')
    await once(direct, 'data')
    direct.close(codes.cancel)
    await until('it is closed', () => served[0]!.closings.length === 1)
    const other = post(session, '/direct')
    other.write('x')
    await once(other, 'data')
    served[1]!.stream.reset(codes.internal)
    assert.equal((await answerOf(other)).code, codes.internal)
    assert.deepEqual(
      served.map(each => each.closings),
      [[true], [true]],
    )
    await echoed(session, '/relayed', bodyOf(1_000_000, 1))
    assert.equal(sessions.length, 1)
  })

  it('are the same byte for byte: 400 of any size, 200 at a time, some of them taken back', async () => {
    const random = new Prng(9113)
    const session = client({ initialWindowSize: 20_000 })
    let left = 400
    const worker = async () => {
      while (left-- > 0) {
        const path = random.below(2) === 0 ? '/direct' : '/relayed'
        const body = bodyOf(random.below(2 ** random.below(17)), left)
        if (random.below(10) > 0) {
          await echoed(session, path, body)
          continue
        }
        const stream = post(session, path)
        const answer = answerOf(stream)
        stream.write(body)
        if (random.below(2) === 0) await turn()
        stream.close(codes.cancel)
        await answer
      }
    }
    await Promise.all(Array.from({ length: 200 }, worker))
    await until('all are over here', () => served.every(each => each.closings.length === 1))
    assert.equal(sessions.length, 1)
  })

  it('of a session that is gone are reset; later ones have another, and as much window as before', async () => {
    const session = client()
    for (let i = 0; i < 5; i++) {
      // It reads nothing of these.
      handler = stream => stream.respond({ ':status': 200 })
      const calls = [post(session, '/relayed'), post(session, '/relayed')]
      const answers = calls.map(answerOf)
      const direct = post(session, '/direct')
      const other = answerOf(direct)
      for (const call of calls) call.write(bodyOf(40_000, 1))
      await Promise.all(calls.map(call => once(call, 'response')))
      await until('all is with the session', () => calls.every(each => each.writableLength === 0))
      sessions.at(-1)!.destroy(new Error('gone'))
      for (const { code } of await Promise.all(answers))
        assert.ok(code === codes.internal || code === codes.cancel, `${code}`)
      direct.end('still here')
      assert.equal((await other).body.toString(), 'still here')
      handler = echo
      await echoed(session, '/relayed', bodyOf(300_000, i))
      assert.equal(sessions.length, i + 2)
    }
    assert.deepEqual(closings, [])
  })

  it('of a caller that is gone are over at once', async () => {
    const session = client()
    const closed: number[] = []
    handler = stream => {
      stream.respond({ ':status': 200 })
      stream.on('close', () => closed.push(1))
    }
    const calls = [post(session, '/relayed'), post(session, '/relayed')]
    await Promise.all(calls.map(call => once(call, 'response')))
    const direct = post(session, '/direct')
    direct.write('x')
    await once(direct, 'data')
    session.destroy()
    await until('all know', () => closed.length === 2 && served[0]!.closings.length === 1)
    assert.equal(closings.length, 1)
    await until('the session behind is gone', () => sessions[0]!.destroyed)
  })
})

describe('a relayed call', { timeout: 30_000 }, () => {
  let inner: Http2Server
  let sessions: ServerHttp2Session[]
  let handler: Handler
  let streamsBehind: ServerHttp2Stream[]
  beforeEach(() => {
    sessions = []
    streamsBehind = []
    handler = echo
    inner = createHttp2Server({ settings: { initialWindowSize: 128 * 1024 } })
    inner.on('sessionError', () => {})
    inner.on('stream', (stream, headers) => {
      stream.on('error', () => {})
      streamsBehind.push(stream)
      if (!stream.destroyed) handler(stream, headers)
    })
  })
  afterEach(() => {
    for (const session of sessions) session.destroy()
  })
  const greeted = (options: CallerOptions = {}, ...values: [id: number, value: number][]) =>
    Caller.greeted({ relay: relayTo(inner, 128 * 1024, sessions)!, ...options }, ...values)
  const relayed = (id: number, flags = 0) => callFrame(id, flags, '/relayed')

  /** Hears until it has heard this. */
  const hearing = async (caller: Caller, what: string, ...frames: Buffer[]) => {
    const heard = await caller.tells(...frames)
    await until(what, async () => {
      if (heard.some(each => each.startsWith(what))) return true
      heard.push(...(await caller.heard()).map(told))
      return false
    })
    return heard
  }

  it('that breaks the rules ends the connection, with the code that node:http2 has for it', async () => {
    const caller = await greeted()
    const heard = await hearing(caller, 'goaway', relayed(1, endStream), dataFrame(1, 'x'))
    assert.equal(heard.at(-1), `goaway 1 ${codes.streamClosed}`)
    assert.equal(caller.closings.length, 1)
  })

  it('stands before a window that is too large for a direct call, which ends the connection all the same', async () => {
    const caller = await greeted()
    await hearing(caller, 'headers 1', relayed(1))
    await caller.send(callFrame(3), windowFrame(3, 2 ** 31 - 1 - 65_535))
    const heard = await hearing(caller, 'goaway', settingsFrame([4, 65_536]))
    assert.equal(heard.at(-1), `goaway 3 ${codes.flowControl}`)
  })

  it('whose window grows too large ends; what comes after it is served', async () => {
    const caller = await greeted()
    await hearing(caller, `reset 1 ${codes.flowControl}`, relayed(1), windowFrame(1, 2 ** 31 - 1))
    await until('it is over', () => caller.connection.openStreams === 0)
    await hearing(caller, 'headers 3 end', relayed(3), dataFrame(3, 'x', endStream))
  })

  it('whose window grows by nothing ends the connection, as one that is served directly does', async () => {
    const caller = await greeted()
    const heard = await hearing(caller, 'goaway', relayed(1), windowFrame(1, 0))
    assert.equal(heard.at(-1), `goaway 1 ${codes.protocol}`)
  })

  it('with trailers beyond the limit ends the connection, and its session knows', async () => {
    const caller = await greeted()
    await hearing(caller, 'headers 1', relayed(1))
    const entry = Buffer.concat([Buffer.from('4001617f811d', 'hex'), Buffer.alloc(3840, 'x')])
    const trailers = Buffer.concat([entry, Buffer.alloc(20, 0xbe)])
    const heard = await caller.tells(frame(types.headers, endHeaders | endStream, 1, trailers))
    assert.deepEqual(heard, [`goaway 1 ${codes.enhanceYourCalm}`])
    assert.equal(caller.connection.openStreams, 0)
    await until('its session knows', () => streamsBehind.every(each => each.destroyed))
    assert.deepEqual(
      streamsBehind.map(each => each.rstCode),
      [codes.cancel],
    )
  })

  it('that is refused for its form costs its caller as if he had taken it back', async () => {
    const odd = (id: number) =>
      frame(types.headers, endHeaders | endStream, id, requestOf('/relayed', 'Not-Lower-Case', 'x'))
    const caller = await greeted()
    const heard: string[] = []
    let id = 1
    for (; heard.every(each => !each.startsWith('goaway')); id += 10) {
      assert.ok(id < 4_000)
      const five = Array.from({ length: 5 }, (_, i) => odd(id + 2 * i))
      heard.push(...(await caller.tells(...five)))
      await until('they are refused', async () => {
        heard.push(...(await caller.heard()).map(told))
        return caller.connection.openStreams === 0 || caller.closings.length > 0
      })
    }
    // The session ends at the thousandth by itself; the next one goes on counting.
    assert.ok(id > 1_990, `${id}`)
    assert.match(heard.at(-1)!, /^goaway \d+ 11$/)
  })

  it('gets its share of the connection’s window beside one that would take all of it', async () => {
    handler = stream => {
      stream.respond({ ':status': 200 })
      stream.end('health')
    }
    const onCall = ({ stream }: Served) => {
      stream.respond(okBlock)
      stream.write(Buffer.alloc(10_000_000))
    }
    const caller = await greeted({ onCall }, [4, 2 ** 31 - 1])
    const heard = await caller.tells(callFrame(1, endStream), relayed(3, endStream))
    for (let i = 0; i < 20; i++) heard.push(...(await caller.tells(windowFrame(0, 20_000))))
    assert.ok(heard.includes('headers 3'))
    assert.ok(heard.includes('data 3 6 end'), `${heard.slice(0, 10)}`)
  })

  it('and leaves as much to the others', async () => {
    handler = stream => {
      stream.respond({ ':status': 200 })
      const more = () => {
        while (!stream.closed && stream.write(Buffer.alloc(50_000)));
      }
      stream.on('drain', more)
      more()
    }
    const onCall = ({ stream }: Served) => {
      stream.respond(okBlock)
      stream.write(Buffer.alloc(10_000_000))
    }
    const caller = await greeted({ onCall }, [4, 2 ** 31 - 1])
    const bytes = { 1: 0, 3: 0 }
    await caller.send(relayed(1, endStream))
    for (let i = 0; i < 20; i++) await caller.heard()
    await caller.send(callFrame(3, endStream))
    for (let i = 0; i < 100; i++)
      for (const each of await caller.send(windowFrame(0, 5_000)))
        if (each.type === 0) bytes[each.stream as 1 | 3] += each.payload.byteLength
    assert.ok(bytes[1] > 150_000 && bytes[3] > 150_000, JSON.stringify(bytes))
  })

  it('makes a caller that does not read hold up the session behind, not memory here', async () => {
    let written = 0
    handler = stream => {
      stream.respond({ ':status': 200 })
      const more = () => {
        while (!stream.closed && written < 50_000_000) {
          written += 50_000
          if (!stream.write(Buffer.alloc(50_000))) break
        }
      }
      stream.on('drain', more)
      more()
    }
    const caller = await greeted({}, [4, 2 ** 31 - 1])
    await caller.send(windowFrame(0, 2 ** 31 - 65_536))
    caller.wire.isStuck = true
    await caller.send(relayed(1, endStream))
    for (let i = 0; i < 200; i++) await turn()
    assert.ok(written < 3_000_000, `${written}`)
    assert.ok(caller.wire.writableLength < 1_500_000)
  })

  it('that begins while the connection drains is refused; what was begun is answered, then it ends', async () => {
    const caller = await greeted()
    await hearing(caller, 'headers 1', relayed(1))
    caller.connection.drain()
    const heard = await hearing(caller, 'headers 1 end', relayed(3), dataFrame(1, 'last', endStream))
    assert.deepEqual(
      heard.filter(each => !each.startsWith('window')),
      ['goaway 1 0', 'reset 3 7', 'data 1 4', 'headers 1 end'],
    )
    assert.ok(caller.wire.isEnded)
  })

  it('is over with its connection', async () => {
    const caller = await greeted()
    await hearing(caller, 'headers 1', relayed(1))
    assert.equal(caller.connection.openStreams, 1)
    caller.wire.destroy()
    await until('its session knows', () => streamsBehind.every(each => each.destroyed))
    assert.deepEqual([caller.connection.openStreams, caller.closings], [0, [null]])
  })

  it('that is not the caller’s any more says nothing', async () => {
    const caller = await greeted()
    await hearing(caller, 'headers 1', relayed(1))
    await hearing(caller, 'data 1 1', dataFrame(1, 'x'))
    assert.deepEqual(await caller.tells(resetFrame(1)), [])
    assert.deepEqual(await caller.tells(pingFrame(), dataFrame(1, 'x'), settingsFrame()), [
      'ping ack pingpong',
      'settings ack',
    ])
    assert.equal(caller.connection.openStreams, 0)
  })
})
