import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Client, connect } from '../../src/client/entry.ts'
import { startCluster } from '../../src/testing.ts'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { CertificateDirectory } from '../tls/certificates.ts'
import { errorOf } from './fake-nodes.ts'

/** Increments counters until `signal`; what every increment answered, by counter. */
async function increment(
  client: Client,
  counters: readonly string[],
  signal: AbortSignal,
): Promise<number[][]> {
  return await Promise.all(
    counters.map(async counter => {
      const replies: number[] = []
      while (!signal.aborted) replies.push(await client.incr(counter))
      return replies
    }),
  )
}

/** Produces records one after another until `signal`, and follows them; what the follower saw in the end. */
async function produceAndFollow(
  client: Client,
  signal: AbortSignal,
): Promise<{ sent: number; seen: string[] }> {
  await client.streams.create('trouble', { ifMissing: true })
  const seen: string[] = []
  const follower = client.consume('trouble', { follow: true })
  let sent = 0
  let isOver = false
  const following = (async () => {
    for await (const { offset, value } of follower) {
      assert.equal(offset, seen.length)
      seen.push(value)
      if (isOver && seen.length === sent) break
    }
  })()
  while (!signal.aborted) {
    const values = [0, 1, 2].map(i => `${sent + i}`)
    await Promise.all(values.map(value => client.produce('trouble', value)))
    sent += values.length
  }
  isOver = true
  await client.produce('trouble', `${sent++}`)
  await following
  return { sent, seen }
}

/** Every increment was applied once: one writer a counter, so its replies are 1, 2, 3, … */
function assertOnce(all: readonly number[][]): void {
  for (const replies of all)
    assert.deepEqual(
      replies,
      Array.from({ length: replies.length }, (_, place) => place + 1),
    )
}

const counters = Array.from({ length: 24 }, (_, number) => `counter:${number}`)

describe('the client and a cluster in trouble', () => {
  it('applies every increment and appends every record once while leaders are frozen, killed with -9, and come back', async () => {
    await Cluster.with({ nodes: 3, shardCount: 8 }, async cluster => {
      const client = await connect({ addresses: cluster.nodes.map(node => node.address), timeout: 30_000 })
      const end = new AbortController()
      let written = 0
      const running = increment(client, counters, end.signal)
      const streaming = produceAndFollow(client, end.signal)
      streaming.catch(() => {})
      const probes = Array.from({ length: 8 }, (_, number) => `probe:${number}`)
      /** All shards take writes again. */
      const writes = () => Promise.all(probes.map(key => client.set(key, ++written)))
      try {
        await writes()
        const leader = await cluster.busiestLeader()
        leader.freeze()
        await writes()
        leader.resume()
        await writes()
        const next = await cluster.busiestLeader()
        await next.kill()
        await writes()
        next.start()
        await writes()
      } finally {
        end.abort()
      }
      const { sent, seen } = await streaming
      assert.deepEqual(
        seen,
        Array.from({ length: sent }, (_, i) => `${i}`),
      )
      const all = await running
      assertOnce(all)
      assert.deepEqual(
        (await client.mget(...counters)).map(Number),
        all.map(replies => replies.length),
      )
      await client.close()
    })
  })

  it('keeps the order of calls on a key, and finds a node that was stopped again', async () => {
    const cluster = await startCluster({ nodes: 3 })
    const client = await connect({ addresses: cluster.addresses, timeout: 30_000 })
    try {
      const keys = Array.from({ length: 20 }, (_, number) => `order:${number}`)
      const lists = await Promise.all(
        keys.map(async key => {
          await Promise.all(Array.from({ length: 50 }, (_, place) => client.rpush(key, place)))
          return await client.lrange(key, 0, -1)
        }),
      )
      const expected = Array.from({ length: 50 }, (_, place) => String(place))
      for (const list of lists) assert.deepEqual(list, expected)
      await using(cluster, client)
    } finally {
      await client.close()
      await cluster.stop()
    }
  })

  it('speaks TLS, without an admin certificate too, and says what is wrong without', async () => {
    const home = new CertificateDirectory()
    const { ca, ...node } = home.of('node1')
    const { cert, key } = home.of('admin')
    const cluster = await startCluster({ nodes: 1, tls: { ca, node, admin: { cert, key } } })
    try {
      const addresses = cluster.addresses
      for (const name of ['admin', 'root']) {
        const client = await connect({ addresses, tls: home.of(name) })
        assert.equal(await client.set('who', name), true)
        assert.equal(await client.get('who'), name)
        await client.close()
      }
      const plain = await errorOf(connect({ addresses, timeout: 200 }))
      assert.match(plain.message, /it speaks TLS: give connect the option tls/)
      const other = new CertificateDirectory()
      const stranger = await errorOf(connect({ addresses, timeout: 200, tls: { ca: other.of('root').ca } }))
      assert.match(stranger.message, /the handshake failed/)
    } finally {
      await cluster.stop()
    }
  })
})

/** A stopped node is found again, with what was written meanwhile. */
async function using(cluster: Awaited<ReturnType<typeof startCluster>>, client: Client): Promise<void> {
  const [, second] = cluster.nodes
  await second!.stop()
  assert.equal(second!.isRunning, false)
  await Promise.all(counters.map(counter => client.incr(counter)))
  await second!.start()
  await cluster.settled()
  await Promise.all(counters.map(counter => client.incr(counter)))
  assert.deepEqual(
    await client.mget(...counters),
    counters.map(() => '2'),
  )
  await eventually('the node that came back serves', 10_000, async () => {
    const only = await connect([second!.address])
    const value = await only.stale.get(counters[0]!)
    await only.close()
    return value === '2'
  })
}
