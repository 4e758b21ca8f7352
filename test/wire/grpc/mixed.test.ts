/** What grpc-js serves and what is served past it, side by side on the connections of ordinary clients. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import {
  type ClientReadableStream,
  credentials,
  makeClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js'
import { service as healthService } from 'grpc-health-check'
import {
  ClusterNodeClient,
  CommandRequest,
  type CommandResponse,
} from '../../../src/gen/clusterpb/cluster.ts'
import { Prng } from '../../../src/lib/prng.ts'
import { value } from './fake-service.ts'
import { type Harness, startServer, until } from './harness.ts'

interface HealthAnswer {
  readonly status: string
}
interface HealthClient {
  check(
    request: { readonly service: string },
    done: (error: ServiceError | null, answer?: HealthAnswer) => void,
  ): void
  watch(request: { readonly service: string }): ClientReadableStream<HealthAnswer>
  close(): void
}
const Health = makeClientConstructor(healthService, 'Health')

describe('one connection', { timeout: 30_000 }, () => {
  let h: Harness
  before(async () => {
    h = await startServer()
    // An answer is its key, twice.
    h.service.onExecute = async call => {
      const key = Buffer.from(call.args[0]!)
      return value(Buffer.concat([key, key]).toString('latin1'))
    }
  })
  after(() => h.close())

  const insecure = credentials.createInsecure()
  const run = (client: ClusterNodeClient, key: string) =>
    new Promise<CommandResponse>((resolve, reject) =>
      client.runCommand(CommandRequest.create({ command: 'GET', key }), (error, answer) =>
        error === null ? resolve(answer) : reject(error),
      ),
    )
  const stream = (client: ClusterNodeClient, keys: readonly string[]) =>
    new Promise<CommandResponse[]>((resolve, reject) => {
      const answers: CommandResponse[] = []
      const call = client.streamCommand()
      call.on('data', answer => answers.push(answer))
      call.on('error', reject)
      call.on('end', () => resolve(answers))
      for (const key of keys) call.write(CommandRequest.create({ command: 'GET', key }))
      call.end()
    })
  const check = (health: HealthClient) =>
    new Promise<string>((resolve, reject) =>
      health.check({ service: '' }, (error, answer) =>
        error === null ? resolve(answer!.status) : reject(error),
      ),
    )
  const said = ({ response }: CommandResponse) =>
    response?.$case === 'value'
      ? Buffer.from(response.value).toString('latin1')
      : assert.fail(response?.$case)

  for (const [what, compression] of [
    ['as they are', 0],
    ['compressed, so that grpc-js reads them', 2],
  ] as const)
    it(`carries commands, checks and watches of health in any order: requests ${what}`, async () => {
      const options = {
        'grpc.default_compression_algorithm': compression,
        'grpc.use_local_subchannel_pool': 1,
      }
      const client = new ClusterNodeClient(h.address, insecure, options)
      const channelOverride = client.getChannel()
      const health = new Health(h.address, insecure, { channelOverride }) as unknown as HealthClient
      const heard: string[] = []
      const watch = health.watch({ service: '' })
      watch.on('data', ({ status }: HealthAnswer) => heard.push(status))
      watch.on('error', () => {})
      await until('the watch is told', () => heard.length === 1)
      const { connections } = await h.counters()
      const random = new Prng(compression)
      const keys = () => 'k'.repeat(1 + random.below(1_000)) + random.below(1e9)
      const work = Array.from({ length: 300 }, async () => {
        const kind = random.below(4)
        if (kind === 0) assert.equal(await check(health), 'SERVING')
        else if (kind === 1) {
          const many = Array.from({ length: random.below(40) }, keys)
          assert.deepEqual(
            (await stream(client, many)).map(said),
            many.map(key => key + key),
          )
        } else {
          const key = keys()
          assert.equal(said(await run(client, key)), key + key)
        }
      })
      await Promise.all(work)
      h.service.serving = false
      await until('the watch hears it', () => heard.at(-1) === 'NOT_SERVING')
      h.service.serving = true
      await until('and that it is over', () => heard.at(-1) === 'SERVING')
      assert.equal((await h.counters()).connections, connections)
      watch.cancel()
      client.close()
      await until('nothing is held', async () => (await h.counters()).connections === connections! - 1)
      assert.deepEqual(h.unexpected, [])
    })

  it('that has only checks of health is one, too', async () => {
    const health = new Health(h.address, insecure) as unknown as HealthClient
    for (let i = 0; i < 20; i++) assert.equal(await check(health), 'SERVING')
    health.close()
  })
})
