import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { Prng } from '../../src/lib/prng.ts'
import { eventually } from '../lib/cluster-harness.ts'
import { freePort } from '../lib/cluster-node.ts'
import { flipBits } from './flip-bits.ts'
import { faultKinds, Plan } from './nemesis.ts'
import { Network } from './network.ts'

const withinMs = 10_000

/** A network of node1, which answers what it is told, and the callers node2 and node3. */
async function echoing(
  test: (network: Network, dial: (from: string) => Socket, seen: Buffer[]) => Promise<void>,
) {
  const port = await freePort()
  const seen: Buffer[] = []
  const server: Server = createServer(socket => {
    socket.on('error', () => {})
    socket.on('data', (piece: Buffer) => {
      seen.push(piece)
      socket.write(piece)
    })
  })
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  const network = new Network(new Prng(1))
  const sources: Record<string, string> = { node1: '127.0.1.1', node2: '127.0.1.2', node3: '127.0.1.3' }
  const proxy = network.add('node1', sources.node1!, await freePort(), port)
  for (const name of ['node2', 'node3']) network.add(name, sources[name]!, await freePort(), await freePort())
  proxy.open()
  const sockets: Socket[] = []
  const dial = (from: string) => {
    const socket = connect({ host: '127.0.0.1', port: proxy.port, localAddress: sources[from]! })
    socket.on('error', () => {})
    sockets.push(socket)
    return socket
  }
  try {
    await eventually('the proxy listens', withinMs, async () => {
      const socket = dial('node3')
      return await new Promise<boolean>(resolve => {
        socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
      })
    })
    await test(network, dial, seen)
  } finally {
    for (const socket of sockets) socket.destroy()
    await network.close()
    server.close()
  }
}

const told = (seen: readonly Buffer[]) => Buffer.concat(seen).toString()

function heard(socket: Socket): { text: string; isClosed: boolean } {
  const state = { text: '', isClosed: false }
  socket.on('data', (piece: Buffer) => {
    state.text += piece.toString()
  })
  socket.once('close', () => {
    state.isClosed = true
  })
  return state
}

describe('the network of a chaos run', () => {
  it('keeps what is sent along a silent path, one direction alone, and delivers it when it is healed', async () => {
    await echoing(async (network, dial, seen) => {
      const two = dial('node2')
      const three = dial('node3')
      const atTwo = heard(two)
      const atThree = heard(three)
      network.change([['node1', 'node2']], { isSilent: true })
      two.write('a')
      three.write('b')
      // What node2 says arrives; what it is answered does not; node3 is not touched.
      await eventually('node1 hears both', withinMs, () => told(seen).length === 2)
      await eventually('node3 is answered', withinMs, () => atThree.text === 'b')
      assert.equal(atTwo.text, '')
      network.heal([['node1', 'node2']])
      await eventually('node2 is answered late', withinMs, () => atTwo.text === 'a')
    })
  })

  it('resets the connections of a path that refuses, new ones too, and no others', async () => {
    await echoing(async (network, dial) => {
      const [two, three] = [dial('node2'), dial('node3')]
      const atTwo = heard(two)
      const atThree = heard(three)
      two.write('a')
      await eventually('it works', withinMs, () => atTwo.text === 'a')
      network.change([['node2', 'node1']], { isRefusing: true })
      await eventually('it is reset', withinMs, () => atTwo.isClosed)
      const again = heard(dial('node2'))
      await eventually('so is the next', withinMs, () => again.isClosed)
      three.write('b')
      await eventually('node3 goes on', withinMs, () => atThree.text === 'b')
    })
  })

  it('keeps the order of delayed bytes and takes the time that was asked for', async () => {
    await echoing(async (network, dial, seen) => {
      const two = dial('node2')
      const atTwo = heard(two)
      network.change([['node2', 'node1']], { delayMs: 40, jitterMs: 40 })
      const startMs = performance.now()
      const text = Array.from({ length: 50 }, (_, number) => `${number},`)
      for (const each of text) two.write(each)
      await eventually('all is answered', withinMs, () => atTwo.text === text.join(''))
      assert.ok(performance.now() - startMs >= 40)
      assert.equal(told(seen), text.join(''))
    })
  })

  it('says again, over a connection of its own, what a caller had said', async () => {
    await echoing(async (network, dial, seen) => {
      const two = dial('node2')
      const atTwo = heard(two)
      two.write('vote')
      await eventually('it is answered', withinMs, () => atTwo.text === 'vote')
      assert.equal(network.replay('node2', 'node1'), 1)
      await eventually('node1 hears it twice', withinMs, () => told(seen) === 'votevote')
      assert.equal(atTwo.text, 'vote')
    })
  })
})

describe('the plan of a chaos run', () => {
  it('is the same for the same seed and has every kind of fault before long', () => {
    const episodes = (seed: number) => {
      const plan = new Plan(new Prng(seed))
      return Array.from({ length: 40 }, () => plan.next())
    }
    assert.deepEqual(episodes(7), episodes(7))
    assert.notDeepEqual(episodes(7), episodes(8))
    const kinds = new Set(episodes(7).flatMap(({ faults }) => faults.map(({ kind }) => kind)))
    assert.deepEqual([...kinds].sort(), [...faultKinds].sort())
  })
})

describe('flipped bits', () => {
  const directory = mkdtempSync(join(tmpdir(), 'flip-bits-'))
  after(() => rmSync(directory, { recursive: true }))

  it('are where something is written, and as many as are told', () => {
    const file = join(directory, 'journal', 'segment')
    const before = Buffer.alloc(40 * 4_096)
    before.fill(7, 9 * 4_096, 10 * 4_096)
    mkdirSync(join(directory, 'journal'))
    writeFileSync(file, before)
    const flips = flipBits(directory, 'journal', new Prng(3))
    const now = readFileSync(file)
    assert.ok(flips.length > 0)
    for (const { position, bit } of flips) {
      assert.equal(Math.floor(position / 4_096), 9)
      now[position]! ^= 1 << bit
    }
    assert.deepEqual(now, before)
  })

  it('are in the files of records too, however deep these lie', () => {
    const home = join(directory, 'streams', '7', '1', '3', '0-12')
    mkdirSync(home, { recursive: true })
    writeFileSync(join(home, '0.store'), Buffer.alloc(100, 1))
    const [flip] = flipBits(directory, 'streams', new Prng(4))
    assert.equal(flip?.file, join('streams', '7', '1', '3', '0-12', '0.store'))
    assert.notDeepEqual(readFileSync(join(home, '0.store')), Buffer.alloc(100, 1))
  })
})
