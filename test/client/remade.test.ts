import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { consumeVerb } from '../../src/cli/consume.ts'
import type { Client, ConsumeOptions } from '../../src/client/entry.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import { fakeShell } from '../cli/fake-cluster.ts'
import { until } from '../wire/grpc/harness.ts'
import { errorOf, type FakeNode, FakeNodes } from './fake-nodes.ts'

async function make({ streams }: FakeNode, ...values: string[]): Promise<void> {
  const kept = { retentionMs: null, retentionBytes: null }
  await streams.create({ name: 's', partitions: 1, ...kept, ifMissing: false })
  const records = values.map(value => ({ value: fromUtf8(value), key: null, headers: [], type: 0 }))
  await streams.produce({ stream: 's', partition: 0, records, session: null, timeoutMs: 1_000 })
}

async function makeAnew(node: FakeNode): Promise<void> {
  if (node.streams.list().length === 0) await make(node, 'first')
  await node.streams.delete('s')
  await make(node, 'other', 'records', 'of', 'another', 'stream')
}

const waits = (node: FakeNode) => until('it waits for more', () => node.streams.waiting === 1)

describe('a consumer whose stream is deleted and made anew while its node is away', () => {
  let fakes: FakeNodes
  let client: Client
  beforeEach(async () => {
    fakes = await FakeNodes.start(1)
    client = await fakes.connect({ timeout: 10_000 })
    await make(fakes.nodes[0]!, 'a', 'b')
  })
  afterEach(async () => {
    await client.destroy()
    await fakes.close()
  })

  it('is told so, and gets no record of the other one', async () => {
    const [node] = fakes.nodes
    for (const [options, before] of [
      [{}, ['a', 'b']],
      [{ from: 1 }, ['b']],
      // Nothing has come: it is the stream whose end it has asked for.
      [{ from: 'latest' }, []],
    ] as readonly (readonly [ConsumeOptions, readonly string[]])[]) {
      const consumer = client.consume('s', { ...options, follow: true })
      const values: string[] = []
      const read = async () => {
        for await (const { value } of consumer) values.push(value)
      }
      const ended = errorOf(read())
      await waits(node!)
      await node!.close()
      await makeAnew(node!)
      await node!.listen()
      const { code, outcome } = await ended
      assert.deepEqual([code, outcome, values], ['STREAM_REMADE', 'refused', before])
      await node!.streams.delete('s')
      await make(node!, 'a', 'b')
    }
  })

  it('is told so in the shell, too, by another node', async () => {
    for (const [from, before] of [
      ['earliest', 'a\nb\n'],
      ['latest', ''],
    ] as const) {
      const both = await FakeNodes.start(2)
      try {
        const [first, second] = both.nodes
        await make(first!, 'a', 'b')
        await makeAnew(second!)
        const shell = fakeShell({ ROUNDHOUSE_NODE: both.nodes.map(({ address }) => address).join(',') })
        const ended = runCli(['consume', 's', '--follow', '--from', from], shell, [consumeVerb])
        await waits(first!)
        await first!.close()
        assert.equal(await ended, 1)
        assert.equal(shell.stdout.text(), before)
        assert.match(shell.stderr.text(), /^error: ERR stream was made anew: s is 2 now, 1 was read before/)
      } finally {
        await both.close()
      }
    }
  })
})
