/** A node that is only its ports: it notes what it is asked and answers what a test says. */
import { RoundhouseError } from '../../../src/errors.ts'
import { fromUtf8 } from '../../../src/lib/bytes.ts'
import type {
  Call,
  CallResult,
  ClusterStatus,
  Greeting,
  Identity,
  PeerService,
  RebalanceStatus,
  Service,
  Transfer,
  VerifyResult,
} from '../../../src/node/ports.ts'
import type { PeerMessage } from '../../../src/shard/ports.ts'
import { FakeStreams } from './fake-streams.ts'
import { FakeWatches } from './fake-watches.ts'

export const noRebalance: RebalanceStatus = {
  state: 'idle',
  movesDone: 0,
  movesTotal: 0,
  bytesDone: 0,
  bytesTotal: 0,
  bytesPerSecond: 0,
  etaSeconds: null,
  blockedBy: null,
}

export const someStatus: ClusterStatus = {
  clusterId: 'c1',
  epoch: 7,
  level: 1,
  shardCount: 2,
  nodes: [
    {
      nodeId: 'n1',
      address: '10.0.0.1:8080',
      clientAddress: 'one.example:8080',
      state: 'alive',
      zone: 'a',
      replicas: 2,
      leaders: 1,
      disk: 'nearly_full',
      level: 2,
    },
  ],
  shards: [
    { shardId: 0, slots: [0, 8192], term: 3, leader: 'n1', voters: ['n1'], learners: [], applied: 12 },
    {
      shardId: 1,
      slots: [8192, 16384],
      term: 4,
      leader: null,
      voters: ['n1'],
      learners: ['n2'],
      applied: 2 ** 40,
    },
  ],
  meta: { shardId: 4096, slots: [0, 0], term: 1, leader: 'n1', voters: ['n1'], learners: [], applied: 3 },
  rebalance: {
    ...noRebalance,
    state: 'running',
    movesDone: 1,
    movesTotal: 4,
    bytesDone: 2 ** 33,
    etaSeconds: 1.2,
  },
}

export const value = (text: string): CallResult => ({
  reply: { kind: 'value', value: fromUtf8(text) },
  revision: 0,
  lagMs: 0,
})

export const nothing: CallResult = { reply: { kind: 'nil' }, revision: 0, lagMs: 0 }

export class FakeService implements Service {
  readonly nodeId = 'n1'
  readonly streams = new FakeStreams()
  readonly watches = new FakeWatches()
  readonly calls: Call[] = []
  readonly heartbeats: Greeting[] = []
  readonly replaced: { dead: string; replacement: string }[] = []
  readonly left: { node: string; allowUnderReplicated: boolean }[] = []
  readonly actions: string[] = []
  serving = true
  onExecute: (call: Call) => Promise<CallResult> = async () => nothing
  onReadChunk: (transfer: Transfer) => Promise<Uint8Array> = async transfer => {
    throw new RoundhouseError('NO_SUCH_TRANSFER', { id: transfer.snapshot })
  }
  view: Greeting['view'] = []

  execute(call: Call): Promise<CallResult> {
    this.calls.push(call)
    return this.onExecute(call)
  }

  heartbeat(greeting: Greeting): Greeting {
    this.heartbeats.push(greeting)
    return { clusterId: 'c1', view: this.view, wallMs: 1_700_000_000_000 }
  }

  readChunk(transfer: Transfer): Promise<Uint8Array> {
    return this.onReadChunk(transfer)
  }

  status(): ClusterStatus {
    return someStatus
  }

  stats(): Readonly<Record<string, number>> {
    return { fsyncs: 42 }
  }

  async leave(node: string, allowUnderReplicated: boolean): Promise<void> {
    if (node === 'n9') throw new RoundhouseError('UNKNOWN_NODE', { node, known: 'n1' })
    this.left.push({ node, allowUnderReplicated })
  }

  async replace(dead: string, replacement: string): Promise<void> {
    this.replaced.push({ dead, replacement })
  }

  async verify(shard: number): Promise<VerifyResult> {
    const digest = { count: 3, sum: 0xab, mixed: 0xcd }
    const replicas = [{ node: 'n1', replica: 7, state: 'equal', digest }] as const
    return { shard, index: 9, verdict: 'equal', replicas }
  }

  async rebalance(action: 'show' | 'pause' | 'resume'): Promise<RebalanceStatus> {
    this.actions.push(action)
    return { ...noRebalance, state: 'paused', blockedBy: 'n2 is full' }
  }

  isServing(): boolean {
    return this.serving
  }
}

export class FakePeerService implements PeerService {
  readonly received: { from: string; messages: readonly PeerMessage[] }[] = []
  readonly admitted: Identity[] = []
  onAdmit: (from: Identity) => void = () => {}
  onReceive: (from: string, messages: readonly PeerMessage[]) => void = () => {}
  onAsk: (from: Identity, method: string, body: string) => Promise<string> = async (_from, _method, body) =>
    body

  admit(from: Identity): void {
    this.onAdmit(from)
    this.admitted.push(from)
  }

  receive(from: string, messages: readonly PeerMessage[]): void {
    this.received.push({ from, messages })
    this.onReceive(from, messages)
  }

  ask(from: Identity, method: string, body: string): Promise<string> {
    return this.onAsk(from, method, body)
  }
}
