import assert from 'node:assert/strict'
import { connect as connectHttp2 } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { connect, type TLSSocket } from 'node:tls'
import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { Client, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { isErrorCode } from '../../src/errors.ts'
import {
  ClusterNodeClient,
  CommandRequest,
  type CommandResponse,
  HeartbeatRequest,
} from '../../src/gen/clusterpb/cluster.ts'
import { image } from '../../src/gen/image.ts'
import { ConsumeRequest } from '../../src/gen/log/v1/log.ts'
import { AskRequest, Frame } from '../../src/gen/roundhouse/v1/peer.ts'
import { remoteErrorOf } from '../../src/peer/status.ts'
import { CertificateDirectory } from './certificates.ts'
import { callerCredentials, startTlsServer, type TlsServer } from './tls-server.ts'

/** Who calls node1, in the order of the columns below. The first three have names that would open every door. */
const callers = ['none', 'expired', 'stranger', 'root', 'nobody', 'admin', 'node1', 'node2'] as const
type CallerName = (typeof callers)[number]

/** U: UNAUTHENTICATED · D: PERMISSION_DENIED · +: it is let in. Requests that name a node name node1. */
const matrix = {
  //        none expired stranger  root nobody admin node1 node2
  clients: ['U', 'U', 'U', /*  */ '+', '+', '+', '+', '+'],
  peers: ['U', 'U', 'U', /*    */ 'D', 'D', 'D', '+', 'D'],
  admins: ['U', 'U', 'U', /*   */ 'D', 'D', '+', 'D', 'D'],
} as const

interface Method {
  readonly path: string
  readonly requestStream: boolean
  readonly responseStream: boolean
}

/** Every method of every contract, from the descriptors that reflection serves, and reflection itself. */
const methods: readonly Method[] = [
  ...fromBinary(FileDescriptorSetSchema, Buffer.from(image, 'base64')).file.flatMap(file =>
    file.service.flatMap(service =>
      service.method.map(method => ({
        path: `/${file.package}.${service.name}/${method.name}`,
        requestStream: method.clientStreaming,
        responseStream: method.serverStreaming,
      })),
    ),
  ),
  ...['v1', 'v1alpha'].map(version => ({
    path: `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    requestStream: true,
    responseStream: true,
  })),
]

function rowOf({ path }: Method): keyof typeof matrix {
  if (path.startsWith('/roundhouse.v1.Admin/')) return 'admins'
  if (path.startsWith('/roundhouse.v1.Peer/') || path === '/clusterpb.ClusterNode/Heartbeat') return 'peers'
  return 'clients'
}

const identity = { clusterId: 'c1', nodeId: 'node1', storeId: 's1' }
const requests: Readonly<Record<string, Uint8Array>> = {
  '/clusterpb.ClusterNode/Heartbeat': HeartbeatRequest.encode(
    HeartbeatRequest.fromPartial({ self: { nodeId: 'node1', nodeAddr: '127.0.0.1:1' } }),
  ).finish(),
  '/clusterpb.ClusterNode/RunCommand': CommandRequest.encode(
    CommandRequest.fromPartial({ command: 'PING' }),
  ).finish(),
  '/log.v1.Log/ConsumeStream': ConsumeRequest.encode(ConsumeRequest.fromPartial({ idleMs: 0 })).finish(),
  '/roundhouse.v1.Peer/Frames': Frame.encode(
    Frame.fromPartial({ handshake: { ...identity, lane: 'control' } }),
  ).finish(),
  '/roundhouse.v1.Peer/Ask': AskRequest.encode(
    AskRequest.fromPartial({ from: { ...identity, lane: '' }, method: 'cluster', body: '{}' }),
  ).finish(),
}

const raw = (bytes: Uint8Array) => Buffer.from(bytes)

/** The status of one call; OK at its first message or headers, for some streams never end. */
function call(client: Client, method: Method): Promise<{ code: status; error: ServiceError | null }> {
  const { path, requestStream, responseStream } = method
  const request = requests[path] ?? new Uint8Array(0)
  const options = { deadline: Date.now() + 5_000 }
  return new Promise(resolve => {
    const end = (error: ServiceError | null) => resolve({ code: error?.code ?? status.OK, error })
    const callback = (error: ServiceError | null) => end(error)
    if (!requestStream && !responseStream) {
      client.makeUnaryRequest(path, raw, raw, request, new Metadata(), options, callback)
      return
    }
    if (requestStream && !responseStream) {
      const stream = client.makeClientStreamRequest(path, raw, raw, new Metadata(), options, callback)
      stream.on('error', () => {})
      stream.write(request)
      stream.end()
      return
    }
    const opened = () => {
      if (!requestStream)
        return client.makeServerStreamRequest(path, raw, raw, request, new Metadata(), options)
      const stream = client.makeBidiStreamRequest(path, raw, raw, new Metadata(), options)
      stream.write(request)
      stream.end()
      return stream
    }
    const stream = opened()
    stream.on('error', end)
    stream.on('data', () => {
      end(null)
      stream.cancel()
    })
    stream.on('end', () => end(null))
  })
}

describe('a port with TLS and a CA', () => {
  let server: TlsServer
  let home: CertificateDirectory
  const clients = new Map<CallerName, Client>()
  const clusters = new Map<CallerName, ClusterNodeClient>()
  before(async () => {
    home = new CertificateDirectory()
    const abroad = new CertificateDirectory('node1')
    const mighty = {
      subject: '/O=Roundhouse/OU=admin/CN=node1',
      alternatives: 'DNS:node1,URI:roundhouse://node/node1',
    }
    const expired = home.issue({ name: 'expired', ...mighty, days: -1 })
    const stranger = { ...abroad.issue({ name: 'stranger', ...mighty }), ca: home.file('ca.crt') }
    server = await startTlsServer('node1', home.of('node1'))
    for (const name of callers) {
      const files =
        name === 'none'
          ? { cert: '', key: '', ca: home.file('ca.crt') }
          : name === 'expired'
            ? expired
            : name === 'stranger'
              ? stranger
              : home.of(name)
      const options = { 'grpc.use_local_subchannel_pool': 1 }
      clients.set(name, new Client(server.address, callerCredentials(files), options))
      clusters.set(name, new ClusterNodeClient(server.address, callerCredentials(files), options))
    }
  })
  after(async () => {
    for (const client of [...clients.values(), ...clusters.values()]) client.close()
    await server.close()
  })

  for (const method of methods) {
    it(`lets into ${method.path} whom it is for: ${rowOf(method)}`, async () => {
      const found = await Promise.all(callers.map(name => call(clients.get(name)!, method)))
      const marks = found.map(({ code }) =>
        code === status.UNAUTHENTICATED ? 'U' : code === status.PERMISSION_DENIED ? 'D' : '+',
      )
      assert.deepEqual(marks, matrix[rowOf(method)], callers.join(' '))
      for (const [place, { code, error }] of found.entries()) {
        if (marks[place] === '+') {
          // Some requests here are too empty to succeed; they were read, and that is what counts.
          const answers = [
            ...[status.OK, status.INVALID_ARGUMENT, status.NOT_FOUND, status.FAILED_PRECONDITION],
            status.OUT_OF_RANGE,
          ]
          assert.ok(answers.includes(code), `${callers[place]}: ${error?.message}`)
        } else {
          const refusal = remoteErrorOf(error!)
          assert.ok(refusal !== null && isErrorCode(refusal.code), error!.message)
        }
      }
      assert.deepEqual(server.unexpected, [])
    })
  }

  const errorOf = async (name: CallerName, path: string) => {
    const { error } = await call(clients.get(name)!, methods.find(each => each.path === path)!)
    return { code: remoteErrorOf(error!)?.code, text: error!.details }
  }

  it('says why: no certificate, an expired one, one of another CA, not a node’s, another node’s, not an admin’s', async () => {
    const run = '/clusterpb.ClusterNode/RunCommand'
    const ask = '/roundhouse.v1.Peer/Ask'
    const none = await errorOf('none', run)
    assert.equal(none.code, 'UNAUTHENTICATED')
    assert.match(
      none.text,
      /^NOAUTH Authentication required: the caller presents no certificate;.*TLS_CERT_PATH/,
    )
    assert.match((await errorOf('expired', run)).text, /certificate, of node1, expired on 20\d\d-/)
    assert.match((await errorOf('stranger', run)).text, /of node1, is not of this node's CA \(UNABLE_TO/)
    const root = await errorOf('root', ask)
    assert.equal(root.code, 'DENIED')
    assert.equal(
      root.text,
      'NOPERM client root may not speak as a peer: it needs the certificate of a node, with the URI roundhouse://node/ID',
    )
    const other = await errorOf('node2', ask)
    assert.equal(other.code, 'WRONG_IDENTITY')
    assert.equal(
      other.text,
      'NOPERM wrong identity: the caller says it is node node1, its certificate is that of node node2',
    )
    assert.match(
      (await errorOf('nobody', '/roundhouse.v1.Admin/Leave')).text,
      /^NOPERM client nobody may not call .*OU=admin/,
    )
  })

  it('tells its own side who was refused what, and no more than ten in ten seconds', () => {
    assert.ok(server.refusals.length > 0 && server.refusals.length <= 10)
    const { method, from, why } = server.refusals[0]!
    assert.match(method, /^\/[a-z0-9.]+\.[A-Za-z]+\/[A-Za-z]+$/)
    assert.match(from, /^127\.0\.0\.1:\d+$/)
    assert.match(why, /^NO(AUTH|PERM) /)
  })

  it('lets nothing of a refused caller reach the node', async () => {
    const { calls, heartbeats, left, actions } = server.service
    const counts = () =>
      [calls, heartbeats, left, actions, server.peerService.admitted].map(each => each.length)
    const before = counts()
    for (const name of ['none', 'expired', 'stranger'] as const)
      await Promise.all(methods.map(method => call(clients.get(name)!, method)))
    assert.deepEqual(counts(), before)
  })

  const run = (name: CallerName, request: Partial<CommandRequest>) =>
    new Promise<string>(resolve => {
      clusters.get(name)!.runCommand(CommandRequest.fromPartial(request), (error, response) => {
        resolve(
          error === null
            ? response.error
              ? response.code
              : 'OK'
            : (remoteErrorOf(error)?.code ?? error.message),
        )
      })
    })
  const stream = (name: CallerName, ...sent: Partial<CommandRequest>[]) =>
    new Promise<CommandResponse[]>((resolve, reject) => {
      const answers: CommandResponse[] = []
      const opened = clusters.get(name)!.streamCommand()
      opened.on('data', (answer: CommandResponse) => answers.push(answer))
      opened.on('error', reject)
      opened.on('end', () => resolve(answers))
      for (const request of sent) opened.write(CommandRequest.fromPartial(request))
      opened.end()
    })
  const transfer = { shard: 1n, snapshot: 's', part: 'p', position: 0n, length: 10 }

  it('takes forwarded calls from nodes only', async () => {
    const found = callers.slice(3).map(name => run(name, { command: 'PING', hops: 1 }))
    assert.deepEqual(await Promise.all(found), ['DENIED', 'DENIED', 'DENIED', 'OK', 'OK'])
    const parts = callers.slice(3).map(name => run(name, { command: 'PING', hops: 1, shard: 3 }))
    assert.deepEqual(await Promise.all(parts), ['DENIED', 'DENIED', 'DENIED', 'OK', 'OK'])
    const [forwarded, own] = await stream('root', { command: 'PING', hops: 1 }, { command: 'PING' })
    assert.deepEqual([forwarded?.code, own?.error], ['DENIED', ''])
  })

  it('gives snapshots to nodes only', async () => {
    server.service.onReadChunk = async () => new Uint8Array([1])
    for (const [name, code] of [
      ['root', 'DENIED'],
      ['admin', 'DENIED'],
      ['node2', ''],
    ] as const) {
      const [answer] = await stream(name, { transfer })
      assert.equal(answer?.code, code, name)
    }
  })

  it('speaks TLS 1.3, takes 1.2 and nothing older', async () => {
    const versionOf = (maxVersion: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3') =>
      new Promise<string>(resolve => {
        const { port } = server
        const socket: TLSSocket = connect(
          {
            port,
            host: '127.0.0.1',
            rejectUnauthorized: false,
            ALPNProtocols: ['h2'],
            minVersion: 'TLSv1',
            maxVersion,
          },
          () => {
            resolve(socket.getProtocol()!)
            socket.destroy()
          },
        )
        socket.on('error', () => resolve('none'))
      })
    assert.deepEqual(await Promise.all((['TLSv1.3', 'TLSv1.2', 'TLSv1.1'] as const).map(versionOf)), [
      'TLSv1.3',
      'TLSv1.2',
      'none',
    ])
  })

  it('gives a plain connection no answer', async () => {
    const plain = new Client(server.address, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    })
    const { code } = await call(
      plain,
      methods.find(each => each.path === '/clusterpb.ClusterNode/RunCommand')!,
    )
    plain.close()
    assert.equal(code, status.UNAVAILABLE)
  })

  it('takes a resumed session without a certificate for what it is', async () => {
    const options = { port: server.port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] }
    const open = (session?: Buffer) =>
      new Promise<{ socket: TLSSocket; session: Promise<Buffer> }>((resolve, reject) => {
        const socket: TLSSocket = connect({ ...options, ...(session === undefined ? {} : { session }) }, () =>
          resolve({ socket, session: ticket }),
        )
        const ticket = new Promise<Buffer>(give => socket.once('session', give))
        socket.on('error', reject)
      })
    const first = await open()
    const ticket = await first.session
    first.socket.destroy()
    const { socket } = await open(ticket)
    assert.equal(socket.isSessionReused(), true)
    const session = connectHttp2(`https://${server.address}`, { createConnection: () => socket })
    const request = session.request({
      ':method': 'POST',
      ':path': '/clusterpb.ClusterNode/RunCommand',
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    const answered = new Promise<unknown>((resolve, reject) => {
      request.on(
        'response',
        headers => headers['grpc-status'] !== undefined && resolve(headers['grpc-status']),
      )
      request.on('trailers', headers => resolve(headers['grpc-status']))
      request.on('error', reject)
    })
    request.resume()
    request.end(Buffer.from([0, 0, 0, 0, 0]))
    assert.equal(Number(await answered), status.UNAUTHENTICATED)
    session.destroy()
  })
})

describe('a port with TLS', () => {
  it('closes who does not shake hands, or says nothing after it, in time, and leaves others alone', async () => {
    const home = new CertificateDirectory('node1', 'client:root')
    const server = await startTlsServer('node1', home.of('node1'), { handshakeMsMax: 300 })
    const client = new Client(server.address, callerCredentials(home.of('root')), {
      'grpc.use_local_subchannel_pool': 1,
    })
    const ping = methods.find(each => each.path === '/clusterpb.ClusterNode/RunCommand')!
    assert.equal((await call(client, ping)).code, status.OK)
    const tls = { port: server.port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] }
    const closed = [connectTcp(server.port, '127.0.0.1'), connect(tls)].map(socket => {
      socket.on('error', () => {})
      socket.resume()
      return new Promise(resolve => socket.once('close', resolve))
    })
    // Gone in time: its deadline went with it.
    const early = connect(tls, () => early.destroy())
    await Promise.all(closed)
    assert.equal(server.refusals.length, 2)
    for (const { why } of server.refusals) assert.match(why, /did not begin to speak HTTP\/2/)
    assert.equal((await call(client, ping)).code, status.OK)
    client.close()
    await server.close()
  })
})

describe('a port with TLS and no CA', () => {
  it('serves everybody, encrypted', async () => {
    const home = new CertificateDirectory('node1')
    const server = await startTlsServer('node1', { ...home.of('node1'), ca: '' })
    const nobody = callerCredentials({ cert: '', key: '', ca: home.file('ca.crt') })
    const client = new Client(server.address, nobody, { 'grpc.use_local_subchannel_pool': 1 })
    const codes = await Promise.all(methods.map(async method => (await call(client, method)).code))
    client.close()
    await server.close()
    assert.deepEqual(
      codes.filter(code => code === status.UNAUTHENTICATED || code === status.PERMISSION_DENIED),
      [],
    )
    assert.equal(codes[methods.findIndex(each => each.path === '/roundhouse.v1.Admin/Status')], status.OK)
  })
})
