/**
 * A real node: one process of `roundhouse serve` with a data directory of its own. It can be stopped, killed, frozen and
 * started again. Whatever happens to the test, no process and no directory outlives it: the nodes hold a pipe to their
 * parent, and an exit handler kills what still runs.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { programPath } from './cluster-program.ts'

/** Of each node's output, so many characters are kept for the report of a failure. */
const outputCharsMax = 1_000_000

/** What a killed node leaves running is gone by then. */
const removalMsMax = 10_000

const running = new Set<ChildProcess>()
const directories = new Set<string>()

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  for (const path of directories) removeDirectory(path)
})
// The test runner ends a file that takes too long by SIGTERM: then the handler above must run as well.
for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(name, () => process.exit(1))

export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'roundhouse-cluster-'))
  directories.add(path)
  return path
}

/**
 * What a killed node had begun in processes of its own (a scrub) ends a moment after it, and LMDB makes the directories that it
 * opens: one may be back when its parent is to go. rmSync's own retries don't look for new entries, so it is called again.
 */
export function removeDirectory(path: string): void {
  const deadline = Date.now() + removalMsMax
  for (;;) {
    try {
      rmSync(path, { recursive: true, force: true })
      directories.delete(path)
      return
    } catch (error) {
      if (Date.now() > deadline) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
    }
  }
}

const given = new Set<number>()

/** A port below those that systems give to outgoing connections: it stays free while its node is down. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000)
    if (given.has(port)) continue
    given.add(port)
    const isFree = await new Promise<boolean>(resolve => {
      const probe = createServer()
      probe.once('error', () => resolve(false))
      probe.listen({ host: '127.0.0.1', port, exclusive: true }, () => probe.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A first start fills 128 MiB with zeroes by default: of a hundred starts that is most of what a disk has to do here. */
const smallFiles = { JOURNAL_BUDGET: '64MiB', DISK_RESERVE: '8MiB' }

export class NodeProcess {
  readonly id: string
  readonly port: number
  readonly dataDir: string
  /** Flags beside those of its place, for every start. */
  flags: readonly string[]
  /** Variables beside PATH, for every start. */
  env: Readonly<Record<string, string>> = {}
  /** What Node itself is told, for every start. */
  runtime: readonly string[] = []
  private child: ChildProcess | null = null
  private exit: Promise<Exit> = Promise.resolve({ code: null, signal: null })
  private isFrozen = false
  private text = ''

  constructor(id: string, port: number, dataDir: string, flags: readonly string[]) {
    this.id = id
    this.port = port
    this.dataDir = dataDir
    this.flags = flags
  }

  get address(): string {
    return `127.0.0.1:${this.port}`
  }

  get isRunning(): boolean {
    return this.child !== null
  }

  /** Runs and is not frozen: a call may get an answer. */
  get isAwake(): boolean {
    return this.child !== null && !this.isFrozen
  }

  get pid(): number {
    if (this.child?.pid === undefined) throw new Error(`${this.id} does not run`)
    return this.child.pid
  }

  /** What the process has printed, all starts together. */
  get output(): string {
    return this.text
  }

  /** Settles when the process of the last start has ended. */
  get ended(): Promise<Exit> {
    return this.exit
  }

  start(): this {
    if (this.child !== null) throw new Error(`${this.id} runs already`)
    const own = ['--node-id', this.id, '--host', '127.0.0.1', '--port', String(this.port)]
    const args = ['serve', ...own, '--data-dir', this.dataDir, ...this.flags]
    const child = spawn(process.execPath, [...this.runtime, programPath(), ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '', ROUNDHOUSE_SUPERVISED: '1', ...smallFiles, ...this.env },
    })
    this.child = child
    this.isFrozen = false
    running.add(child)
    child.stdin.on('error', () => {})
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8')
      stream.on('data', (chunk: string) => {
        this.text = (this.text + chunk).slice(-outputCharsMax)
      })
    }
    this.exit = new Promise(resolve => {
      child.once('close', (code, signal) => {
        running.delete(child)
        if (this.child === child) this.child = null
        resolve({ code, signal })
      })
    })
    return this
  }

  /** Asks it to end, as an operator would; resolves with how it did. */
  stop(): Promise<Exit> {
    this.child?.kill('SIGTERM')
    return this.exit
  }

  /** kill -9: no chance to write anything more. */
  kill(): Promise<Exit> {
    this.child?.kill('SIGKILL')
    return this.exit
  }

  freeze(): void {
    this.isFrozen = true
    process.kill(this.pid, 'SIGSTOP')
  }

  resume(): void {
    process.kill(this.pid, 'SIGCONT')
    this.isFrozen = false
  }
}
