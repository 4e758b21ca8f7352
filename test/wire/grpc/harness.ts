/** A server on a free port with fakes behind it, and a generated grpc-js client before it. */
import { credentials } from '@grpc/grpc-js'
import { ClusterNodeClient } from '../../../src/gen/clusterpb/cluster.ts'
import { AdminClient } from '../../../src/gen/roundhouse/v1/admin.ts'
import { systemClock } from '../../../src/lib/clock.ts'
import type { ConnectionLimits } from '../../../src/wire/grpc/options.ts'
import type { Refusal } from '../../../src/wire/grpc/refusals.ts'
import { createServer, type GrpcServer } from '../../../src/wire/grpc/server.ts'
import { FakePeerService, FakeService } from './fake-service.ts'

export interface Harness {
  readonly service: FakeService
  readonly peerService: FakePeerService
  readonly server: GrpcServer
  readonly port: number
  readonly address: string
  readonly client: ClusterNodeClient
  readonly admin: AdminClient
  /** What the server called unexpected. */
  readonly unexpected: unknown[]
  readonly refusals: readonly Refusal[]
  counters(): Promise<Readonly<Record<string, number>>>
  close(): Promise<void>
}

const keyless = ['PING', 'ECHO', 'SCAN']

export async function startServer(
  messageTimeoutMs = 5000,
  limits: Partial<ConnectionLimits> = {},
): Promise<Harness> {
  const service = new FakeService()
  const peerService = new FakePeerService()
  const unexpected: unknown[] = []
  const refusals: Refusal[] = []
  const server = createServer({
    service,
    peerService,
    isKeyed: command => !keyless.includes(command.toUpperCase()),
    messageTimeoutMs,
    clock: systemClock,
    onUnexpected: error => unexpected.push(error),
    onRefused: refusal => refusals.push(refusal),
    limits,
  })
  const port = await server.listen('127.0.0.1', 0)
  const address = `127.0.0.1:${port}`
  const options = { 'grpc.max_receive_message_length': -1, 'grpc.use_local_subchannel_pool': 1 }
  const client = new ClusterNodeClient(address, credentials.createInsecure(), options)
  const admin = new AdminClient(address, credentials.createInsecure(), options)
  return {
    service,
    peerService,
    server,
    port,
    address,
    client,
    admin,
    unexpected,
    refusals,
    counters: () =>
      new Promise((resolve, reject) => {
        admin.stats({}, (error, answer) => (error === null ? resolve(answer.counters) : reject(error)))
      }),
    close: () => {
      client.close()
      admin.close()
      return server.close(200)
    },
  }
}

/** Resolves when `condition` holds; rejects after `withinMs`. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  withinMs = 5000,
): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}
