import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type ClientReadableStream, credentials, type ServiceError, status } from '@grpc/grpc-js'
import {
  ConsumeRequest,
  type ConsumeResponse,
  From,
  type GetServersResponse,
  LogClient,
  ProduceRequest,
  type ProduceResponse,
} from '../../src/gen/log/v1/log.ts'
import { Cluster, eventually, fastFlags } from '../lib/cluster-harness.ts'

const promised = <T>(begin: (done: (error: ServiceError | null, answer: T) => void) => unknown): Promise<T> =>
  new Promise((resolve, reject) => begin((error, answer) => (error ? reject(error) : resolve(answer))))
const numbers = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `record ${from + i}`)

/** One producer with a session: what is not answered is sent again to the next node, under the same sequence. */
class Producer {
  private readonly doors: readonly LogClient[]
  private readonly session = Buffer.alloc(16, 5)
  private sequence = 0n

  constructor(doors: readonly LogClient[]) {
    this.doors = doors
    this.session.writeUIntBE(Date.now(), 0, 6)
  }

  async produce(values: readonly string[]): Promise<void> {
    for (const value of values) {
      const request = ProduceRequest.fromPartial({
        record: { value: Buffer.from(value) },
        session: this.session,
        sequence: ++this.sequence,
        ackedBelow: this.sequence,
      })
      for (let attempt = 0; ; attempt++) {
        const door = this.doors[(Number(this.sequence) + attempt) % this.doors.length]!
        try {
          await promised<ProduceResponse>(done => door.produce(request, done))
          break
        } catch (error) {
          const { code } = error as ServiceError
          if (attempt > 100 || ![status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(code)) throw error
          await new Promise(resolve => setTimeout(resolve, 20))
        }
      }
    }
  }
}

function consumeAll(door: LogClient): ClientReadableStream<ConsumeResponse> {
  return door.consumeStream(
    ConsumeRequest.fromPartial({ from: From.EARLIEST, idleMs: 0, linearizable: true }),
  )
}

async function valuesOf(call: ClientReadableStream<ConsumeResponse>): Promise<string[]> {
  const found: string[] = []
  for await (const { record } of call as AsyncIterable<ConsumeResponse>) {
    assert.equal(Number(record!.offset), found.length)
    found.push(record!.value.toString())
  }
  return found
}

describe('a stream on real nodes', () => {
  it('keeps every acknowledged record once and in order when nodes are killed, one and then all', async t => {
    await Cluster.with({ shardCount: 8, flags: fastFlags }, async cluster => {
      const doors = cluster.nodes.map(({ address }) => new LogClient(address, credentials.createInsecure()))
      try {
        const producer = new Producer(doors)
        await producer.produce(numbers(0, 1))
        const seen = doors.map(() => [] as string[])
        for (const [i, door] of doors.entries()) {
          const call = door.consumeStream(ConsumeRequest.fromPartial({}))
          call.on('data', ({ record }: ConsumeResponse) => seen[i]!.push(record!.value.toString()))
          call.on('error', () => {})
        }
        await producer.produce(numbers(1, 100))
        const { servers } = await promised<GetServersResponse>(done =>
          doors[0]!.getServers({ stream: '', partition: 0 }, done),
        )
        const leader = servers.findIndex(each => each.isLeader)
        assert.ok(leader !== -1)
        await cluster.node(leader + 1).kill()
        const killedMs = Date.now()
        await producer.produce(numbers(100, 101))
        t.diagnostic(`records were taken again ${Date.now() - killedMs} ms after their leader was killed`)
        await producer.produce(numbers(101, 200))
        const survivors = seen.filter((_, i) => i !== leader)
        await eventually('followers at the others have it all', 5_000, async () =>
          survivors.every(each => each.length >= 200),
        )
        for (const each of survivors) assert.deepEqual(each, numbers(0, 200))
        cluster.node(leader + 1).start()
        await cluster.settled()
        for (const door of doors)
          assert.deepEqual(
            await eventually('it answers', 5_000, () => valuesOf(consumeAll(door)).catch(() => null)),
            numbers(0, 200),
          )
        await Promise.all(cluster.nodes.map(node => node.kill()))
        for (const node of cluster.nodes) node.start()
        await cluster.settled()
        await producer.produce(numbers(200, 210))
        for (const door of doors)
          assert.deepEqual(
            await eventually('it answers', 5_000, () => valuesOf(consumeAll(door)).catch(() => null)),
            numbers(0, 210),
          )
      } finally {
        for (const door of doors) door.close()
      }
    })
  })
})
