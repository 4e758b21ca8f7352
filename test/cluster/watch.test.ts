import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { connect, type WatchEvent, type Watcher } from '../../src/client/entry.ts'
import { Cluster, eventually, fastFlags } from '../lib/cluster-harness.ts'

const writers = 8
const timeoutMs = 60_000

/** What it gives, checked as it comes: each shard in order, and an entry’s changes behind each other. */
async function follow(watcher: Watcher<string>, seen: Map<string, string[]>): Promise<void> {
  const last = new Map<number, WatchEvent<string>>()
  for await (const event of watcher) {
    const { shard, revision, number, key, kind, value } = event
    const before = last.get(shard)
    assert.ok(
      before === undefined ||
        revision > before.revision ||
        (revision === before.revision && number === before.number + 1),
      `shard ${shard}: ${revision}.${number} after ${before?.revision}.${before?.number}`,
    )
    last.set(shard, event)
    const all = seen.get(key) ?? []
    seen.set(key, all)
    all.push(kind === 'set' ? value! : kind)
  }
}

describe('watches of real nodes', () => {
  it('miss nothing and show nothing twice when the node they come from and leaders are killed', async t => {
    await Cluster.with({ shardCount: 8, flags: fastFlags }, async cluster => {
      const client = await connect({ addresses: cluster.nodes.map(node => node.address), timeout: timeoutMs })
      try {
        const watchers = [
          client.watch({ prefix: 'w:' }),
          // Its shard's leader is where it watches first.
          client.watch({ key: 'w:0' }),
        ]
        const seen = watchers.map(() => new Map<string, string[]>())
        await Promise.all(watchers.map(each => each.ready()))
        const following = watchers.map((each, i) => follow(each, seen[i]!))
        const written = new Map<string, string[]>()
        let isWriting = true
        // One writer a key: what it wrote, in its order, is what there is to see of the key.
        const writing = Array.from({ length: writers }, async (_, writer) => {
          const key = `w:${writer}`
          const all: string[] = []
          written.set(key, all)
          for (let i = 0; isWriting; i++) {
            if (i % 10 === 9) {
              await client.del(key)
              all.push('delete')
            } else {
              await client.set(key, `${i}`)
              all.push(`${i}`)
            }
          }
        })
        for (const node of [1, 2]) {
          const before = written.get('w:0')!.length
          await eventually(
            'it is written to',
            timeoutMs,
            async () => written.get('w:0')!.length > before + 20,
          )
          await cluster.node(node).kill()
          await eventually('it is written to without one', timeoutMs, async () => {
            const all = [...written.values()].map(each => each.length)
            return Math.min(...all) > before + 40
          })
          cluster.node(node).start()
          await cluster.settled()
        }
        isWriting = false
        await Promise.all(writing)
        const count = [...written.values()].reduce((sum, each) => sum + each.length, 0)
        t.diagnostic(`${count} changes were written and watched`)
        await eventually('all was seen', timeoutMs, async () =>
          [...written].every(([key, all]) => (seen[0]!.get(key)?.length ?? 0) >= all.length),
        )
        await eventually(
          'all was seen of the key',
          timeoutMs,
          async () => (seen[1]!.get('w:0')?.length ?? 0) >= written.get('w:0')!.length,
        )
        for (const each of watchers) each.close()
        await Promise.all(following)
        assert.deepEqual(seen[0], new Map([...seen[0]!.keys()].map(key => [key, written.get(key)!])))
        assert.equal(seen[0]!.size, writers)
        assert.deepEqual(seen[1], new Map([['w:0', written.get('w:0')!]]))
      } finally {
        await client.destroy()
      }
    })
  })
})
