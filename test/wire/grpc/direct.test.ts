import assert from 'node:assert/strict'
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2'
import { after, before, describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../../src/errors.ts'
import { CommandRequest, CommandResponse } from '../../../src/gen/clusterpb/cluster.ts'
import { nothing, value } from './fake-service.ts'
import { type Harness, startServer, until } from './harness.ts'

interface Said {
  readonly http: number
  readonly status: number
  readonly message: string
  readonly body: Buffer
}

const request = Buffer.from(
  CommandRequest.encode(CommandRequest.create({ command: 'GET', key: 'k' })).finish(),
)

function framed(message: Buffer, flag = 0): Buffer {
  const prefix = Buffer.alloc(5)
  prefix[0] = flag
  prefix.writeUInt32BE(message.byteLength, 1)
  return Buffer.concat([prefix, message])
}

describe('a unary call over bare HTTP/2', () => {
  let h: Harness
  let session: ClientHttp2Session
  before(async () => {
    h = await startServer()
    session = connect(`http://${h.address}`)
  })
  after(async () => {
    session.destroy()
    await h.close()
  })

  /** Sends the parts one by one, and ends the request. */
  const call = (parts: readonly Buffer[], more: OutgoingHttpHeaders = {}): Promise<Said> =>
    new Promise((resolve, reject) => {
      const stream = session.request({
        ':method': 'POST',
        ':path': '/clusterpb.ClusterNode/RunCommand',
        'content-type': 'application/grpc',
        te: 'trailers',
        ...more,
      })
      const chunks: Buffer[] = []
      let seen: Record<string, unknown> = {}
      stream.on('response', headers => (seen = { ...headers }))
      stream.on('trailers', trailers => (seen = { ...seen, ...trailers }))
      stream.on('data', chunk => chunks.push(chunk))
      stream.on('error', reject)
      stream.on('end', () =>
        resolve({
          http: Number(seen[':status']),
          status: Number(seen['grpc-status']),
          message: decodeURIComponent(String(seen['grpc-message'])),
          body: Buffer.concat(chunks),
        }),
      )
      const send = (i: number) => {
        if (i < parts.length) stream.write(parts[i], () => setImmediate(send, i + 1))
        else stream.end()
      }
      send(0)
    })

  const answered = ({ http, status, body }: Said) => {
    assert.deepEqual([http, status, body[0], body.readUInt32BE(1)], [200, 0, 0, body.byteLength - 5])
    return CommandResponse.decode(body.subarray(5))
  }

  it('is answered with a message and status 0, in however many pieces it comes', async () => {
    h.service.onExecute = async () => value('v')
    const whole = framed(request)
    for (const parts of [
      [whole],
      [whole.subarray(0, 3), whole.subarray(3)],
      [...whole].map(each => Buffer.from([each])),
    ]) {
      const { response } = answered(await call(parts))
      assert.equal(response?.$case === 'value' && Buffer.from(response.value).toString(), 'v')
    }
  })

  it('is refused with the text of the error, percent-encoded', async () => {
    h.service.onExecute = () =>
      Promise.reject(new RoundhouseError('UNREACHABLE', { address: 'ñandú:1', why: '100 %' }))
    const said = await call([framed(request)])
    assert.deepEqual([said.http, said.status, said.body.byteLength], [200, status.UNAVAILABLE, 0])
    assert.match(said.message, /ñandú:1.*100 %/)
  })

  it('is none without a message, with half of one, with two, or with bytes after it', async () => {
    const calls = h.service.calls.length
    const one = framed(request)
    for (const parts of [
      [],
      [one.subarray(0, 4)],
      [one.subarray(0, -1)],
      [one, one],
      [one, Buffer.from([0])],
    ]) {
      const said = await call(parts)
      assert.equal(said.status, status.INVALID_ARGUMENT)
      assert.match(said.message, /one gRPC message/)
    }
    assert.equal(h.service.calls.length, calls)
  })

  it('may be compressed', async () => {
    h.service.onExecute = async () => nothing
    answered(await call([framed(gzipSync(request), 1)], { 'grpc-encoding': 'gzip' }))
  })

  it('takes its deadline from grpc-timeout; one that can’t be read is refused', async () => {
    h.service.onExecute = async () => nothing
    answered(await call([framed(request)], { 'grpc-timeout': '700m' }))
    const { timeoutMs } = h.service.calls.at(-1)!
    assert.ok(timeoutMs > 300 && timeoutMs <= 700, `${timeoutMs}`)
    assert.equal((await call([framed(request)], { 'grpc-timeout': 'soon' })).status, status.INTERNAL)
  })

  it('must be of gRPC', async () => {
    assert.equal((await call([framed(request)], { 'content-type': 'text/plain' })).http, 415)
  })

  it('aborts what it began when its stream is reset', async () => {
    let aborted = false
    h.service.onExecute = ({ signal }) =>
      new Promise(() => signal?.addEventListener('abort', () => (aborted = true)))
    const before = h.service.calls.length
    const stream = session.request({
      ':method': 'POST',
      ':path': '/clusterpb.ClusterNode/RunCommand',
      'content-type': 'application/grpc',
    })
    stream.on('error', () => {})
    stream.end(framed(request))
    await until('it runs', () => h.service.calls.length > before)
    stream.close(8)
    await until('it is aborted', () => aborted)
  })
})
