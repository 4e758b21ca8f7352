import { RemoteError, RoundhouseError } from '../../src/errors.ts'
import type { Bytes } from '../../src/lib/bytes.ts'
import type {
  Call,
  CallResult,
  Greeting,
  Identity,
  PeerService,
  Peers,
  Service,
  Transfer,
} from '../../src/node/ports.ts'
import type { PeerMessage } from '../../src/shard/ports.ts'
import type { World } from './world.ts'

/** A process as the network sees it. */
export interface Endpoint {
  readonly address: string
  readonly identity: () => Identity
  /** null while it is down. */
  readonly service: (Service & PeerService) | null
  /** Runs something in the process, if it still lives then. */
  readonly soon: (ms: number, run: () => void) => void
  readonly isPaused: boolean
}

export interface NetworkFaults {
  /** Chance that a message is lost or comes twice. */
  loss: number
  duplication: number
  delayMinMs: number
  /** Mean of what comes on top, exponentially distributed. */
  delayMeanMs: number
  /** Frames of a lane overtake each other; streams that are whole keep their order. */
  isReordering: boolean
  /** Frames of a lane between two nodes that are under way; what comes on top is dropped. */
  queueMax: number
  /** Chance that a message of a kind is lost: Raft's kinds, and `ask`, `heartbeat`, `execute`, `fetchChunk`. */
  lossByKind: ReadonlyMap<string, number>
}

export const goodNetwork: Readonly<NetworkFaults> = {
  loss: 0,
  duplication: 0,
  delayMinMs: 0.1,
  delayMeanMs: 0.4,
  isReordering: true,
  queueMax: Number.POSITIVE_INFINITY,
  lossByKind: new Map(),
}

type Lane = 'appends' | 'control'
/** A lane from one address to another: frames under way, and when the last of them arrives. */
interface Stream {
  underWay: number
  lastAtMs: number
}

/**
 * A simulated network: loses, repeats, delays and reorders frames, and can be cut between any two addresses, one way too,
 * or clogged: what is sent then arrives when that is over.
 */
export class SimNetwork {
  readonly faults: NetworkFaults = { ...goodNetwork }
  readonly world: World
  /** Sees every Raft message before anything can happen to it. */
  onSend: ((from: string, messages: readonly PeerMessage[]) => void) | null = null
  private readonly endpoints = new Map<string, Endpoint>()
  /** `from>to` pairs that are cut, and until when others are clogged. */
  private readonly cuts = new Set<string>()
  private readonly clogs = new Map<string, number>()
  private readonly streams = new Map<string, Stream>()
  readonly counters = { sent: 0, lost: 0, duplicated: 0, dropped: 0, lostByKind: 0 }

  constructor(world: World) {
    this.world = world
  }

  attach(endpoint: Endpoint): void {
    this.endpoints.set(endpoint.address, endpoint)
  }

  detach(endpoint: Endpoint): void {
    this.endpoints.delete(endpoint.address)
  }

  at(address: string): Endpoint | undefined {
    return this.endpoints.get(address)
  }

  cut(from: string, to: string): void {
    this.cuts.add(`${from}>${to}`)
  }

  /** Cuts an address off from all others, both ways. */
  isolate(address: string): void {
    this.partition([address])
  }

  /** Cuts these off from all others, both ways. */
  partition(side: readonly string[]): void {
    for (const other of this.endpoints.keys()) {
      if (side.includes(other)) continue
      for (const address of side) {
        this.cut(address, other)
        this.cut(other, address)
      }
    }
  }

  uncut(from: string, to: string): void {
    this.cuts.delete(`${from}>${to}`)
  }

  /** Undoes a partition. */
  mend(side: readonly string[]): void {
    for (const pair of this.cuts) {
      const [from, to] = pair.split('>') as [string, string]
      if (side.includes(from) !== side.includes(to)) this.cuts.delete(pair)
    }
  }

  /** Nothing arrives from one at the other for so long; then all of it does. */
  clog(from: string, to: string, ms: number): void {
    this.clogs.set(`${from}>${to}`, this.world.nowMs + ms)
  }

  heal(): void {
    this.cuts.clear()
    this.clogs.clear()
  }

  /** Until a frame sent now from one to the other arrives, ms. */
  delay(from: string, to: string): number {
    const { delayMinMs, delayMeanMs } = this.faults
    const clogged = this.clogs.size === 0 ? 0 : (this.clogs.get(`${from}>${to}`) ?? 0) - this.world.nowMs
    return Math.max(0, clogged) + delayMinMs - delayMeanMs * Math.log(1 - this.world.random.next())
  }

  isLost(from: string, to: string): boolean {
    this.counters.sent++
    const isLost = this.cuts.has(`${from}>${to}`) || this.world.random.next() < this.faults.loss
    if (isLost) this.counters.lost++
    return isLost
  }

  isKindLost(kind: string): boolean {
    const { lossByKind } = this.faults
    if (lossByKind.size === 0) return false
    const rate = lossByKind.get(kind)
    if (rate === undefined || this.world.random.next() >= rate) return false
    this.counters.lostByKind++
    return true
  }

  /** Sends a frame on its way; `arrive` runs when it is there. */
  carry(from: string, target: Endpoint, lane: Lane, arrive: () => void): void {
    const { isReordering, queueMax } = this.faults
    const isBounded = Number.isFinite(queueMax)
    const delayMs = this.delay(from, target.address)
    if (isReordering && !isBounded) {
      target.soon(delayMs, arrive)
      return
    }
    const name = `${from}>${target.address} ${lane}`
    const stream = this.streams.get(name) ?? { underWay: 0, lastAtMs: 0 }
    this.streams.set(name, stream)
    if (stream.underWay >= queueMax) {
      this.counters.dropped++
      return
    }
    const { nowMs } = this.world
    const atMs = isReordering ? nowMs + delayMs : Math.max(nowMs + delayMs, stream.lastAtMs)
    stream.lastAtMs = atMs
    if (!isBounded) {
      target.soon(atMs - nowMs, arrive)
      return
    }
    stream.underWay++
    // It leaves the queue also where its receiver has died meanwhile.
    this.world.at(atMs - nowMs, () => {
      stream.underWay--
      target.soon(0, arrive)
    })
  }

  peersOf(self: Endpoint, addressOf: (node: string) => string | null): Peers {
    return new SimPeers(this, self, addressOf)
  }
}

class SimPeers implements Peers {
  private readonly network: SimNetwork
  private readonly self: Endpoint
  private readonly addressOf: (node: string) => string | null
  private readonly listeners: ((node: string) => void)[] = []

  constructor(network: SimNetwork, self: Endpoint, addressOf: (node: string) => string | null) {
    this.network = network
    this.self = self
    this.addressOf = addressOf
  }

  send(node: string, lane: Lane, sent: readonly PeerMessage[]): void {
    const { network, self } = this
    network.onSend?.(self.address, sent)
    const to = this.addressOf(node)
    if (to === null || network.isLost(self.address, to)) return
    const target = network.at(to)
    if (target === undefined) return
    const frame = sent.filter(({ message }) => !network.isKindLost(message.kind))
    if (frame.length === 0) return
    const identity = self.identity()
    const copies = network.world.random.next() < network.faults.duplication ? 2 : 1
    if (copies === 2) network.counters.duplicated++
    for (let copy = 0; copy < copies; copy++) {
      network.carry(self.address, target, lane, () => {
        const { service } = target
        if (service === null) return
        try {
          service.admit(identity)
        } catch {
          return
        }
        service.receive(identity.nodeId, frame)
      })
    }
    if (target.service === null)
      self.soon(network.delay(to, self.address), () => {
        for (const listener of this.listeners) listener(node)
      })
  }

  /** A question and its answer, each of which may get lost. */
  private exchange<Answer>(
    kind: string,
    address: string,
    timeoutMs: number,
    run: (service: Service & PeerService) => Promise<Answer> | Answer,
  ): Promise<Answer> {
    const { network, self } = this
    return new Promise((resolve, reject) => {
      let isSettled = false
      const settle = (work: () => void) => {
        if (isSettled) return
        isSettled = true
        work()
      }
      self.soon(timeoutMs, () =>
        settle(() =>
          reject(new RoundhouseError('DEADLINE', { afterMs: timeoutMs, what: `no answer from ${address}` })),
        ),
      )
      const target = network.at(address)
      const refuse = () =>
        self.soon(network.delay(address, self.address), () =>
          settle(() => reject(new RoundhouseError('UNREACHABLE', { address, why: 'connection refused' }))),
        )
      if (target === undefined || target.service === null) return refuse()
      if (network.isLost(self.address, address) || network.isKindLost(kind)) return
      const answer = (work: () => void) => {
        if (network.isLost(address, self.address) || network.isKindLost(kind)) return
        self.soon(network.delay(address, self.address), () => settle(work))
      }
      const isTwice = kind !== 'execute' && network.world.random.next() < network.faults.duplication
      const arrive = () => {
        const { service } = target
        if (service === null) return refuse()
        Promise.resolve()
          .then(() => run(service))
          .then(
            value => answer(() => resolve(value)),
            (error: Error) => answer(() => reject(overTheWire(error))),
          )
      }
      target.soon(network.delay(self.address, address), arrive)
      if (isTwice) target.soon(network.delay(self.address, address), arrive)
    })
  }

  ask(address: string, method: string, body: string, timeoutMs: number): Promise<string> {
    const identity = this.self.identity()
    return this.exchange('ask', address, timeoutMs, service => service.ask(identity, method, body))
  }

  heartbeat(address: string, greeting: Greeting, timeoutMs: number): Promise<Greeting> {
    return this.exchange('heartbeat', address, timeoutMs, service => service.heartbeat(greeting))
  }

  execute(address: string, call: Call): Promise<CallResult> {
    return this.exchange('execute', address, call.timeoutMs, service => service.execute(call))
  }

  fetchChunk(address: string, transfer: Transfer, timeoutMs: number): Promise<Bytes> {
    return this.exchange('fetchChunk', address, timeoutMs, service => service.readChunk(transfer))
  }

  onRefused(listener: (node: string) => void): void {
    this.listeners.push(listener)
  }

  async close(): Promise<void> {}
}

/** As a peer hears it: code and text travel, facts do not. */
function overTheWire(error: Error): Error {
  if (!(error instanceof RoundhouseError)) return error
  return new RemoteError(error.code, error.message, leaderOf(error))
}

function leaderOf({ facts }: RoundhouseError): string | null {
  const { address } = facts as { readonly address?: unknown }
  return typeof address === 'string' ? address : null
}
