import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { credentials } from '@grpc/grpc-js'
import { connect } from '../../src/client/entry.ts'
import { ConsumeRequest, type ConsumeResponse, From, LogClient } from '../../src/gen/log/v1/log.ts'
import { crc32 } from '../../src/lib/crc.ts'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { isFull } from '../lib/scale.ts'

const bytes = 2 ** 30
const recordBytes = 16 * 1024
const moveMs = 600_000

/** Of all that the node's own replica has: how many records, and one checksum over theirs. */
async function replicaOf(address: string, stream: string): Promise<{ records: number; sum: number }> {
  const door = new LogClient(address, credentials.createInsecure())
  try {
    const request = { stream, from: From.EARLIEST, idleMs: 0, batches: true, linearizable: false }
    const call = door.consumeStream(ConsumeRequest.fromPartial(request))
    const found = { records: 0, sum: 0 }
    const own = Buffer.alloc(4)
    for await (const message of call as AsyncIterable<ConsumeResponse>)
      for (const { offset, crc } of message.records) {
        assert.equal(Number(offset), found.records++)
        own.writeUInt32LE(crc!)
        found.sum = crc32(own, found.sum)
      }
    return found
  } finally {
    door.close()
  }
}

describe('a large partition', () => {
  const skip = isFull ? false : 'npm run test:full'
  it('moves to another node while it is produced to and consumed from, and nobody misses a record', {
    skip,
  }, async t => {
    await Cluster.with({ shardCount: 4 }, async cluster => {
      const client = await connect({
        addresses: cluster.nodes.map(({ address }) => address),
        timeout: 30_000,
      })
      const mib = (count: number) => Math.round((count * recordBytes) / 2 ** 20)
      try {
        await client.streams.create('large')
        const value = (number: number) => {
          const record = Buffer.alloc(recordBytes, number % 251)
          record.writeUInt32LE(number)
          return record
        }
        let produced = 0
        const produce = async (count: number) => {
          const first = produced
          const values = Array.from({ length: count }, (_, i) => value(first + i))
          const places = await client.produce('large', values)
          assert.equal(places[0]!.offset, first)
          produced += count
        }
        const filledMs = Date.now()
        while (produced * recordBytes < bytes) await produce(64)
        t.diagnostic(`${mib(produced)} MiB were produced in ${Date.now() - filledMs} ms`)

        let isMoved = false
        const worstMs = { produce: 0, follow: 0 }
        const end = new AbortController()
        const producing = (async () => {
          while (!isMoved) {
            const begunMs = performance.now()
            await produce(1)
            worstMs.produce = Math.max(worstMs.produce, performance.now() - begunMs)
          }
        })()
        let followed = produced
        const following = (async () => {
          const options = { from: produced, follow: true, signal: end.signal }
          for await (const record of client.buffers.consume('large', options)) {
            assert.equal(record.offset, followed)
            assert.equal(record.value.readUInt32LE(), followed++)
            worstMs.follow = Math.max(worstMs.follow, Date.now() - record.timestampMs)
          }
        })().catch((error: Error) => {
          if (error.name !== 'AbortError') throw error
        })
        let read = 0
        const reading = (async () => {
          while (!isMoved) {
            let next = 0
            for await (const record of client.buffers.consume('large', { from: 0 })) {
              assert.equal(record.offset, next)
              assert.equal(record.value.readUInt32LE(), next++)
              read++
              if (isMoved) break
            }
          }
        })()

        // Of a test that fails elsewhere they are not the news.
        for (const each of [producing, following, reading]) each.catch(() => {})
        const [joiner, leaver] = [(await cluster.add()).start(), cluster.node(2)]
        await eventually('it is a member', 20_000, async () =>
          (await cluster.status(joiner)).nodes.some(node => node.nodeId === joiner.id),
        )
        const movedMs = Date.now()
        await eventually('the other may leave', 20_000, async () => {
          await cluster.client.leave(joiner.address, leaver.id)
          return true
        })
        await eventually('the node that leaves has ended', moveMs, () =>
          Promise.race([leaver.ended, Promise.resolve(null)]),
        )
        await cluster.settled(moveMs)
        const [part] = (await client.streams.describe('large')).parts
        assert.deepEqual([...part!.replicas].sort(), ['node1', 'node3', 'node4'])
        t.diagnostic(`moved in ${Date.now() - movedMs} ms, ${mib(read)} MiB were read meanwhile`)
        isMoved = true
        await Promise.all([producing, reading])
        await eventually('the follower has it all', 20_000, () => followed === produced)
        end.abort()
        await following
        t.diagnostic(
          `${produced} records; slowest: to acknowledge ${Math.round(worstMs.produce)} ms, to follow ${worstMs.follow} ms`,
        )
        const one = await replicaOf(cluster.node(1).address, 'large')
        assert.equal(one.records, produced)
        for (const node of [cluster.node(3), joiner])
          assert.deepEqual(await eventually('equal', 20_000, () => replicaOf(node.address, 'large')), one)
      } finally {
        await client.destroy()
      }
    })
  })
})
