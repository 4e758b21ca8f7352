import type { Reply } from '../commands/command.ts'
import type { DiskState, MemberRecord } from '../gossip/member.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Outbox, PeerMessage, RowsDigest } from '../shard/ports.ts'
import type { CallOrder } from './call-order.ts'

/** The two sides of a node: what wires call (`Service`), what peers call (`PeerService`), and how it reaches peers (`Peers`). */

// --- One door for commands ------------------------------------------------------------------------------------------

export interface Call {
  /** As the client wrote it; names are case-insensitive. */
  readonly command: string
  /** All arguments; where the command has keys, args[0] is the first. */
  readonly args: readonly Bytes[]
  readonly session: Session | null
  readonly read: 'linearizable' | 'stale'
  /** false: a node that does not lead answers NOT_LEADER instead of forwarding. */
  readonly forward: boolean
  /** How often this call was forwarded already. */
  readonly hops: number
  /** Between nodes: the shard that this part of a scattered call is for; null from clients. */
  readonly shard: number | null
  /** Of calls that are to keep their order, the same object in each; absent where order does not matter. */
  readonly order?: CallOrder
  /** How long the caller waits, ms from now; the node's message_timeout bounds it. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}

export interface Session {
  /** 16 bytes; the first six are the creation time in ms, big-endian. */
  readonly id: Bytes
  readonly sequence: number
  readonly ackedBelow: number
}

export interface CallResult {
  readonly reply: Reply
  /** Raft index, in the key's shard, of the write, or the applied index a read saw; 0 where no shard was asked. */
  readonly revision: number
  /** Stale reads: how old the state may be. */
  readonly lagMs: number
}

/** A heartbeat and its answer. The sender's own record comes first. */
export interface Greeting {
  readonly clusterId: string
  readonly view: readonly MemberRecord[]
  /** The sender's wall clock, ms since 1970; 0 from a foreign client. */
  readonly wallMs: number
}

// --- What wires see -------------------------------------------------------------------------------------------------

export interface Service {
  readonly nodeId: string
  execute(call: Call): Promise<CallResult>
  /** Merges a view and answers with ours; a sender that is not registered is answered and never added. */
  heartbeat(greeting: Greeting): Greeting
  /** Bytes of a snapshot that this node holds. Throws NO_SUCH_TRANSFER. */
  readChunk(transfer: Transfer): Promise<Bytes>
  status(): ClusterStatus
  stats(): Readonly<Record<string, number>>
  /** Starts to drain the node; the status shows how far it is. */
  leave(node: string, allowUnderReplicated: boolean): Promise<void>
  replace(dead: string, replacement: string): Promise<void>
  /** Compares the replicas of a shard, or of the meta shard (its id). */
  verify(shard: number): Promise<VerifyResult>
  rebalance(action: 'show' | 'pause' | 'resume'): Promise<RebalanceStatus>
  /** Joined, and its loop turns. */
  isServing(): boolean
}

export interface Transfer {
  readonly shard: number
  readonly snapshot: string
  readonly part: string
  readonly position: number
  readonly length: number
}

export interface ClusterStatus {
  readonly clusterId: string
  /** Rises with every change of the meta register. */
  readonly epoch: number
  readonly shardCount: number
  readonly nodes: readonly NodeStatus[]
  readonly shards: readonly ShardStatus[]
  readonly meta: ShardStatus
  readonly rebalance: RebalanceStatus
}

export interface NodeStatus {
  readonly nodeId: string
  readonly address: string
  readonly clientAddress: string
  readonly state: MemberRecord['state']
  readonly zone: string
  readonly replicas: number
  readonly leaders: number
  /** Absent: ok. */
  readonly disk?: DiskState
}

/** What a node asks of its disk. */
export interface NodeDisk {
  readonly state: Exclude<DiskState, 'hung'>
  readonly freeBytes: number
}

export interface ShardStatus {
  readonly shardId: number
  /** Half-open range of slots. */
  readonly slots: readonly [from: number, to: number]
  readonly term: number
  readonly leader: string | null
  readonly voters: readonly string[]
  readonly learners: readonly string[]
  readonly applied: number
}

export interface RebalanceStatus {
  readonly state: 'idle' | 'running' | 'paused' | 'blocked'
  readonly movesDone: number
  readonly movesTotal: number
  readonly bytesDone: number
  readonly bytesTotal: number
  readonly bytesPerSecond: number
  readonly etaSeconds: number | null
  readonly blockedBy: string | null
}

// --- Between nodes --------------------------------------------------------------------------------------------------

/** Who speaks. Checked at the start of every stream and with every question. */
export interface Identity {
  /** Empty from a joiner, who may only ask to join. */
  readonly clusterId: string
  readonly nodeId: string
  readonly storeId: string
}

/** What the server side of `peer/` hands to the node. */
export interface PeerService {
  /** Throws WRONG_CLUSTER, STORE_MISMATCH or NOT_MEMBER when `from` may not send Raft messages. */
  admit(from: Identity): void
  receive(from: string, messages: readonly PeerMessage[]): void
  /** A question of another node; `body` and the answer are JSON. Throws a RoundhouseError to refuse. */
  ask(from: Identity, method: string, body: string): Promise<string>
}

/** The client side of `peer/`. Addresses are host:port; Raft's frames go by node id through the `addressOf` it was made with. */
export interface Peers extends Outbox {
  /** Rejects with UNREACHABLE (nothing arrived), DEADLINE (unknown), or the callee's error as RemoteError. */
  ask(address: string, method: string, body: string, timeoutMs: number): Promise<string>
  heartbeat(address: string, greeting: Greeting, timeoutMs: number): Promise<Greeting>
  /** Forwards a call; `hops` is already raised. UNREACHABLE only when it certainly was not executed. */
  execute(address: string, call: Call): Promise<CallResult>
  fetchChunk(address: string, transfer: Transfer, timeoutMs: number): Promise<Bytes>
  /** Called when a node's process refuses a re-dial: it is certainly not running (its leaders are gone). */
  onRefused(listener: (node: string) => void): void
  close(): Promise<void>
}

export interface ReplicaDigest {
  readonly node: string
  readonly replica: number
  /**
   * equal to the others · odd: differs from the majority, it was quarantined · disputed: there is no majority · waiting: it
   * did not answer in time · passed: it went past the entry without looking · unknown, quarantined: it has nothing to say
   */
  readonly state: 'equal' | 'odd' | 'disputed' | 'waiting' | 'passed' | 'unknown' | 'quarantined'
  readonly digest: RowsDigest | null
}

export interface VerifyResult {
  readonly shard: number
  /** The entry at which they were compared. */
  readonly index: number
  /** incomplete: those who answered agree, some did not. */
  readonly verdict: 'equal' | 'differs' | 'incomplete'
  readonly replicas: readonly ReplicaDigest[]
}
