import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { describe, it } from 'node:test'
import {
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  type ServiceError,
  status,
} from '@grpc/grpc-js'
import {
  ConsumeRequest,
  type ConsumeResponse,
  From,
  type GetServersResponse,
  LogClient,
  ProduceRequest,
  type ProduceResponse,
} from '../../src/gen/log/v1/log.ts'
import { StreamsClient } from '../../src/gen/roundhouse/v1/streams.ts'
import { Cluster, eventually } from '../lib/cluster-harness.ts'

const promised = <T>(begin: (done: (error: ServiceError | null, answer: T) => void) => unknown): Promise<T> =>
  new Promise((resolve, reject) => begin((error, answer) => (error ? reject(error) : resolve(answer))))
const numbers = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `record ${from + i}`)

/** One producer with a session: what is not answered is sent again to the next node, under the same sequence. */
class Producer {
  private readonly doors: readonly LogClient[]
  private readonly session = randomBytes(16)
  private readonly stream: string
  private sequence = 0n

  constructor(doors: readonly LogClient[], stream = '') {
    this.doors = doors
    this.stream = stream
    this.session.writeUIntBE(Date.now(), 0, 6)
  }

  async produce(values: readonly string[]): Promise<void> {
    for (const value of values) {
      const request = ProduceRequest.fromPartial({
        stream: this.stream,
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

/** All that one node's own replica has, to the last byte: what is equal for two of them is equal record for record. */
async function replicaOf(door: LogClient, stream: string): Promise<string[]> {
  const request = { stream, from: From.EARLIEST, idleMs: 0, batches: true, linearizable: false }
  const found: string[] = []
  for await (const { records } of door.consumeStream(
    ConsumeRequest.fromPartial(request),
  ) as AsyncIterable<ConsumeResponse>)
    for (const { offset, value, term, timestampMs, crc } of records) {
      assert.equal(Number(offset), found.length)
      found.push(`${value} ${term} ${timestampMs} ${crc}`)
    }
  return found
}

/** What all nodes' replicas have, once they have the same. */
function sameEverywhere(doors: readonly LogClient[], stream: string, atLeast: number): Promise<string[]> {
  return eventually(`all replicas of ${stream} are equal`, 20_000, async () => {
    const [first, ...others] = await Promise.all(doors.map(door => replicaOf(door, stream)))
    if (first!.length < atLeast) throw new Error(`${first!.length} records`)
    for (const other of others) assert.deepEqual(other, first)
    return first!
  })
}

/** Records one after another over one ProduceStream that nobody renews, until it is told to end. */
class Pipe {
  readonly offsets: number[] = []
  readonly ended: Promise<ServiceError | null>
  private readonly call: ClientDuplexStream<ProduceRequest, ProduceResponse>
  private isEnding = false

  constructor(door: LogClient, stream: string) {
    this.call = door.produceStream()
    const send = () => {
      const record = { value: Buffer.from(`record ${this.offsets.length}`) }
      this.call.write(ProduceRequest.fromPartial({ stream, partition: 0, record }))
    }
    this.call.on('data', ({ offset }: ProduceResponse) => {
      this.offsets.push(Number(offset))
      if (this.isEnding) this.call.end()
      else send()
    })
    this.ended = new Promise(resolve => {
      this.call.once('error', resolve)
      this.call.once('end', () => resolve(null))
    })
    send()
  }

  /** Resolves when so many more are acknowledged. */
  async more(count: number): Promise<void> {
    const wanted = this.offsets.length + count
    let failure: ServiceError | null = null
    void this.ended.then(error => {
      failure = error
    })
    await eventually('more records are acknowledged', 20_000, () => {
      if (failure !== null) throw failure
      return this.offsets.length >= wanted
    })
  }

  end(): Promise<ServiceError | null> {
    this.isEnding = true
    return this.ended
  }
}

/** Of a stream that was made just now, a node may not know who leads it. */
function leaderOf(door: LogClient, stream = ''): Promise<number> {
  return eventually('its leader is known', 20_000, async () => {
    const { servers } = await promised<GetServersResponse>(done =>
      door.getServers({ stream, partition: 0 }, done),
    )
    const leader = servers.findIndex(each => each.isLeader)
    return leader === -1 ? null : leader
  })
}

describe('a stream on real nodes', () => {
  const shared = Cluster.shared({ shardCount: 8 })

  it(
    'is produced to through one call while its leader is restarted, and is the same everywhere after a leader was cut off',
    shared(async (cluster, t) => {
      const doors = cluster.nodes.map(({ address }) => new LogClient(address, credentials.createInsecure()))
      const streams = new StreamsClient(cluster.node(1).address, credentials.createInsecure())
      const create = (name: string) =>
        promised(done => streams.create({ name, partitions: 1, ifMissing: false }, done))
      try {
        await create('pipe')
        const leader = await leaderOf(doors[0]!, 'pipe')
        const pipe = new Pipe(doors[(leader + 1) % 3]!, 'pipe')
        await pipe.more(50)
        // Somebody follows through the node that stops: he is sent away, and does not hold it up.
        const follower = doors[leader]!.consumeStream(ConsumeRequest.fromPartial({ stream: 'pipe' }))
        const sentAway = new Promise<ServiceError>(resolve => follower.once('error', resolve))
        follower.resume()
        const stoppedMs = Date.now()
        assert.deepEqual(await cluster.node(leader + 1).stop(), { code: 0, signal: null })
        t.diagnostic(`the leader handed over and ended in ${Date.now() - stoppedMs} ms`)
        assert.equal((await sentAway).code, status.UNAVAILABLE)
        await pipe.more(50)
        cluster.node(leader + 1).start()
        await pipe.more(50)
        assert.equal(await pipe.end(), null)
        assert.deepEqual(
          pipe.offsets,
          pipe.offsets.map((_, i) => i),
        )
        assert.deepEqual(
          (await sameEverywhere(doors, 'pipe', pipe.offsets.length)).map(each => each.split(' ')[1]),
          pipe.offsets.map(String),
        )

        // Cut off with records that it took and that nobody acknowledged.
        await create('cut')
        const producer = new Producer(doors, 'cut')
        await producer.produce(numbers(0, 50))
        const cut = await leaderOf(doors[0]!, 'cut')
        cluster.node(cut + 1).freeze()
        const lost = Array.from({ length: 20 }, (_, i) => {
          const record = { value: Buffer.from(`unacknowledged ${i}`) }
          const request = ProduceRequest.fromPartial({ stream: 'cut', record })
          return promised<ProduceResponse>(done => doors[cut]!.produce(request, done)).catch(() => null)
        })
        const others = new Producer(
          doors.filter((_, i) => i !== cut),
          'cut',
        )
        await others.produce(numbers(50, 150))
        cluster.node(cut + 1).resume()
        await Promise.all(lost)
        const all = await sameEverywhere(doors, 'cut', 150)
        assert.deepEqual(
          all.filter(each => each.startsWith('record')).map(each => each.split(' ').slice(0, 2).join(' ')),
          numbers(0, 150),
        )
        t.diagnostic(`${all.length - 150} of 20 records that the leader took when it was cut off were kept`)
      } finally {
        for (const door of doors) door.close()
        streams.close()
      }
    }),
  )

  it(
    'keeps every acknowledged record once and in order when nodes are killed, stopped and wiped, one and then all',
    shared(async (cluster, t) => {
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
        // The same with clean stops, of one and of all, and a second 100; then 200 records with nothing in them.
        await cluster.node(leader + 1).stop()
        await producer.produce(numbers(210, 300))
        cluster.node(leader + 1).start()
        await Promise.all(cluster.nodes.map(node => node.stop()))
        for (const node of cluster.nodes) node.start()
        await cluster.settled()
        await producer.produce(numbers(300, 400))
        await producer.produce(Array.from({ length: 200 }, () => ''))
        const values = [...numbers(0, 400), ...Array.from({ length: 200 }, () => '')]
        for (const door of doors)
          assert.deepEqual(
            await eventually('it answers', 5_000, () => valuesOf(consumeAll(door)).catch(() => null)),
            values,
          )
        const all = await sameEverywhere(doors, '', 600)
        // One loses its disk, and gets all of it again, record for record.
        const [one, wiped] = [cluster.node(1), cluster.node(3)]
        await wiped.kill()
        rmSync(wiped.dataDir, { recursive: true })
        await eventually('it is given up', 60_000, async () => {
          await cluster.client.replace(one.address, wiped.id, wiped.id)
          return true
        })
        wiped.flags = [...wiped.flags, '--seed', one.address]
        wiped.start()
        await cluster.settled(60_000)
        assert.deepEqual(await sameEverywhere(doors, '', 600), all)
      } finally {
        for (const door of doors) door.close()
      }
    }),
  )
})
