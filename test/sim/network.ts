import { RoundhouseError } from '../../src/errors.ts'
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
}

/** A simulated network: loses, repeats, delays and reorders frames, and can be cut between any two addresses, one way too. */
export class SimNetwork {
  readonly faults: NetworkFaults = { loss: 0, duplication: 0, delayMinMs: 0.1, delayMeanMs: 0.4 }
  readonly world: World
  private readonly endpoints = new Map<string, Endpoint>()
  /** `from>to` pairs that are cut. */
  private readonly cuts = new Set<string>()
  readonly counters = { sent: 0, lost: 0, duplicated: 0 }

  constructor(world: World) {
    this.world = world
  }

  attach(endpoint: Endpoint): void {
    this.endpoints.set(endpoint.address, endpoint)
  }

  at(address: string): Endpoint | undefined {
    return this.endpoints.get(address)
  }

  cut(from: string, to: string): void {
    this.cuts.add(`${from}>${to}`)
  }

  /** Cuts an address off from all others, both ways. */
  isolate(address: string): void {
    for (const other of this.endpoints.keys()) {
      if (other === address) continue
      this.cut(address, other)
      this.cut(other, address)
    }
  }

  heal(): void {
    this.cuts.clear()
  }

  delay(): number {
    const { delayMinMs, delayMeanMs } = this.faults
    return delayMinMs - delayMeanMs * Math.log(1 - this.world.random.next())
  }

  isLost(from: string, to: string): boolean {
    this.counters.sent++
    const isLost = this.cuts.has(`${from}>${to}`) || this.world.random.next() < this.faults.loss
    if (isLost) this.counters.lost++
    return isLost
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

  send(node: string, _lane: 'appends' | 'control', frame: readonly PeerMessage[]): void {
    const to = this.addressOf(node)
    if (to === null || this.network.isLost(this.self.address, to)) return
    const target = this.network.at(to)
    if (target === undefined) return
    const identity = this.self.identity()
    const copies = this.network.world.random.next() < this.network.faults.duplication ? 2 : 1
    for (let copy = 0; copy < copies; copy++) {
      target.soon(this.network.delay(), () => {
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
      this.self.soon(this.network.delay(), () => {
        for (const listener of this.listeners) listener(node)
      })
  }

  /** A question and its answer, each of which may get lost. */
  private exchange<Answer>(
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
        self.soon(network.delay(), () =>
          settle(() => reject(new RoundhouseError('UNREACHABLE', { address, why: 'connection refused' }))),
        )
      if (target === undefined || target.service === null) return refuse()
      if (network.isLost(self.address, address)) return
      const answer = (work: () => void) => {
        if (!network.isLost(address, self.address)) self.soon(network.delay(), () => settle(work))
      }
      target.soon(network.delay(), () => {
        const { service } = target
        if (service === null) return refuse()
        Promise.resolve()
          .then(() => run(service))
          .then(
            value => answer(() => resolve(value)),
            (error: Error) => answer(() => reject(error)),
          )
      })
    })
  }

  ask(address: string, method: string, body: string, timeoutMs: number): Promise<string> {
    const identity = this.self.identity()
    return this.exchange(address, timeoutMs, service => service.ask(identity, method, body))
  }

  heartbeat(address: string, greeting: Greeting, timeoutMs: number): Promise<Greeting> {
    return this.exchange(address, timeoutMs, service => service.heartbeat(greeting))
  }

  execute(address: string, call: Call): Promise<CallResult> {
    return this.exchange(address, call.timeoutMs, service => service.execute(call))
  }

  fetchChunk(address: string, transfer: Transfer, timeoutMs: number): Promise<Bytes> {
    return this.exchange(address, timeoutMs, service => service.readChunk(transfer))
  }

  onRefused(listener: (node: string) => void): void {
    this.listeners.push(listener)
  }

  async close(): Promise<void> {}
}
