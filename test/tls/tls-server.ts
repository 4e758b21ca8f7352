/** The real gRPC port over TLS, with fakes behind it, as start-node.ts puts it together. */
import { readFileSync } from 'node:fs'
import { CertificateWatch } from '../../src/lib/certificate-watch.ts'
import { type CertificateFiles, loadCertificates } from '../../src/lib/certificates.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { type LogFields, type Logger, silentLogger } from '../../src/lib/logger.ts'
import { loadNodeCertificates, type NodeCertificates, pathsOf } from '../../src/lib/node-certificates.ts'
import { TlsChannelCredentials } from '../../src/lib/tls-channel.ts'
import { nodeCredentials } from '../../src/peer/tls.ts'
import type { ConnectionLimits } from '../../src/wire/grpc/options.ts'
import type { Refusal } from '../../src/wire/grpc/refusals.ts'
import { createServer } from '../../src/wire/grpc/server.ts'
import { FakePeerService, FakeService } from '../wire/grpc/fake-service.ts'

export interface LogLine {
  readonly level: string
  readonly message: string
  readonly fields: LogFields
}

export function memoryLogger(lines: LogLine[]): Logger {
  const at =
    (level: string) =>
    (message: string, fields: LogFields = {}) =>
      void lines.push({ level, message, fields })
  const logger: Logger = {
    ...silentLogger,
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: () => logger,
  }
  return logger
}

export interface TlsServer {
  readonly service: FakeService
  readonly peerService: FakePeerService
  readonly watch: CertificateWatch<NodeCertificates>
  readonly address: string
  readonly port: number
  readonly log: readonly LogLine[]
  readonly refusals: readonly Refusal[]
  readonly unexpected: readonly unknown[]
  close(): Promise<void>
}

export async function startTlsServer(
  nodeId: string,
  files: CertificateFiles,
  limits: Partial<ConnectionLimits> = {},
): Promise<TlsServer> {
  const service = new FakeService()
  const peerService = new FakePeerService()
  const log: LogLine[] = []
  const refusals: Refusal[] = []
  const unexpected: unknown[] = []
  const all = { nodeId, server: files, peer: files }
  const watch = await CertificateWatch.start(
    {
      paths: pathsOf(all),
      load: () => loadNodeCertificates(all, Date.now()),
      clock: systemClock,
      log: memoryLogger(log),
      pollMs: 10,
    },
    mistakes => new Error(mistakes.join('\n')),
  )
  const { server: credentials, areCallersChecked } = nodeCredentials(watch)
  const server = createServer({
    service,
    peerService,
    isKeyed: () => false,
    messageTimeoutMs: 5_000,
    clock: systemClock,
    onUnexpected: error => unexpected.push(error),
    credentials,
    areCallersChecked,
    onRefused: refusal => refusals.push(refusal),
    limits,
  })
  const port = await server.listen('127.0.0.1', 0)
  return {
    service,
    peerService,
    watch,
    address: `127.0.0.1:${port}`,
    port,
    log,
    refusals,
    unexpected,
    close: async () => {
      watch.close()
      await server.close(100)
    },
  }
}

/** Of a caller; the files are not judged here, whatever is wrong with them. */
export function callerCredentials(files: CertificateFiles): TlsChannelCredentials {
  const loaded = loadCertificates(files, Date.now())
  if (loaded.ok) return new TlsChannelCredentials(() => loaded.value)
  const [chainPem, keyPem, caPem] = [files.cert, files.key, files.ca].map(path => readFileSync(path))
  return new TlsChannelCredentials(() => ({ chainPem: chainPem!, keyPem: keyPem!, caPem: caPem! }))
}
