import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { credentials } from '@grpc/grpc-js'
import {
  ConsumeRequest,
  type ConsumeResponse,
  From,
  LogClient,
  ProduceRequest,
} from '../../src/gen/log/v1/log.ts'
import { Prng } from '../../src/lib/prng.ts'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { Load, textOf } from '../lib/cluster-load.ts'
import type { NodeProcess } from '../lib/cluster-node.ts'
import { SmallDisk } from '../lib/small-disk.ts'

const soon = () => Date.now() + 20_000
const mebibyte = 2 ** 20

/** All nodes' fdatasync can be told to fail or to stall. */
const sickDisks = { NODE_OPTIONS: `--import ${new URL('./sick-disk.mjs', import.meta.url).href}` }
const say = (node: NodeProcess, order: 'fail' | 'stall') => writeFileSync(`${node.dataDir}.sick`, order)
const heal = (node: NodeProcess) => rmSync(`${node.dataDir}.sick`)

const loadOf = (
  cluster: Cluster,
  prefix: string,
  more: Partial<ConstructorParameters<typeof Load>[1]> = {},
) => new Load(cluster.client, { prefix, keys: 200, writers: 8, readers: 2, pick: cluster.anyNode, ...more })

describe('a sick disk', () => {
  const shared = Cluster.shared({ shardCount: 8, env: sickDisks })

  it(
    'whose fdatasync fails ends the node with the file named; the others go on, and a start with a good disk brings it back',
    shared(async cluster => {
      const node = cluster.node(2)
      const load = loadOf(cluster, 'failed')
      await load.fill()
      load.start()
      await load.writesMore(50)
      say(node, 'fail')
      const exit = await eventually('the node ends', 20_000, () =>
        Promise.race([node.ended, new Promise<null>(resolve => setTimeout(resolve, 100, null))]),
      )
      assert.deepEqual(exit, { code: 1, signal: null })
      const last = node.output.split('\n').filter(line => line.includes('"level":"error"'))
      assert.match(
        last.join('\n'),
        new RegExp(`${node.dataDir}/journal/segment-\\d+: EIO: i/o error, fdatasync`),
      )
      await load.writesMore(200)
      heal(node)
      node.start()
      await cluster.settled()
      await load.stop()
      await load.verify(cluster.nodes.map(each => each.address))
      assert.deepEqual(load.violations, [])
    }),
  )

  it(
    'that hangs moves the leadership to others within seconds, and heals without a restart',
    shared(async (cluster, t) => {
      const node = cluster.node(1)
      const load = loadOf(cluster, 'hung')
      await load.fill()
      load.start()
      const led = await eventually('the node leads again', 20_000, async () => {
        const { nodes } = await cluster.status(cluster.node(2))
        return nodes.find(each => each.nodeId === node.id)!.leaders
      })
      await load.writesMore(50)
      say(node, 'stall')
      const stalledMs = Date.now()
      await eventually('others lead all shards', 30_000, async () => {
        const { shards, meta } = await cluster.status(cluster.node(2))
        return [...shards, meta!].every(({ leader }) => leader !== '' && leader !== node.id)
      })
      t.diagnostic(`${led} shards had other leaders ${Date.now() - stalledMs} ms after the disk hung`)
      await load.writesMore(200)
      await eventually('status says so', 30_000, async () => {
        const { nodes } = await cluster.status(cluster.node(3))
        return nodes.find(each => each.nodeId === node.id)!.disk === 'hung'
      })
      const pid = node.pid
      heal(node)
      await eventually('status says that it is well', 20_000, async () => {
        const { nodes } = await cluster.status(cluster.node(3))
        return nodes.every(each => each.disk === 'ok')
      })
      await cluster.settled()
      await load.stop()
      assert.equal(node.pid, pid)
      await load.verify(cluster.nodes.map(each => each.address))
      assert.deepEqual(load.violations, [])
    }),
  )
})

describe('bits that flip on the disk of a stopped node', () => {
  it('are found after an unclean stop, never served, and what they broke comes anew from the others', async t => {
    await Cluster.with({ shardCount: 8 }, async cluster => {
      const load = loadOf(cluster, 'rot', { keys: 400, valueBytes: 300 })
      await load.fill()
      const node = cluster.node(3)
      const addresses = cluster.nodes.map(each => each.address)
      /** Stops the node so that all of its rows are in the state, damages it, and starts it as if it had been killed. */
      const damage = async (harm: () => void): Promise<() => string> => {
        const from = node.output.length
        assert.deepEqual(await node.stop(), { code: 0, signal: null })
        rmSync(join(node.dataDir, 'CLEAN'))
        harm()
        node.start()
        await eventually('the scrub is through', 60_000, () =>
          /scrub after an unclean stop/.test(node.output.slice(from)),
        )
        return () => node.output.slice(from)
      }
      const log = new LogClient(node.address, credentials.createInsecure())
      const values = Array.from({ length: 100 }, (_, i) => `record ${i} ${'.'.repeat(100)}`)
      await new Promise<void>((resolve, reject) =>
        log.produce(
          ProduceRequest.fromPartial({ records: values.map(value => ({ value: Buffer.from(value) })) }),
          error => (error === null ? resolve() : reject(error)),
        ),
      )
      const quarantinedIn = (output: string) =>
        output.match(/"replica":\d+,"why":[^\n]*is quarantined/g) ?? []

      load.start()
      const afterRows = await damage(() => flipRows(node, ['rot:123', 'rot:222', 'rot:321']))
      assert.match(afterRows(), /scrub: row|'s state: row/)
      await cluster.settled()
      const byRows = quarantinedIn(afterRows()).length
      assert.ok(byRows >= 1 && byRows <= 3, afterRows())
      await load.verify(addresses)

      const afterJournal = await damage(() => flipJournal(node, 5))
      assert.match(afterJournal(), /journal: damaged/)
      await cluster.settled()
      await load.verify(addresses)
      t.diagnostic(
        `replicas replaced: ${byRows} for 3 rows, ${quarantinedIn(afterJournal()).length} for 5 places of the journal`,
      )
      const afterRecords = await damage(() => flipRecord(node, 'record 50 '))
      assert.match(afterRecords(), /scrub: record \d+ of streams/)
      await eventually('the replica that had it is replaced', 20_000, () => {
        const [, replica] = /"replica":(\d+),"why":"scrub: record/.exec(afterRecords()) ?? []
        return replica !== undefined && !existsSync(join(node.dataDir, 'streams', replica))
      })
      await cluster.settled()
      const found: string[] = []
      const request = ConsumeRequest.fromPartial({ from: From.EARLIEST, idleMs: 0, linearizable: true })
      for await (const { record } of log.consumeStream(request) as AsyncIterable<ConsumeResponse>)
        found.push(record!.value.toString())
      log.close()
      assert.deepEqual(found, values)
      await load.stop()
      assert.deepEqual(load.violations, [])

      // What replaced them is sound: nobody is blamed in the next life.
      const next = await damage(() => {})
      assert.deepEqual(quarantinedIn(next()), [])
    })
  })
})

/** Flips a bit at so many places in what the journal has written. */
function flipJournal(node: NodeProcess, places: number): void {
  const random = new Prng(7)
  const directory = join(node.dataDir, 'journal')
  const name = readdirSync(directory).sort()[0]!
  const bytes = readFileSync(join(directory, name))
  let used = bytes.length
  while (used > 0 && bytes[used - 1] === 0) used--
  assert.ok(used > 10_000, 'the first segment is not the one in use')
  for (let place = 0; place < places; place++) bytes[random.below(used - 4096)]! ^= 4
  writeFileSync(join(directory, name), bytes)
}

/** Flips a bit in a record, wherever a stream's file has it. */
function flipRecord(node: NodeProcess, needle: string): void {
  const home = join(node.dataDir, 'streams')
  const files = readdirSync(home, { recursive: true, encoding: 'utf8' }).filter(name =>
    name.endsWith('.store'),
  )
  let hits = 0
  for (const name of files) {
    const bytes = readFileSync(join(home, name))
    const at = bytes.indexOf(needle)
    if (at < 0) continue
    bytes[at + needle.length]! ^= 4
    writeFileSync(join(home, name), bytes)
    hits++
  }
  assert.equal(hits, 1, `${needle} is in a file`)
}

/** Flips a bit in the values of these keys, wherever the state has them: pages that are not in use any more have them, too. */
function flipRows(node: NodeProcess, keys: readonly string[]): void {
  const path = join(node.dataDir, 'state', 'data.mdb')
  const bytes = readFileSync(path)
  for (const key of keys) {
    let hits = 0
    for (let at = bytes.indexOf(key); at >= 0; at = bytes.indexOf(key, at + 1)) {
      // A value is a number and spaces. Elsewhere a key stands to show the way.
      const place = at + key.length + 40
      if (bytes[place] !== 0x20) continue
      bytes[place] = 0x21
      hits++
    }
    assert.ok(hits > 0, `${key} is in the state`)
  }
  writeFileSync(path, bytes)
}

describe('full disks', () => {
  const disks = [SmallDisk.make(224 * mebibyte), SmallDisk.make(224 * mebibyte)]
  after(() => {
    for (const disk of disks) disk?.remove()
  })
  const skip = disks.includes(null) ? 'this process may not mount a small file system' : false

  it('of a minority hurt nobody; of a majority they stop writes that add, nothing else; all heal by themselves', {
    skip,
  }, async () => {
    const flags = ['--heartbeat-interval', '200ms', '--raft-tick', '25ms', '--disk-reserve', '8MiB']
    await Cluster.with({ nodes: 1, shardCount: 4, flags }, async cluster => {
      for (const disk of disks) {
        const node = await cluster.add()
        const home = join(disk!.path, node.id)
        mkdirSync(home)
        symlinkSync(home, node.dataDir)
        node.start()
      }
      await cluster.settled()
      const { client, anyNode } = cluster
      const load = loadOf(cluster, 'full', { writers: 4, valueBytes: 1000 })
      await load.fill()
      const pids = cluster.nodes.map(node => node.pid)
      const diskOf = async (number: number) => {
        const { nodes } = await cluster.status(cluster.node(1))
        return nodes.find(each => each.nodeId === `node${number}`)!.disk
      }
      await eventually('the reserves are there', 20_000, async () => {
        const all = await Promise.all([2, 3].map(number => client.stats(cluster.node(number).address)))
        return all.every(({ counters }) => counters.disk_reserved_bytes === 8 * mebibyte)
      })

      load.start()
      disks[0]!.fill()
      await eventually('node2 says that it is full', 30_000, async () => (await diskOf(2)) === 'full')
      await load.writesMore(200)
      await eventually('it leads nothing', 20_000, async () => {
        const { nodes } = await cluster.status(cluster.node(1))
        return nodes.find(each => each.nodeId === 'node2')!.leaders === 0
      })
      await load.writesMore(100)
      await load.stop()

      disks[1]!.fill(6 * mebibyte)
      await eventually('node3 says that it is nearly full', 30_000, async () => (await diskOf(3)) !== 'ok')
      const set = { command: 'SET', key: 'full:new', args: ['v'] }
      const refused = (what: string, address: () => string) =>
        eventually(what, 30_000, () =>
          client.run(address(), set).then(
            () => false,
            error => (error as { code?: string }).code === 'DISK_FULL',
          ),
        )
      await refused('writes are refused', anyNode)
      // By the leader of whatever shard, through whatever node.
      for (const node of cluster.nodes) await refused(`refused by ${node.id}`, () => node.address)
      assert.equal(
        Number(textOf(await client.read(anyNode, { command: 'GET', key: 'full:3' }, soon()))) > 0,
        true,
      )
      await client.session().write(anyNode, { command: 'DEL', key: 'full:gone' }, soon())
      disks[1]!.fill()
      await eventually('node3 says that it is full', 30_000, async () => (await diskOf(3)) === 'full')
      await refused('writes are still refused', anyNode)
      assert.equal(
        Number(textOf(await client.read(anyNode, { command: 'GET', key: 'full:5' }, soon()))) > 0,
        true,
      )

      for (const disk of disks) disk!.empty()
      await eventually('writes go on', 20_000, () =>
        client.run(anyNode(), set).then(
          () => true,
          () => false,
        ),
      )
      await eventually('all say that they are well', 20_000, async () =>
        (await Promise.all([2, 3].map(diskOf))).every(each => each === 'ok'),
      )
      await cluster.settled()
      load.start()
      await load.writesMore(200)
      await load.stop()
      await load.verify(cluster.nodes.map(each => each.address))
      assert.deepEqual(load.violations, [])
      assert.deepEqual(
        cluster.nodes.map(node => node.pid),
        pids,
        'nobody was restarted',
      )
    })
  })
})
