import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, afterEach, describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { colorsFor } from '../../src/cli/colors.ts'
import { devAddNodeVerb } from '../../src/cli/dev-add-node.ts'
import { DevCluster, shortOf } from '../../src/cli/dev-cluster.ts'
import { socketPath } from '../../src/cli/dev-socket.ts'
import { devStartVerb } from '../../src/cli/dev-start.ts'
import { Lines, LogFile } from '../../src/cli/log-file.ts'
import { pause } from '../../src/cli/shell.ts'
import { programArguments } from '../lib/program.ts'
import { type FakeShell, fakeNode, fakeShell } from './fake-cluster.ts'

const program = [process.execPath, ...programArguments(resolve(import.meta.dirname, 'fake-node-program.ts'))]
const root = mkdtempSync(join(tmpdir(), 'roundhouse-dev-'))
/** For one step. A node starts within 2 s; a busy machine may need many times that. */
const deadlineMs = 30_000
/** A test that failed half-way must not leave a process running. */
const running: { shell: FakeShell; ended: Promise<number> }[] = []
afterEach(async () => {
  for (const { shell } of running) shell.controller.abort()
  await Promise.all(running.splice(0).map(({ ended }) => ended))
})
after(() => rmSync(root, { recursive: true }))
let folders = 0
const folder = () => {
  folders += 1
  const path = join(root, `data${folders}`)
  mkdirSync(path)
  return path
}

function run(...args: string[]): { shell: FakeShell; ended: Promise<number> } {
  const shell = { ...fakeShell({ PATH: process.env.PATH! }), program }
  const started = { shell, ended: runCli(['dev', ...args], shell, [devStartVerb, devAddNodeVerb]) }
  running.push(started)
  return started
}

async function until(what: string, isTrue: () => boolean): Promise<void> {
  const deadline = Date.now() + deadlineMs
  while (!isTrue()) {
    if (Date.now() > deadline) assert.fail(`not within ${deadlineMs} ms: ${what}`)
    await new Promise(wait => setTimeout(wait, 20))
  }
}

/** The exit code; a verb that does not end fails its test and is told to by `afterEach`. */
async function endOf({ ended }: { readonly ended: Promise<number> }): Promise<number> {
  const abort = new AbortController()
  const late = pause(deadlineMs, abort.signal).then(() => assert.fail(`no end within ${deadlineMs} ms`))
  try {
    return await Promise.race([ended, late])
  } finally {
    late.catch(() => {})
    abort.abort()
  }
}

/** A run of free ports, far from those that a cluster of the person at this machine would use. */
async function basePort(): Promise<number> {
  const taken = (port: number) =>
    new Promise<Server | null>(done => {
      const server = createServer()
      server.once('error', () => done(null))
      server.listen(port, '127.0.0.1', () => done(server))
    })
  // Below the ports that the system gives to connections.
  for (let base = 10_000 + (process.pid % 2_000) * 10; ; base += 10) {
    const servers = await Promise.all([0, 1, 2, 3, 4].map(place => taken(base + place)))
    for (const server of servers)
      await new Promise(done => (server === null ? done(null) : server.close(done)))
    if (servers.every(server => server !== null)) return base
  }
}

const argumentsOf = (data: string, node: string): string[] =>
  JSON.parse(readFileSync(join(data, node, 'arguments'), 'utf8'))

describe('a development cluster', () => {
  it('starts, grows, survives a killed node, lets one leave, stops, and starts again with all of its nodes', async () => {
    const data = folder()
    const base = String(await basePort())
    const port = (place: number) => String(Number(base) + place)
    const first = run('start', '--data', data, '--base-port', base, '--nodes', '2')
    await until('the table', () => first.shell.stdout.text().includes('Ctrl-C stops'))
    const text = first.shell.stdout.text()
    assert.match(text, new RegExp(`node1 +127.0.0.1:${port(0)} .*alive`))
    assert.match(
      text,
      /npx roundhouse set greeting hello --node 127\.0\.0\.1:\d+\n.*get greeting.*\n.*dev add-node --data/,
    )
    // A pipe may be slower than the call that told the cluster's state.
    await until('the warning', () => first.shell.stdout.text().includes('node1 warn slow sync\n'))
    assert.doesNotMatch(first.shell.stdout.text(), /quiet event/)
    assert.match(readFileSync(join(data, 'node1.log'), 'utf8'), /quiet event/)
    assert.ok(argumentsOf(data, 'node1').includes('--bootstrap'))
    assert.ok(!argumentsOf(data, 'node1').includes('--seed'))
    // There and empty: what is each node's own does not come from .env or a file either.
    const env = JSON.parse(readFileSync(join(data, 'node2', 'environment'), 'utf8'))
    assert.deepEqual([env.BOOTSTRAP, env.CONFIG_FILE, env.CLUSTER_DNS, env.SEED], ['', '', '', ''])
    assert.deepEqual(argumentsOf(data, 'node2').slice(-2), ['--seed', `127.0.0.1:${port(0)}`])

    const second = run('start', '--data', data, '--base-port', base)
    assert.equal(await endOf(second), 1)
    assert.match(second.shell.stderr.text(), new RegExp(`process ${process.pid} runs its nodes already`))

    const added = run('add-node', '--data', data, '-o', 'json')
    assert.equal(await endOf(added), 0)
    assert.deepEqual(JSON.parse(added.shell.stdout.text()), {
      node_id: 'node3',
      address: `127.0.0.1:${port(2)}`,
    })

    process.kill(pidOf(data, 'node2'), 'SIGKILL')
    await until('the report', () => first.shell.stdout.text().includes('node2 was killed by SIGKILL'))
    assert.match(
      first.shell.stdout.text(),
      new RegExp(
        `the others go on[^\\n]*\\n +npx roundhouse serve --node-id node2 .*--port ${port(1)} .*--seed 127`,
      ),
    )

    const byHand = await fakeNode({}, Number(port(1)))
    await until('the return', () =>
      first.shell.stdout.text().includes(`node2 is back at 127.0.0.1:${port(1)}`),
    )

    writeFileSync(join(data, 'node3', 'leave'), '')
    await until('the farewell', () => first.shell.stdout.text().includes('node3 has left the cluster'))
    assert.ok(existsSync(join(data, 'node3.left')))

    first.shell.controller.abort()
    assert.equal(await endOf(first), 0)
    assert.match(first.shell.stdout.text(), /node2 goes on where it was started by hand/)
    byHand.close()
    assert.ok(!existsSync(join(data, 'node1', 'address')))
    assert.ok(!existsSync(socketPath(data)))

    // A supervisor that was killed leaves its socket file behind.
    writeFileSync(socketPath(data), '')
    const again = run('start', '--data', data, '--base-port', base)
    await until('the second table', () => again.shell.stdout.text().includes('Ctrl-C stops'))
    assert.match(again.shell.stdout.text(), /2 nodes start/)
    assert.ok(argumentsOf(data, 'node1').includes('--seed'))
    const grown = run('add-node', '--data', data)
    assert.equal(await endOf(grown), 0)
    assert.match(grown.shell.stdout.text(), /node4 is a member/)
    again.shell.controller.abort()
    assert.equal(await endOf(again), 0)
  })

  it('starts nothing where a port is taken, and names the port', async () => {
    const data = folder()
    const base = await basePort()
    const other = createServer().listen(base + 1, '127.0.0.1')
    await new Promise(done => other.once('listening', done))
    const { shell, ended } = run('start', '--data', data, '--base-port', String(base))
    const code = await endOf({ ended })
    other.close()
    assert.equal(code, 1)
    assert.match(shell.stderr.text(), new RegExp(`127.0.0.1:${base + 1} is in use`))
    assert.ok(!existsSync(join(data, 'node1')))
  })

  it('ends with 1 when all nodes have ended, and shows what they said', async () => {
    const data = folder()
    mkdirSync(join(data, 'node1'))
    writeFileSync(join(data, 'node1', 'broken'), '')
    const { shell, ended } = run('start', '--data', data, '--base-port', String(await basePort()))
    assert.equal(await endOf({ ended }), 1)
    assert.match(
      shell.stdout.text(),
      /node1 TypeError: broken on purpose[\s\S]*node1 ended with 3 \(log: .*node1\.log\)/,
    )
  })

  it('kills a node that does not stop, and says so', async () => {
    const data = folder()
    mkdirSync(join(data, 'node1'))
    writeFileSync(join(data, 'node1', 'stubborn'), '')
    const shell = fakeShell()
    const cluster = new DevCluster({
      ...{ dataDir: data, basePort: await basePort(), program, env: process.env, output: shell.stdout },
      stopMsMax: 50,
    })
    await cluster.start(1)
    try {
      assert.notEqual(await cluster.ready(AbortSignal.timeout(deadlineMs), () => {}), null)
    } finally {
      assert.equal(await cluster.stop(), false)
    }
    assert.match(shell.stdout.text(), /node1 does not stop: killed/)
  })

  it('is told apart from none by add-node', async () => {
    const { shell, ended } = run('add-node', '--data', folder())
    assert.equal(await endOf({ ended }), 75)
    assert.match(shell.stderr.text(), /no "npm start" runs on that directory/)
  })

  it('checks its options', async () => {
    const { shell, ended } = run('start', '--nodes', '0', '--base-port', 'x')
    assert.equal(await endOf({ ended }), 2)
    assert.match(shell.stderr.text(), /--base-port: "x"[\s\S]*--nodes: "0"/)
  })
})

describe("a node's line in the terminal", () => {
  const short = (record: unknown) => shortOf(colorsFor({ isTerminal: false }, {}), JSON.stringify(record))

  it('has the fields of a warning, and of an error what it says', () => {
    const own = { time: '2026-01-01T00:00:00Z', node: 'node1' }
    assert.equal(
      short({ level: 'warn', ...own, member: 'node2', from: 'alive', to: 'suspect', msg: 'member state' }),
      'warn member state member=node2 from=alive to=suspect',
    )
    assert.equal(
      short({
        level: 'error',
        ...own,
        msg: 'failed',
        error: { message: 'no luck', stack: 'x' },
        why: 'a b',
        n: 3,
      }),
      'error failed error="no luck" why="a b" n=3',
    )
  })

  it('is left out of what is no trouble, and as it is where it is no log line', () => {
    assert.equal(short({ level: 'info', msg: 'quiet' }), null)
    assert.equal(shortOf(colorsFor({ isTerminal: false }, {}), 'TypeError: x'), 'TypeError: x')
  })
})

describe('a log file', () => {
  it('keeps one predecessor and ends at its size', () => {
    const path = join(folder(), 'node1.log')
    const log = new LogFile(path, 10)
    for (const text of ['12345678', 'abc', 'defghij', 'x']) log.write(Buffer.from(text))
    log.close()
    assert.deepEqual([readFileSync(`${path}.1`, 'utf8'), readFileSync(path, 'utf8')], ['abcdefghij', 'x'])
  })

  it('cuts chunks into lines, wherever they are cut, characters too', () => {
    const lines: string[] = []
    const cutter = new Lines(line => lines.push(line))
    for (const byte of Buffer.from('eins\nzwölf\n\nrest')) cutter.push(Uint8Array.of(byte))
    cutter.end()
    assert.deepEqual(lines, ['eins', 'zwölf', '', 'rest'])
  })
})

function pidOf(data: string, node: string): number {
  return Number(readFileSync(join(data, node, 'pid'), 'utf8'))
}
