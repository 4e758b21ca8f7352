/**
 * The network between the nodes of a chaos run. Every node has a proxy, whose address it gives to its peers; who dials is
 * told by the address the connection comes from (127.0.1.N is node N), so each direction between each two nodes is a
 * `Path` of its own, whoever dialled:
 *
 *   node2 ──127.0.1.2──▶ [proxy of node1] ──▶ node1        bytes to the right: path 2→1, to the left: path 1→2
 *
 * TCP neither loses nor repeats bytes, so this doesn't either. A silent path keeps what is sent (and ends of connections as
 * well) as a cut cable does: when it is healed, the bytes come, late. What HTTP/2 allows to be repeated is a connection from
 * its beginning: `replay` sends what a caller had said to a node once more, over a connection of its own: every call,
 * vote, entry and forwarded command a second time, seconds or minutes late.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { Random } from '../../src/lib/prng.ts'

/** One direction between two nodes. */
export interface Path {
  /** Nothing arrives; it is kept. */
  isSilent: boolean
  /** Connections of either side are reset, as by a firewall. */
  isRefusing: boolean
  delayMs: number
  /** Up to so much more, drawn for each piece. */
  jitterMs: number
  /** null: as fast as the machine. */
  bytesPerSecond: number | null
}

const clear: Path = { isSilent: false, isRefusing: false, delayMs: 0, jitterMs: 0, bytesPerSecond: null }

export const networkLimits = {
  /** On their way in one direction of one connection: beyond it the sender waits, as for a full window. */
  pumpBytesMax: 4 * 2 ** 20,
  /** Of what a caller said, from the beginning of the connection, kept for a replay. */
  replayBytesMax: 2 ** 20,
  /** A replayed connection is given so long to be read, ms. */
  replayMs: 3_000,
  /** Between two looks whether a started node listens, ms. */
  probeMs: 40,
  /** Kept for replays after the connection's end: so many connections a proxy. */
  endedMax: 16,
} as const

export class Network {
  private readonly paths = new Map<string, Path>()
  private readonly proxies = new Map<string, NodeProxy>()
  private readonly callers = new Map<string, string>()
  readonly random: Random

  constructor(random: Random) {
    this.random = random
  }

  /** `source`: the address from which the node dials. */
  add(node: string, source: string, port: number, targetPort: number): NodeProxy {
    this.callers.set(source, node)
    const proxy = new NodeProxy(this, node, port, targetPort)
    this.proxies.set(node, proxy)
    return proxy
  }

  path(from: string, to: string): Path {
    const name = `${from}>${to}`
    let path = this.paths.get(name)
    if (path === undefined) {
      path = { ...clear }
      this.paths.set(name, path)
    }
    return path
  }

  /** Changes paths, and what is under way on them at once. */
  change(pairs: Iterable<readonly [from: string, to: string]>, change: Partial<Path>): void {
    for (const [from, to] of pairs) {
      Object.assign(this.path(from, to), change)
      for (const proxy of this.proxies.values()) proxy.changed(from, to)
    }
  }

  heal(pairs: Iterable<readonly [from: string, to: string]>): void {
    this.change(pairs, clear)
  }

  /** Ends what connects the two with a reset. */
  reset(one: string, other: string): number {
    return (this.proxies.get(one)?.reset(other) ?? 0) + (this.proxies.get(other)?.reset(one) ?? 0)
  }

  /** What `from` has said to `to`, once more; the answer is how many connections were repeated. */
  replay(from: string, to: string): number {
    return this.proxies.get(to)?.replay(from) ?? 0
  }

  callerBehind(address: string): string | null {
    return this.callers.get(address.replace(/^::ffff:/, '')) ?? null
  }

  async close(): Promise<void> {
    await Promise.all([...this.proxies.values()].map(proxy => proxy.close()))
  }
}

interface Connection {
  readonly caller: string
  readonly toNode: Pump
  readonly toCaller: Pump
  readonly said: Buffer[]
  saidBytes: number
  destroy(): void
}

export class NodeProxy {
  readonly node: string
  readonly port: number
  private readonly targetPort: number
  private readonly network: Network
  private readonly connections = new Set<Connection>()
  private readonly ended: Connection[] = []
  private readonly replays = new Set<Socket>()
  private server: Server | null = null
  /** Starts and ends of its process: what belongs to an earlier one is over. */
  private lives = 0

  constructor(network: Network, node: string, port: number, targetPort: number) {
    this.network = network
    this.node = node
    this.port = port
    this.targetPort = targetPort
  }

  get address(): string {
    return `127.0.0.1:${this.port}`
  }

  /** When its process was started: listens as soon as the node does, so that who dials earlier is refused by the kernel. */
  open(): void {
    const life = ++this.lives
    const probe = () => {
      if (this.lives !== life) return
      const socket = connect({ host: '127.0.0.1', port: this.targetPort })
      socket.once('connect', () => {
        socket.destroy()
        if (this.lives === life && this.server === null) this.listen()
      })
      socket.once('error', () => setTimeout(probe, networkLimits.probeMs))
    }
    probe()
  }

  /** When its process has ended: who dials now is refused by the kernel, as without a proxy. */
  shut(): void {
    this.lives += 1
    this.server?.close()
    this.server = null
  }

  async close(): Promise<void> {
    this.shut()
    for (const connection of [...this.connections]) connection.destroy()
    for (const socket of this.replays) socket.destroy()
  }

  changed(from: string, to: string): void {
    for (const { caller, toNode, toCaller, destroy } of [...this.connections]) {
      const isHere = (from === caller && to === this.node) || (from === this.node && to === caller)
      if (!isHere) continue
      if (this.isRefusing(caller)) destroy()
      else {
        toNode.kick()
        toCaller.kick()
      }
    }
  }

  reset(caller: string): number {
    const its = [...this.connections].filter(each => each.caller === caller)
    for (const { destroy } of its) destroy()
    return its.length
  }

  replay(caller: string): number {
    const its = [...this.ended, ...this.connections].filter(
      each => each.caller === caller && each.saidBytes > 0,
    )
    for (const { said } of its) {
      const socket = connect({ host: '127.0.0.1', port: this.targetPort })
      this.replays.add(socket)
      const timer = setTimeout(() => socket.destroy(), networkLimits.replayMs)
      socket.on('error', () => {})
      socket.once('close', () => {
        clearTimeout(timer)
        this.replays.delete(socket)
      })
      socket.resume()
      for (const piece of said) socket.write(piece)
    }
    return its.length
  }

  private listen(): void {
    this.server = createServer({ allowHalfOpen: true }, socket => this.accept(socket))
    this.server.listen(this.port, '127.0.0.1')
  }

  private isRefusing(caller: string): boolean {
    return this.network.path(caller, this.node).isRefusing || this.network.path(this.node, caller).isRefusing
  }

  private accept(inbound: Socket): void {
    inbound.on('error', () => {})
    const caller = this.network.callerBehind(inbound.remoteAddress ?? '') ?? 'outside'
    if (this.isRefusing(caller)) {
      inbound.resetAndDestroy()
      return
    }
    const outbound = connect({ host: '127.0.0.1', port: this.targetPort, allowHalfOpen: true, noDelay: true })
    inbound.setNoDelay(true)
    const { random } = this.network
    const destroy = () => {
      this.connections.delete(connection)
      this.ended.push(connection)
      if (this.ended.length > networkLimits.endedMax) this.ended.shift()
      for (const socket of [inbound, outbound]) socket.resetAndDestroy()
      for (const pump of [toNode, toCaller]) pump.stop()
    }
    const end = () => {
      if (this.connections.has(connection)) destroy()
    }
    const closed = () => {
      if (inbound.closed && outbound.closed) end()
    }
    inbound.once('close', closed)
    outbound.once('close', closed)
    const toNode = new Pump(inbound, outbound, this.network.path(caller, this.node), random, end)
    const toCaller = new Pump(outbound, inbound, this.network.path(this.node, caller), random, end)
    const connection: Connection = { caller, toNode, toCaller, said: [], saidBytes: 0, destroy: end }
    this.connections.add(connection)
    inbound.on('data', (piece: Buffer) => {
      const left = networkLimits.replayBytesMax - connection.saidBytes
      if (left <= 0) return
      connection.said.push(piece.subarray(0, left))
      connection.saidBytes += Math.min(left, piece.length)
    })
  }
}

type Item =
  | { readonly dueMs: number; readonly piece: Buffer }
  | { readonly dueMs: number; readonly piece: null }

/** Bytes of one direction of one connection, in order; its end comes behind them. */
class Pump {
  private readonly source: Socket
  private readonly sink: Socket
  private readonly path: Path
  private readonly random: Random
  private readonly broken: () => void
  private readonly items: Item[] = []
  private bytes = 0
  private lastDueMs = 0
  private timer: NodeJS.Timeout | null = null
  private isBlocked = false
  private isStopped = false

  /** `broken`: the connection is to be reset at both ends. */
  constructor(source: Socket, sink: Socket, path: Path, random: Random, broken: () => void) {
    this.source = source
    this.sink = sink
    this.path = path
    this.random = random
    this.broken = broken
    source.on('data', (piece: Buffer) => this.put(piece))
    source.once('end', () => this.put(null))
    // A reset doesn't travel along a silent path either: it is an end, and late.
    source.on('error', () => this.put(null))
    source.once('close', isError => {
      if (isError) this.put(null)
    })
    sink.on('drain', () => {
      this.isBlocked = false
      this.kick()
    })
  }

  stop(): void {
    this.isStopped = true
    if (this.timer !== null) clearTimeout(this.timer)
  }

  kick(): void {
    if (this.timer !== null) clearTimeout(this.timer)
    this.timer = null
    const nowMs = performance.now()
    while (!this.isStopped && !this.isBlocked && !this.path.isSilent) {
      const item = this.items[0]
      if (item === undefined) break
      if (item.dueMs > nowMs) {
        this.timer = setTimeout(() => this.kick(), item.dueMs - nowMs)
        break
      }
      this.items.shift()
      this.deliver(item)
    }
    if (this.source.isPaused() && this.bytes < networkLimits.pumpBytesMax / 2) this.source.resume()
  }

  private put(piece: Buffer | null): void {
    if (this.isStopped) return
    const { delayMs, jitterMs, bytesPerSecond } = this.path
    const nowMs = performance.now()
    let dueMs = Math.max(this.lastDueMs, nowMs + delayMs + jitterMs * this.random.next())
    if (bytesPerSecond !== null && piece !== null) dueMs += (piece.length * 1000) / bytesPerSecond
    this.lastDueMs = dueMs <= nowMs ? 0 : dueMs
    this.items.push({ dueMs, piece })
    this.bytes += piece?.length ?? 0
    if (this.bytes >= networkLimits.pumpBytesMax) this.source.pause()
    this.kick()
  }

  private deliver({ piece }: Item): void {
    if (piece === null) {
      if (this.source.errored !== null || this.source.destroyed) this.broken()
      else this.sink.end()
      return
    }
    this.bytes -= piece.length
    if (!this.sink.write(piece)) this.isBlocked = true
  }
}
