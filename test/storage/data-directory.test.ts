import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, describe, it } from 'node:test'
import fc from 'fast-check'
import { isError } from '../../src/errors.ts'
import { lockDirectory } from '../../src/lib/directory-lock.ts'
import { Prng } from '../../src/lib/prng.ts'
import { openDataDirectory, parseIdentity } from '../../src/storage/data-directory.ts'
import { programArguments } from '../lib/program.ts'

const root = mkdtempSync(join(tmpdir(), 'data-'))
const random = { next: Math.random, below: () => 0, bytes: (length: number) => randomBytes(length) }
const children: Child[] = []
let made = 0

after(() => {
  for (const child of children) child.process.kill('SIGKILL')
  rmSync(root, { recursive: true, force: true })
})

/** A path that nothing is at yet. */
const newPath = () => join(root, `d${made++}`)
const open = (path: string, nodeId: string | null = 'node1') => openDataDirectory({ path, nodeId, random })
const nodeFile = (path: string) => join(path, 'node.json')

function newDirectory(): string {
  const path = newPath()
  mkdirSync(path)
  return path
}

/** A directory that node1 has lived in. */
async function usedDirectory(): Promise<string> {
  const path = newPath()
  const directory = await open(path)
  directory.setClusterId('cluster-a')
  directory.close()
  return path
}

async function refused(path: string, why: RegExp, nodeId: string | null = 'node1'): Promise<void> {
  await assert.rejects(open(path, nodeId), error => {
    assert.ok(isError(error, 'DATA_DIR'), String(error))
    assert.equal(error.facts.path, path)
    assert.match(error.facts.why, why)
    return true
  })
}

function listening(path: string): Promise<Server> {
  return new Promise((settle, reject) => {
    const server = createServer(() => {})
    server.once('error', reject)
    server.listen(path, () => settle(server))
  })
}

/** Leaves a socket that nobody listens on, as a killed process does. */
async function leaveDeadSocket(path: string): Promise<void> {
  const server = await listening(`${path}-`)
  linkSync(`${path}-`, path)
  await new Promise(settle => server.close(settle))
}

interface Child {
  readonly process: ChildProcess
  ask(command: string): Promise<Record<string, unknown>>
  next(): Promise<Record<string, unknown>>
  kill(): Promise<void>
}

async function start(wrapper: readonly string[] = []): Promise<Child> {
  const entry = join(import.meta.dirname, 'data-directory-child.ts')
  const [command, ...args] = [...wrapper, process.execPath, ...programArguments(entry)]
  const spawned = spawn(command!, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: spawned.stdout })[Symbol.asyncIterator]()
  const ended = new Promise<void>(settle => spawned.once('close', () => settle()))
  const next = async () => {
    const { value, done } = await lines.next()
    if (done === true) throw new Error('the child ended')
    return JSON.parse(value)
  }
  const child: Child = {
    process: spawned,
    next,
    ask: command => {
      spawned.stdin.write(`${command}\n`)
      return next()
    },
    kill: () => {
      spawned.kill('SIGKILL')
      return ended
    },
  }
  children.push(child)
  assert.deepEqual(await next(), { ready: true })
  return child
}

describe('a data directory', () => {
  it('is made with its parents, for a node without a cluster, with a random store id', async () => {
    const path = join(newPath(), 'a', 'b')
    const directory = await open(path)
    assert.equal(directory.path, path)
    assert.equal(directory.isNew, true)
    const { storeId, ...rest } = directory.identity
    assert.match(storeId, /^[0-9a-f]{32}$/)
    assert.deepEqual(rest, { format: 1, clusterId: null, nodeId: 'node1', startCount: 1 })
    directory.close()
    const other = await open(newPath())
    assert.notEqual(other.identity.storeId, storeId)
    other.close()
  })

  it('keeps its ids and counts every start', async () => {
    const path = newPath()
    const first = await open(path)
    first.setClusterId('cluster-a')
    assert.equal(first.identity.clusterId, 'cluster-a')
    first.close()
    for (const startCount of [2, 3]) {
      const again = await open(path)
      assert.equal(again.isNew, false)
      assert.deepEqual(again.identity, { ...first.identity, startCount })
      again.close()
    }
  })

  it('holds nothing but node.json after a clean stop', async () => {
    assert.deepEqual(readdirSync(await usedDirectory()), ['node.json'])
  })

  it('is opened for whatever node lives there when no id is given, and never made then', async () => {
    const path = await usedDirectory()
    const directory = await open(path, null)
    assert.equal(directory.identity.nodeId, 'node1')
    directory.close()
    await refused(newDirectory(), /empty: no node lives there/, null)
    const absent = newPath()
    await refused(absent, /does not exist/, null)
    assert.equal(existsSync(absent), false)
  })

  it('belongs to one cluster for ever', async () => {
    const directory = await open(await usedDirectory())
    directory.setClusterId('cluster-a')
    assert.throws(
      () => directory.setClusterId('cluster-b'),
      error => isError(error, 'DATA_DIR') && /cluster cluster-a, not to cluster-b/.test(error.message),
    )
    assert.throws(
      () => directory.setClusterId('a b'),
      error => isError(error, 'INVALID_ARGUMENT'),
    )
    assert.equal(directory.identity.clusterId, 'cluster-a')
    directory.close()
  })

  it('reports a cluster id that could not be written, then and ever after', async () => {
    const path = newPath()
    const directory = await open(path)
    mkdirSync(join(path, 'node.json.tmp'))
    const isFailed = (error: unknown) => isError(error, 'STORAGE_FAILED') && /node\.json/.test(error.message)
    assert.throws(() => directory.setClusterId('cluster-a'), isFailed)
    rmSync(join(path, 'node.json.tmp'), { recursive: true })
    assert.throws(() => directory.setClusterId('cluster-a'), isFailed)
    assert.equal(directory.identity.clusterId, null)
    directory.close()
  })

  it('of another node is refused, and both are named', async () => {
    await refused(await usedDirectory(), /belongs to node node1, not to node2/, 'node2')
  })

  it('of a newer format is refused, and both formats are named', async () => {
    const path = newDirectory()
    const text = '{"format":7,"somethingNew":true}'
    writeFileSync(nodeFile(path), text)
    await refused(path, /format 7, this program knows 1/)
    assert.equal(readFileSync(nodeFile(path), 'utf8'), text)
  })

  it('that is not empty and has no node.json is refused and left as it is', async () => {
    const path = newDirectory()
    for (const name of ['d', 'c', 'b', 'a']) writeFileSync(join(path, name), name)
    await refused(path, /no node\.json, and is not empty \(a, b, c, …\)/)
    assert.deepEqual(readdirSync(path), ['a', 'b', 'c', 'd'])
  })

  it('may hold lost+found, logs and what a crash left before node.json was there', async () => {
    const path = newDirectory()
    mkdirSync(join(path, 'lost+found'))
    mkdirSync(join(path, 'logs'))
    writeFileSync(join(path, 'node.json.tmp'), '{"for')
    await leaveDeadSocket(join(path, `LOCK.${'a'.repeat(32)}`))
    await leaveDeadSocket(join(path, 'LOCK'))
    const directory = await open(path)
    assert.equal(directory.isNew, true)
    assert.deepEqual(readdirSync(path).sort(), ['LOCK', 'logs', 'lost+found', 'node.json'])
    directory.close()
  })

  it('is refused with the reason when it is no directory, or lies below something else', async () => {
    const file = newPath()
    writeFileSync(file, 'x')
    await refused(file, /not a directory/)
    await refused(join(file, 'below'), /ENOTDIR: not a directory/)
    const loop = newPath()
    symlinkSync(loop, loop)
    await refused(loop, /ELOOP/)
    assert.equal(readFileSync(file, 'utf8'), 'x')
  })

  it('is refused with the reason when its user may not read or write it', async () => {
    const path = await usedDirectory()
    const child = await start()
    // Root may do everything: the child becomes somebody else, now that it has read its own program.
    if (process.getuid!() === 0) {
      chmodSync(root, 0o755)
      await child.ask('user 65534')
    }
    chmodSync(path, 0o555)
    assert.match(
      String((await child.ask(`open ${path}`)).refused),
      /can't be written: EACCES: permission denied/,
    )
    chmodSync(path, 0o000)
    assert.match(
      String((await child.ask(`open ${path}`)).refused),
      /can't be read: EACCES: permission denied/,
    )
    chmodSync(path, 0o777)
    chmodSync(nodeFile(path), 0o000)
    const { refused } = await child.ask(`open ${path}`)
    assert.match(String(refused), /node\.json can't be read: EACCES: permission denied/)
    assert.deepEqual(readdirSync(path), ['node.json'])
    await child.kill()
  })

  it('holds a node.json that is whole after kill -9 at any moment, and a count that never falls', async () => {
    const path = newPath()
    let counted = 0
    for (const starts of [1, 7, 20, 40]) {
      const child = await start()
      let last = (await child.ask(`count ${path}`)).opened as number
      for (let i = 1; i < starts; i++) last = (await child.next()).opened as number
      await child.kill()
      assert.ok(last > counted)
      const directory = await open(path)
      assert.ok(directory.identity.startCount > last)
      counted = directory.identity.startCount
      directory.close()
    }
  })

  it('draws the store id from the randomness that it is given', async () => {
    const paths = [newPath(), newPath()]
    const ids = []
    for (const path of paths) {
      const directory = await openDataDirectory({ path, nodeId: 'node1', random: new Prng(7) })
      ids.push(directory.identity.storeId)
      directory.close()
    }
    assert.equal(ids[0], ids[1])
  })
})

describe('node.json', () => {
  it('of no kind of garbage is believed, or overwritten', async () => {
    const path = await usedDirectory()
    const text = readFileSync(nodeFile(path), 'utf8')
    const cases: readonly (readonly [string | Uint8Array, RegExp])[] = [
      ['', /is empty/],
      ['garbage', /no JSON text/],
      [text.slice(0, -3), /no JSON text/],
      [new Uint8Array(300), /no JSON text/],
      [Uint8Array.of(0x22, 0xff, 0x22), /no JSON text/],
      ['null', /no JSON object/],
      ['[1]', /no JSON object/],
      ['{}', /"format" is no version number/],
      [text.replace('"format": 1', '"format": "1"'), /"format" is no version number/],
      [text.replace('"format": 1', '"format": 0'), /"format" is no version number/],
      [text.replace('"nodeId": "node1"', '"node": "node1"'), /"nodeId" is missing/],
      [text.replace('node1', 'no/de'), /"nodeId" is not valid/],
      [text.replace(/"storeId": "./, '"storeId": "x'), /"storeId" is not valid/],
      [text.replace('"startCount": 1', '"startCount": 1.5'), /"startCount" is not valid/],
      [text.replace('"startCount": 1', '"startCount": 2'), /checksum is wrong/],
      [text.replace('"cluster-a"', 'null'), /checksum is wrong/],
      [text.replace('{', '{ "toString": 1,'), /"toString" is not known/],
      [text.padEnd(5000), /longer than 4096 bytes/],
    ]
    for (const [content, why] of cases) {
      const bytes = Buffer.from(content as string)
      assert.notEqual(bytes.toString(), text)
      writeFileSync(nodeFile(path), bytes)
      await refused(path, why)
      await refused(path, /^node\.json is damaged: .*; nothing was changed/)
      assert.deepEqual(readFileSync(nodeFile(path)), bytes)
      assert.deepEqual(readdirSync(path), ['node.json'])
    }
    writeFileSync(nodeFile(path), text)
    const directory = await open(path)
    assert.equal(directory.identity.startCount, 2)
    directory.close()
  })

  it('shows every flipped bit that changes what it says', async () => {
    const bytes = readFileSync(nodeFile(await usedDirectory()))
    const whole = parseIdentity(bytes)
    assert.equal(typeof whole, 'object')
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      const parsed = parseIdentity(flipped)
      if (typeof parsed !== 'string') assert.deepEqual(parsed, whole)
    }
  })

  it('is refused, never crashed on, whatever it holds', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map(text => Buffer.from(text)),
        ),
        bytes => {
          assert.equal(typeof parseIdentity(bytes), 'string')
        },
      ),
    )
  })
})

describe('the lock of a data directory', () => {
  it('refuses a second process, and the same one a second time', async () => {
    const path = newPath()
    const directory = await open(path)
    const before = readFileSync(nodeFile(path))
    const child = await start()
    const { refused: message } = await child.ask(`open ${path}`)
    assert.equal(message, `data directory ${path}: another process holds it`)
    await refused(path, /another process holds it/)
    assert.deepEqual(readFileSync(nodeFile(path)), before)
    assert.deepEqual(readdirSync(path).sort(), ['LOCK', 'node.json'])
    directory.close()
    directory.close()
    assert.deepEqual(await child.ask(`open ${path}`), { opened: 2 })
    assert.deepEqual(await child.ask('close'), { closed: true })
    await child.kill()
  })

  it('is held by a stopped process and freed by kill -9', async () => {
    const path = newPath()
    const child = await start()
    assert.deepEqual(await child.ask(`open ${path}`), { opened: 1 })
    child.process.kill('SIGSTOP')
    // More callers than the kernel keeps for a process that accepts none.
    for (let i = 0; i < 300; i++) {
      assert.deepEqual(await lockDirectory(path, random), {
        kind: 'refused',
        why: 'another process holds it',
      })
    }
    await child.kill()
    assert.ok(existsSync(join(path, 'LOCK')))
    const directory = await open(path)
    assert.equal(directory.identity.startCount, 2)
    directory.close()
  })

  it('goes to exactly one of five starters when its holder is killed, again and again', async () => {
    const path = newPath()
    const starters = await Promise.all(Array.from({ length: 5 }, () => start()))
    let holder = await start()
    assert.deepEqual(await holder.ask(`open ${path}`), { opened: 1 })
    await holder.kill()
    for (let round = 0; round < 40; round++) {
      const answers = await Promise.all(starters.map(starter => starter.ask(`open ${path}`)))
      const winners = starters.filter((_, i) => 'opened' in answers[i]!)
      assert.equal(winners.length, 1, JSON.stringify(answers))
      assert.equal(answers.find(answer => 'opened' in answer)!.opened, round + 2)
      for (const { refused } of answers) {
        if (refused !== undefined) assert.match(String(refused), /another process/)
      }
      holder = winners[0]!
      assert.deepEqual(readdirSync(path).sort(), ['LOCK', 'node.json'])
      await holder.ask('close')
      await leaveDeadSocket(join(path, 'LOCK'))
    }
    await Promise.all(starters.map(starter => starter.kill()))
  })

  it('goes to exactly one of many starters inside one process', async () => {
    const path = newDirectory()
    for (let round = 0; round < 20; round++) {
      await leaveDeadSocket(join(path, 'LOCK'))
      const results = await Promise.all(Array.from({ length: 20 }, () => lockDirectory(path, random)))
      const won = results.filter(result => result.kind === 'locked')
      assert.equal(won.length, 1)
      won[0]!.release()
      assert.deepEqual(readdirSync(path), [])
    }
  })

  it('is not taken from a starter that came before, nor waited for without end', async () => {
    const path = newDirectory()
    const lower = await listening(join(path, `LOCK.${'0'.repeat(32)}`))
    assert.deepEqual(await lockDirectory(path, random), {
      kind: 'refused',
      why: 'another process is opening it',
    })
    lower.close()
    const higher = await listening(join(path, `LOCK.${'f'.repeat(32)}`))
    assert.deepEqual(await lockDirectory(path, random, { waitMsMax: 50 }), {
      kind: 'refused',
      why: 'another process is opening it and does not go on',
    })
    higher.close()
  })

  it('is taken by the starter that waited when the other one gives up', async () => {
    const path = newDirectory()
    const higher = await listening(join(path, `LOCK.${'f'.repeat(32)}`))
    higher.once('connection', socket => {
      higher.close()
      socket.destroy()
    })
    const lock = await lockDirectory(path, random)
    assert.equal(lock.kind, 'locked')
    if (lock.kind === 'locked') lock.release()
  })

  it('is taken by the starter that waited when the other one dies, and what it left is swept', async () => {
    const path = newDirectory()
    const higher = await listening(join(path, 'socket'))
    // A second name stays behind when the socket closes, as after a kill.
    linkSync(join(path, 'socket'), join(path, `LOCK.${'f'.repeat(32)}`))
    higher.once('connection', socket => {
      higher.close()
      socket.destroy()
    })
    const lock = await lockDirectory(path, random)
    assert.equal(lock.kind, 'locked')
    assert.deepEqual(readdirSync(path), ['LOCK'])
    if (lock.kind === 'locked') lock.release()
  })

  it('that is not a socket is refused and kept', async () => {
    const path = await usedDirectory()
    writeFileSync(join(path, 'LOCK'), 'somebody’s')
    await refused(path, /LOCK in it is no socket/)
    assert.equal(readFileSync(join(path, 'LOCK'), 'utf8'), 'somebody’s')
    assert.deepEqual(readdirSync(path).sort(), ['LOCK', 'node.json'])
  })

  it('removes only its own socket', async () => {
    const path = newPath()
    const directory = await open(path)
    rmSync(join(path, 'LOCK'))
    await leaveDeadSocket(join(path, 'LOCK'))
    directory.close()
    assert.ok(existsSync(join(path, 'LOCK')))
  })

  it('holds below a path longer than a socket address', { skip: process.platform !== 'linux' }, async () => {
    const path = join(newPath(), 'x'.repeat(150), 'é'.repeat(100))
    const directory = await open(path)
    await refused(path, /another process holds it/)
    const child = await start()
    assert.match(String((await child.ask(`open ${path}`)).refused), /another process holds it/)
    directory.close()
    assert.deepEqual(await child.ask(`open ${path}`), { opened: 2 })
    await child.kill()
    const again = await open(path)
    assert.equal(again.identity.startCount, 3)
    again.close()
  })

  it('is one for a path by any name', async () => {
    const path = newPath()
    const directory = await open(path)
    const link = newPath()
    symlinkSync(path, link)
    await refused(link, /another process holds it/)
    directory.close()
  })

  const unshare = ['unshare', '--net', '--pid', '--ipc', '--uts', '--fork', '--kill-child']
  const canUnshare =
    process.platform === 'linux' && spawnSync(unshare[0]!, [...unshare.slice(1), 'true']).status === 0
  it('holds between containers that share a volume', { skip: !canUnshare && 'needs unshare' }, async () => {
    const path = newPath()
    const container = await start(unshare)
    assert.deepEqual(await container.ask(`open ${path}`), { opened: 1 })
    await refused(path, /another process holds it/)
    await container.kill()
    const directory = await open(path)
    assert.match(
      String((await (await start(unshare)).ask(`open ${path}`)).refused),
      /another process holds it/,
    )
    directory.close()
  })

  it('does not keep its process alive', () => {
    const script = `
      import { openDataDirectory } from ${JSON.stringify(join(import.meta.dirname, '../../src/storage/data-directory.ts'))}
      import { Prng } from ${JSON.stringify(join(import.meta.dirname, '../../src/lib/prng.ts'))}
      await openDataDirectory({ path: ${JSON.stringify(newPath())}, nodeId: 'node1', random: new Prng(1) })
      console.log('opened')`
    const args = ['--import', 'tsx', '--input-type=module', '--eval', script]
    const { status, stdout } = spawnSync(process.execPath, args, { timeout: 20_000, encoding: 'utf8' })
    assert.deepEqual({ status, stdout }, { status: 0, stdout: 'opened\n' })
  })

  it('leaves no descriptor open', { skip: !existsSync('/proc/self/fd') }, async () => {
    const path = newPath()
    const count = () => readdirSync('/proc/self/fd').length
    const once = async () => {
      const directory = await open(path)
      await refused(path, /holds it/)
      directory.close()
      await new Promise(settle => setImmediate(settle))
    }
    await once()
    const before = count()
    for (let i = 0; i < 20; i++) await once()
    assert.ok(count() <= before + 1, `${before} → ${count()}`)
  })
})

describe('whether a data directory was left clean', () => {
  it('is said by who closed it so, and by nobody who did not', async () => {
    const path = newPath()
    const first = await open(path)
    assert.equal(first.wasClean, true, 'a new one holds nothing half-way')
    first.close(true)
    const second = await open(path)
    assert.equal(second.wasClean, true)
    second.close(false)
    const third = await open(path)
    assert.equal(third.wasClean, false)
    third.close(true)
    const child = await start()
    await child.ask(`open ${path}`)
    await child.kill()
    assert.equal((await open(path)).wasClean, false, 'kill -9 of its last user')
  })
})
