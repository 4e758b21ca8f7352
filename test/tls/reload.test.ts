import assert from 'node:assert/strict'
import { renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import { connect } from 'node:tls'
import { status } from '@grpc/grpc-js'
import { ClusterNodeClient, CommandRequest } from '../../src/gen/clusterpb/cluster.ts'
import { CertificateWatch, watchLimits } from '../../src/lib/certificate-watch.ts'
import { loadCertificates } from '../../src/lib/certificates.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { loadNodeCertificates, pathsOf } from '../../src/lib/node-certificates.ts'
import { Prng } from '../../src/lib/prng.ts'
import { nodeCredentials } from '../../src/peer/tls.ts'
import { GrpcPeers } from '../../src/peer/transport.ts'
import { draft } from '../../src/raft/types.ts'
import { until } from '../wire/grpc/harness.ts'
import { CertificateDirectory } from './certificates.ts'
import {
  callerCredentials,
  type LogLine,
  memoryLogger,
  startTlsServer,
  type TlsServer,
} from './tls-server.ts'

/** The serial number of what the port presents to a new connection. */
function serialOf(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      { port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] },
      () => {
        resolve(socket.getPeerX509Certificate()!.serialNumber)
        socket.destroy()
      },
    )
    socket.on('error', reject)
  })
}

const ping = (client: ClusterNodeClient) =>
  new Promise<status>(resolve => {
    client.runCommand(CommandRequest.fromPartial({ command: 'PING' }), error =>
      resolve(error?.code ?? status.OK),
    )
  })

const levels = (log: readonly LogLine[]) => log.map(({ level, message }) => `${level} ${message}`)
const reloaded = 'info certificates reloaded'
const unusable = 'warn certificates have changed and can’t be used: the old ones stay'

describe('certificates that change on disk', () => {
  let home: CertificateDirectory
  let server: TlsServer
  let serial: string
  before(async () => {
    home = new CertificateDirectory('node1', 'node2', 'client:root')
    server = await startTlsServer('node1', home.of('node1'))
    serial = await serialOf(server.port)
  })
  after(() => server.close())

  const fresh = (name: string) =>
    home.issue({
      name,
      subject: '/O=Roundhouse/OU=node/CN=node1',
      alternatives: 'DNS:node1,IP:127.0.0.1,URI:roundhouse://node/node1',
    })
  const next = () => server.log.length

  it('are shown to new connections, and a stream that is open goes on', async () => {
    const options = { 'grpc.use_local_subchannel_pool': 1 }
    const client = new ClusterNodeClient(server.address, callerCredentials(home.of('root')), options)
    const stream = client.streamCommand()
    let answers = 0
    let failure: Error | null = null
    stream.on('data', () => answers++)
    stream.on('error', error => {
      failure = error
    })
    const say = () => stream.write(CommandRequest.fromPartial({ command: 'PING' }))
    say()
    await until('the first answer', () => answers === 1)
    const from = next()
    home.replace('node1', fresh('next'))
    await until('the reload', () => next() > from)
    const { level, message, fields } = server.log[from]!
    assert.equal(`${level} ${message}`, reloaded)
    const [described] = fields.certificates as { file: string; of: string; serial: string }[]
    assert.deepEqual([described?.file, described?.of], [home.file('node1.crt'), 'node1'])
    assert.notEqual(await serialOf(server.port), serial)
    assert.equal(await serialOf(server.port), described?.serial)
    say()
    await until('the second answer', () => answers === 2)
    assert.equal(failure, null)
    stream.end()
    client.close()
  })

  it('and can’t be used change nothing but the log, which says why', async () => {
    const used = await serialOf(server.port)
    const from = next()
    home.replace('node1', home.of('node2'))
    await until('the warning', () => next() > from)
    assert.deepEqual(levels(server.log.slice(from)), [unusable])
    assert.match(String(server.log[from]!.fields.why), /certificate of node2 is not this node's/)
    writeFileSync(home.file('node1.key'), 'half a k')
    await until('the next warning', () => next() > from + 1)
    assert.match(String(server.log[from + 1]!.fields.why), /node1\.key: is not a private key in PEM/)
    rmSync(home.file('node1.crt'))
    await until('one more', () => next() > from + 2)
    assert.match(String(server.log[from + 2]!.fields.why), /node1\.crt: can't be read: ENOENT/)
    assert.equal(await serialOf(server.port), used)
    home.replace('node1', fresh('healed'))
    await until('the reload', () => next() > from + 3)
    assert.deepEqual(levels(server.log.slice(from + 3)), [reloaded])
    assert.notEqual(await serialOf(server.port), used)
  })

  it('may be links behind links, as mounted secrets are', async () => {
    const linked = new CertificateDirectory('node1')
    const [first, second] = ['v1', 'v2'].map(name => linked.file(name))
    for (const directory of [first!, second!]) linked.make('--dir', directory, 'node1')
    symlinkSync(first!, linked.file('now'))
    const files = {
      cert: linked.file('now/node1.crt'),
      key: linked.file('now/node1.key'),
      ca: linked.file('now/ca.crt'),
    }
    const mounted = await startTlsServer('node1', files)
    const before = await serialOf(mounted.port)
    symlinkSync(second!, linked.file('later'))
    renameSync(linked.file('later'), linked.file('now'))
    await until('the reload', () => mounted.log.length > 0)
    assert.deepEqual(levels(mounted.log), [reloaded])
    assert.notEqual(await serialOf(mounted.port), before)
    await mounted.close()
  })

  it('decide from then on which callers are let in, and those inside stay', async () => {
    const abroad = new CertificateDirectory('node1', 'client:root')
    const at = await startTlsServer('node1', home.of('node1'))
    const options = { 'grpc.use_local_subchannel_pool': 1 }
    const inside = new ClusterNodeClient(at.address, callerCredentials(home.of('root')), options)
    assert.equal(await ping(inside), status.OK)
    home.replace('node1', abroad.of('node1'))
    renameSync(abroad.file('ca.crt'), home.file('ca.crt'))
    await until('the reload', () => levels(at.log).includes(reloaded))
    assert.equal(await ping(inside), status.OK)
    const late = new ClusterNodeClient(
      at.address,
      callerCredentials({ cert: home.file('root.crt'), key: home.file('root.key'), ca: home.file('ca.crt') }),
      options,
    )
    assert.equal(await ping(late), status.UNAUTHENTICATED)
    const welcome = new ClusterNodeClient(
      at.address,
      callerCredentials({ ...abroad.of('root'), ca: home.file('ca.crt') }),
      options,
    )
    assert.equal(await ping(welcome), status.OK)
    for (const client of [inside, late, welcome]) client.close()
    await at.close()
  })
})

describe('links between nodes with TLS', () => {
  it('go on over new certificates and re-dial with them, and tell why one does not come about', async () => {
    const home = new CertificateDirectory('node1', 'node2')
    const server = await startTlsServer('node1', home.of('node1'))
    const files = { nodeId: 'node2', server: home.of('node2'), peer: home.of('node2') }
    const log: LogLine[] = []
    const watch = await CertificateWatch.start(
      {
        paths: pathsOf(files),
        load: () => loadNodeCertificates(files, Date.now()),
        clock: systemClock,
        log: memoryLogger(log),
        pollMs: 10,
      },
      mistakes => new Error(mistakes.join()),
    )
    const lost: string[] = []
    const makePeers = (nodeId: string) =>
      new GrpcPeers({
        identity: () => ({ clusterId: 'c1', nodeId, storeId: 's' }),
        addressOf: () => server.address,
        clock: systemClock,
        random: new Prng(1),
        credentials: nodeCredentials(watch).channel,
        onLost: (node, _address, why) => lost.push(`${node}: ${why}`),
      })
    const peers = makePeers('node2')
    const terms = () =>
      server.peerService.received.flatMap(each => each.messages).map(each => each.message.term)
    const say = (term: number) =>
      peers.send('node1', 'control', [{ group: 1, message: draft('MsgHeartbeat', 1, 2, term) }])
    say(1)
    await until('the first message', () => terms().includes(1))
    home.replace(
      'node2',
      home.issue({
        name: 'renewed',
        subject: '/O=Roundhouse/OU=node/CN=node2',
        alternatives: 'DNS:node2,IP:127.0.0.1,URI:roundhouse://node/node2',
      }),
    )
    await until('the reload', () => levels(log).includes(reloaded))
    say(2)
    await until('the second message', () => terms().includes(2))
    assert.equal(peers.stats().connects, 1)
    assert.deepEqual(lost, [])
    assert.equal(await peers.ask(server.address, 'cluster', '{}', 2_000), '{}')

    const liar = makePeers('node3')
    liar.send('node1', 'control', [{ group: 1, message: draft('MsgHeartbeat', 1, 2, 3) }])
    await until('the refusal', () => lost.length > 0)
    assert.match(lost[0]!, /^node1: NOPERM wrong identity: the caller says it is node node3/)
    await until('it has tried again', () => Number(liar.stats().connects) > 2)
    assert.equal(lost.length, 1)
    await assert.rejects(liar.ask(server.address, 'cluster', '{}', 2_000), { code: 'WRONG_IDENTITY' })
    await assert.rejects(liar.heartbeat(server.address, { clusterId: 'c1', view: [], wallMs: 0 }, 2_000), {
      code: 'WRONG_IDENTITY',
    })
    await peers.close()
    await liar.close()
    watch.close()
    await server.close()
  })
})

describe('a call that is forwarded', () => {
  it('by a node that the other does not accept is one that did not arrive: its client has nothing to mend', async () => {
    const home = new CertificateDirectory('node1', 'client:root')
    const server = await startTlsServer('node1', home.of('node1'))
    const none = { cert: '', key: '', ca: home.file('ca.crt') }
    for (const [files, why] of [
      [home.of('root'), /NOPERM client root may not forward calls/],
      [none, /NOAUTH/],
    ] as const) {
      const peers = new GrpcPeers({
        identity: () => ({ clusterId: 'c1', nodeId: 'node2', storeId: 's' }),
        addressOf: () => server.address,
        clock: systemClock,
        random: new Prng(1),
        credentials: callerCredentials(files),
      })
      const call = {
        command: 'PING',
        args: [],
        session: null,
        read: 'linearizable',
        forward: true,
        hops: 1,
      } as const
      await assert.rejects(peers.execute(server.address, { ...call, shard: null, timeoutMs: 2_000 }), {
        code: 'UNREACHABLE',
        message: why,
      })
      await peers.close()
    }
    assert.equal(server.service.calls.length, 0)
    await server.close()
  })
})

describe('a certificate that expires', () => {
  it('is warned of fourteen days before, once a day, and by an error when it is over', async () => {
    const home = new CertificateDirectory('--days', '20', 'node1')
    const files = home.of('node1')
    const day = 24 * 3_600_000
    const startMs = Date.now()
    let nowMs = 0
    let run = () => {}
    const clock: Clock = {
      now: () => nowMs,
      wall: () => startMs + nowMs,
      after: (_ms, then) => {
        run = then
        return () => {}
      },
    }
    const log: LogLine[] = []
    const watch = await CertificateWatch.start(
      {
        paths: [files.cert, files.key, files.ca],
        load: () => {
          const loaded = loadCertificates(files, startMs)
          return loaded.ok ? { ok: true, value: { server: loaded.value } } : loaded
        },
        clock,
        log: memoryLogger(log),
      },
      mistakes => new Error(mistakes.join()),
    )
    const counts: Record<string, number> = {}
    for (let at = 0; at <= 22 * 4; at++) {
      const waiting = run
      run()
      await until('the next look', () => run !== waiting)
      for (const line of log.splice(0)) {
        counts[`${line.level} ${line.message}`] = (counts[`${line.level} ${line.message}`] ?? 0) + 1
        assert.equal(line.fields.file, files.cert)
      }
      nowMs += day / 4
    }
    watch.close()
    assert.equal(watchLimits.warnBeforeMs, 14 * day)
    const { 'warn a certificate expires soon': warned = 0, 'error a certificate is not valid': over = 0 } =
      counts
    assert.ok(warned >= 11 && warned <= 14, `${warned} warnings`)
    assert.ok(over >= 1 && over <= 3, `${over} errors`)
    assert.equal(Object.keys(counts).length, 2)
  })
})
