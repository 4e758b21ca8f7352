/**
 * The supervisor behind `dev start`: one process a node on 127.0.0.1, all from one data directory. A node's life hangs
 * on the pipe to its standard input: closing it is the order to stop, and the kernel gives that order too when this
 * process is killed. Nodes are in process groups of their own, so that a Ctrl-C reaches them in this way only.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, renameSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { join, relative } from 'node:path'
import { RoundhouseError } from '../errors.ts'
import type { StatusResponse } from '../gen/roundhouse/v1/admin.ts'
import { fetchStatus } from './calls.ts'
import { type Colors, colorsFor } from './colors.ts'
import { Nodes } from './connection.ts'
import { checkCertificates, type DevTls } from './dev-tls.ts'
import { Lines, LogFile } from './log-file.ts'
import { type Output, pause } from './shell.ts'

const host = '127.0.0.1'
/** A node stops within 8 s; after this it is killed. */
const stopMsMax = 10_000
const pollMs = 250
/** Between two looks whether a node that ended was started by hand. */
const returnPollMs = 500
/** How often the others are asked, 2 s each at most, whether a node that ended has left the cluster. */
const hasLeftAsksMax = 5
/** Of a node's warnings, so many a second come to the terminal; the rest is in its log. */
const echoLinesMax = 5
/** How long a cluster must be quiet to count as ready though it has fewer voters than nodes would allow. */
const settledMs = 3_000
/** Settings that are each node's own: from the environment, .env or a file they would be the same for all. */
const ownVariables = [
  'ADVERTISE_ADDR',
  'ADVERTISE_CLIENT_ADDR',
  'BIND_ADDR',
  'BOOTSTRAP',
  'CLUSTER_DNS',
  'CONFIG_FILE',
  ...['SEED', 'SEED_NODE', 'SEED_NODES', 'SEED_NODE_ADDR'],
  'NODE_ID',
  'TLS_CERT_PATH',
  'TLS_KEY_PATH',
  'TLS_CA_PATH',
  ...['SERVER_TLS_CERT_FILE', 'SERVER_TLS_KEY_FILE', 'SERVER_TLS_CA_FILE'],
  ...['PEER_TLS_CERT_FILE', 'PEER_TLS_KEY_FILE', 'PEER_TLS_CA_FILE'],
]

export interface DevOptions {
  readonly dataDir: string
  /** node1's port; the next numbers are the next nodes'. */
  readonly basePort: number
  /** What starts this program, to be followed by `serve …`. */
  readonly program: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly output: Output
  /** null: plain connections. */
  readonly tls?: DevTls | null
  readonly stopMsMax?: number
}

interface Child {
  readonly id: string
  readonly address: string
  readonly dir: string
  readonly process: ChildProcess
  /** Resolves when the process has ended and its output is read. */
  readonly ended: Promise<void>
}

export class DevCluster {
  private readonly options: DevOptions
  /** Running nodes by id. */
  private readonly children = new Map<string, Child>()
  private readonly settling = new Set<Promise<void>>()
  private readonly nothingRuns: Promise<void>
  private onNothingRuns: () => void = () => {}
  private isStopping = false
  private hadToKill = false
  private additions: Promise<unknown> = Promise.resolve()
  /** Ends the watch for nodes that may come back. */
  private readonly returning = new AbortController()
  private readonly byHand = new Set<string>()

  constructor(options: DevOptions) {
    this.options = options
    this.nothingRuns = new Promise(resolve => {
      this.onNothingRuns = resolve
    })
  }

  get size(): number {
    return this.children.size
  }

  /** Resolves when the last node has ended. */
  get emptied(): Promise<void> {
    return this.nothingRuns
  }

  /** Starts every node that has a directory, or `firstNodes` where there is none. Throws PORT_IN_USE before any start. */
  async start(firstNodes: number): Promise<void> {
    const known = nodeNumbers(this.options.dataDir)
    const isFresh = known.length === 0
    const numbers = isFresh ? Array.from({ length: firstNodes }, (_, place) => place + 1) : known
    checkCertificates(
      this.options.tls,
      numbers.map(number => `node${number}`),
    )
    const taken = []
    for (const number of numbers) if (!(await isFree(this.portOf(number)))) taken.push(this.portOf(number))
    if (taken.length > 0) {
      throw new RoundhouseError('PORT_IN_USE', { address: taken.map(port => `${host}:${port}`).join(', ') })
    }
    const addresses = numbers.map(number => this.addressOf(number))
    numbers.forEach((number, place) => {
      const others = addresses.filter((_, other) => other !== place)
      const isFirst = place === 0
      // Where some data exists, the first node asks the others as well before it makes a cluster: its own may be lost.
      this.spawn(number, isFirst && isFresh ? [] : others, isFirst)
    })
  }

  /** Starts one node more; resolves with it when it is a member. */
  addNode(
    onProgress: (text: string) => void,
    signal: AbortSignal,
  ): Promise<{ node: string; address: string }> {
    const addition = this.additions.then(() => this.addOne(onProgress, signal))
    this.additions = addition.catch(() => {})
    return addition
  }

  private async addOne(
    onProgress: (text: string) => void,
    signal: AbortSignal,
  ): Promise<{ node: string; address: string }> {
    if (this.isStopping) throw new RoundhouseError('SHUTTING_DOWN', {})
    // Names of nodes that have left are not used again: the cluster remembers them.
    const number = Math.max(0, ...nodeNumbers(this.options.dataDir), ...leftNumbers(this.options.dataDir)) + 1
    const seeds = [...this.children.values()].map(each => each.address)
    checkCertificates(this.options.tls, [`node${number}`])
    if (!(await isFree(this.portOf(number)))) {
      throw new RoundhouseError('PORT_IN_USE', { address: this.addressOf(number) })
    }
    const child = this.spawn(number, seeds, false)
    onProgress(`${child.id} starts at ${child.address}`)
    let hasEnded = false
    void child.ended.then(() => {
      hasEnded = true
    })
    let last = ''
    while (!signal.aborted && !hasEnded) {
      const state =
        (await this.status(signal))?.nodes.find(each => each.nodeId === child.id)?.state ?? 'not known yet'
      if (state === 'alive') return { node: child.id, address: child.address }
      if (state !== last) onProgress(`${child.id} is ${state}`)
      last = state
      await pause(pollMs, signal)
    }
    throw new Error(
      hasEnded
        ? `${child.id} ended before it was a member: see ${this.logOf(child.id)}`
        : 'npm start is stopping',
    )
  }

  /** Tells how far it is until every shard has a leader and its voters; null when it was stopped before. */
  async ready(signal: AbortSignal, onProgress: (text: string) => void): Promise<StatusResponse | null> {
    let last = ''
    let quietSince: number | null = null
    while (!signal.aborted && this.children.size > 0) {
      const status = await this.status(signal)
      const found =
        status === null ? { text: 'no node answers yet', isReady: false, isQuiet: false } : this.judge(status)
      if (status !== null && found.isReady) return status
      quietSince = found.isQuiet ? (quietSince ?? Date.now()) : null
      if (status !== null && quietSince !== null && Date.now() - quietSince >= settledMs) return status
      if (found.text !== last) onProgress(found.text)
      last = found.text
      await pause(pollMs, signal)
    }
    return null
  }

  private judge(status: StatusResponse): { text: string; isReady: boolean; isQuiet: boolean } {
    const alive = status.nodes.filter(node => node.state === 'alive')
    const factor = Number(this.options.env.REPLICATION_FACTOR ?? '') || 3
    const replicas = Math.min(factor, alive.length)
    const voters = replicas % 2 === 1 ? replicas : Math.max(0, replicas - 1)
    const led = status.shards.filter(shard => shard.leader !== '')
    const full = led.filter(shard => shard.voters.length >= voters)
    const isWhole = [...this.children.keys()].every(id => alive.some(node => node.nodeId === id))
    const isLed =
      isWhole && status.meta?.leader !== '' && led.length === status.shards.length && led.length > 0
    return {
      text:
        status.shards.length === 0
          ? 'the first node founds the cluster'
          : `${alive.length} of ${this.children.size} nodes are members; of ${status.shards.length} shards ` +
            `${led.length} have a leader, ${full.length} their ${voters} voter${voters === 1 ? '' : 's'}`,
      isReady: isLed && full.length === led.length,
      isQuiet:
        isLed &&
        status.rebalance?.state === 'idle' &&
        status.shards.every(shard => shard.learners.length === 0),
    }
  }

  /** Orders all nodes to stop and waits; kills what does not. True when nothing had to be killed. */
  async stop(): Promise<boolean> {
    if (!this.isStopping && this.byHand.size > 0)
      this.say(`${[...this.byHand].join(', ')} goes on where it was started by hand`)
    this.isStopping = true
    this.returning.abort()
    const running = [...this.children.values()]
    for (const child of running) child.process.stdin?.end()
    const timer = setTimeout(() => {
      for (const child of this.children.values()) {
        this.hadToKill = true
        this.say(`${child.id} does not stop: killed`)
        child.process.kill('SIGKILL')
      }
    }, this.options.stopMsMax ?? stopMsMax)
    await Promise.all(running.map(child => child.ended))
    clearTimeout(timer)
    await Promise.all(this.settling)
    return !this.hadToKill
  }

  // --- One node -----------------------------------------------------------------------------------------------------

  private spawn(number: number, seeds: readonly string[], isBootstrap: boolean): Child {
    const id = `node${number}`
    const dir = join(this.options.dataDir, id)
    mkdirSync(dir, { recursive: true })
    const args = this.serveArguments(number, seeds)
    if (isBootstrap) args.push('--bootstrap')
    const [command, ...programArguments] = this.options.program
    const env: Record<string, string | undefined> = { ...this.options.env, ROUNDHOUSE_SUPERVISED: '1' }
    // An empty variable is none, and hides the line of .env.
    for (const name of ownVariables) env[name] = ''
    const child = spawn(command!, [...programArguments, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
      env: env as NodeJS.ProcessEnv,
    })
    const log = new LogFile(this.logOf(id))
    const echo = this.echoOf(id)
    for (const stream of [child.stdout, child.stderr]) {
      const lines = new Lines(echo)
      stream.on('data', (chunk: Uint8Array) => {
        log.write(chunk)
        lines.push(chunk)
      })
      stream.on('end', () => lines.end())
    }
    // Its end is told by 'close'; a pipe that breaks before is no news.
    child.stdin.on('error', () => {})
    const ended = new Promise<void>(resolve => {
      child.on('error', error => {
        this.say(`${id} can't be started: ${error.message}`)
        if (child.pid === undefined) this.forget(id, log, resolve)
      })
      child.on('close', (code, signal) => {
        const restart = this.serveArguments(number, this.seedsFor(id))
        if (isBootstrap) restart.push('--bootstrap')
        this.forget(id, log, resolve)
        if (this.isStopping) return
        const work = this.explain(id, dir, code, signal, restart).finally(() => this.settling.delete(work))
        this.settling.add(work)
      })
    })
    const started = { id, address: this.addressOf(number), dir, process: child, ended }
    this.children.set(id, started)
    return started
  }

  private forget(id: string, log: LogFile, resolve: () => void): void {
    if (!this.children.delete(id)) return
    log.close()
    resolve()
    if (this.children.size === 0) this.onNothingRuns()
  }

  /** Nobody asked for this end: says what happened and how to undo it. */
  private async explain(
    id: string,
    dir: string,
    code: number | null,
    signal: NodeJS.Signals | null,
    restart: readonly string[],
  ): Promise<void> {
    if (code === 0 && (await this.hasLeft(id))) {
      const kept = `${dir}.left`
      renameSync(dir, kept)
      this.say(
        `${id} has left the cluster; what it held was moved to the others, its old files are in ${kept}`,
      )
      return
    }
    const how =
      signal !== null ? `was killed by ${signal}` : code === 0 ? 'was stopped' : `ended with ${code}`
    const log = signal === null && code !== 0 ? ` (log: ${this.logOf(id)})` : ''
    this.say(
      `${id} ${how}${log}; the others go on. To start it again:\n  npx roundhouse ${restart.map(inShell).join(' ')}`,
    )
    void this.watchFor(id)
  }

  /** Somebody starts it again by hand: then it is not ours, and people should know. */
  private async watchFor(id: string): Promise<void> {
    const { signal } = this.returning
    const port = this.portOf(Number(id.slice('node'.length)))
    do await pause(returnPollMs, signal)
    while (!signal.aborted && !(await isOpen(port)))
    if (signal.aborted) return
    this.byHand.add(id)
    this.say(`${id} is back at ${host}:${port}, started by hand: Ctrl-C here does not stop it`)
  }

  /** The others know; a busy machine may keep them from answering at once. */
  private async hasLeft(id: string): Promise<boolean> {
    const { signal } = new AbortController()
    for (let asked = 0; asked < hasLeftAsksMax && this.children.size > 0 && !this.isStopping; asked++) {
      const status = await this.status(signal)
      if (status !== null) {
        const node = status.nodes.find(each => each.nodeId === id)
        return node === undefined || node.state === 'left'
      }
      await pause(pollMs, signal)
    }
    return false
  }

  private serveArguments(number: number, seeds: readonly string[]): string[] {
    return [
      ...['serve', '--node-id', `node${number}`, '--host', host, '--port', String(this.portOf(number))],
      ...['--data-dir', relative(process.cwd(), join(this.options.dataDir, `node${number}`))],
      ...(seeds.length > 0 ? ['--seed', seeds.join(',')] : []),
      ...this.tlsArguments(`node${number}`),
    ]
  }

  private tlsArguments(id: string): string[] {
    const files = this.options.tls?.filesOf(id)
    if (files === undefined) return []
    return ['--tls-cert-path', files.cert, '--tls-key-path', files.key, '--tls-ca-path', files.ca]
  }

  private seedsFor(id: string): string[] {
    return [...this.children.values()].filter(each => each.id !== id).map(each => each.address)
  }

  // --- Small parts --------------------------------------------------------------------------------------------------

  /** Through any node that runs; null when none answers. */
  private async status(signal: AbortSignal): Promise<StatusResponse | null> {
    const nodes = new Nodes(
      [...this.children.values()].map(each => each.address),
      2_000,
      signal,
      this.options.tls?.admin ?? null,
    )
    try {
      return await fetchStatus(nodes)
    } catch {
      return null
    } finally {
      nodes.close()
    }
  }

  /** Warnings and errors, short; and whatever is not a log line, as it is: a crash speaks plainly. */
  private echoOf(id: string): (line: string) => void {
    const colors = colorsFor(this.options.output, this.options.env)
    let second = 0
    let shown = 0
    return line => {
      if (this.isStopping || line.trim() === '') return
      const text = shortOf(colors, line)
      if (text === null) return
      const now = Math.floor(Date.now() / 1_000)
      if (now !== second) shown = 0
      second = now
      shown += 1
      if (shown <= echoLinesMax) this.say(`${id} ${text}`)
      else if (shown === echoLinesMax + 1) this.say(`${id} … more in ${this.logOf(id)}`)
    }
  }

  private say(text: string): void {
    this.options.output.write(`${text}\n`)
  }

  private logOf(id: string): string {
    return join(this.options.dataDir, `${id}.log`)
  }

  private portOf(number: number): number {
    return this.options.basePort + number - 1
  }

  private addressOf(number: number): string {
    return `${host}:${this.portOf(number)}`
  }
}

/** Fields that every line has or that are said otherwise. */
const ownFields = new Set(['level', 'time', 'msg', 'node'])

/** `warn member state member=node2 from=alive to=suspect`; null for what is no trouble; any other line as it is. */
export function shortOf(colors: Colors, line: string): string | null {
  let record: Record<string, unknown>
  try {
    record = JSON.parse(line)
  } catch {
    return line
  }
  if (typeof record !== 'object' || record === null) return line
  if (record.level !== 'warn' && record.level !== 'error') return null
  const level = record.level === 'warn' ? colors.yellow('warn') : colors.red('error')
  const fields = Object.entries(record)
    .filter(([name]) => !ownFields.has(name))
    .map(([name, value]) => ` ${colors.dim(`${name}=`)}${fieldText(value)}`)
  return `${level} ${record.msg}${fields.join('')}`
}

/** Of an error its message: the stack is in the node's log. */
function fieldText(value: unknown): string {
  const shown =
    typeof value === 'object' && value !== null && 'message' in value ? String(value.message) : value
  return typeof shown === 'string' && /^[^\s"]+$/.test(shown) ? shown : JSON.stringify(shown)
}

function inShell(word: string): string {
  return /^[A-Za-z0-9_./:,@=+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

function numbersOf(dataDir: string, pattern: RegExp): number[] {
  mkdirSync(dataDir, { recursive: true })
  return readdirSync(dataDir, { withFileTypes: true })
    .filter(entry => entry.isDirectory())
    .flatMap(entry => {
      const match = pattern.exec(entry.name)
      return match === null ? [] : [Number(match[1])]
    })
    .sort((a, b) => a - b)
}

function nodeNumbers(dataDir: string): number[] {
  return numbersOf(dataDir, /^node([1-9][0-9]{0,3})$/)
}

function leftNumbers(dataDir: string): number[] {
  return numbersOf(dataDir, /^node([1-9][0-9]{0,3})\.left$/)
}

/** Asked by a connection: a try to listen could take the port from a node that is just starting. */
function isOpen(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createConnection({ host, port })
    const end = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => end(true)).once('error', () => end(false))
  })
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve(true)))
  })
}
