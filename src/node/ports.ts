import type { Reply } from '../commands/command.ts'
import type { Operation } from '../commands/envelope.ts'
import type { DiskState, MemberRecord } from '../gossip/member.ts'
import type { Change } from '../keyspace/changes.ts'
import type { RecordBody } from '../keyspace/record.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Outbox, PeerMessage, RowsDigest } from '../shard/ports.ts'
import type { CallOrder } from './call-order.ts'
import type { StreamRecord } from './meta-register.ts'

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
  /** It was made here, of what was checked: `check` need not look again. */
  readonly isChecked?: true
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

/** A call of this node's own, with nothing special about it. */
export function plainCall(command: string, args: readonly Bytes[], timeoutMs: number): Call {
  return {
    command,
    args,
    session: null,
    read: 'linearizable',
    forward: true,
    hops: 0,
    shard: null,
    timeoutMs,
  }
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
  readonly streams: StreamService
  readonly watches: WatchService
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
  /** Feature level: what may be written; 0: the register is not known yet. */
  readonly level: number
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
  /** Feature level that its release supports. */
  readonly level: number
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

// --- Streams --------------------------------------------------------------------------------------------------------

/** A partition of a stream as it is now: a stream that is deleted and made anew has other places under the same name. */
export interface PartitionPlace {
  readonly stream: string
  /** Of the stream. */
  readonly id: number
  readonly partition: number
  readonly shard: number
  /** Whose slot it lives in. */
  readonly key: Bytes
}

export interface ProducedRecord extends RecordBody {
  /** What the record's checksum must be; absent: whatever it is. */
  readonly crc?: number
}

export interface CopiedRecord extends ProducedRecord {
  /** Where it was first taken, ms since 1970. */
  readonly timestampMs: number
}

/** One request, one partition, one entry. */
export interface Batch {
  /** Empty: `default`. */
  readonly stream: string
  /** null: by the records' key; without key, one after the other, or by the session's sequence. */
  readonly partition: number | null
  readonly records: readonly ProducedRecord[]
  readonly session: Session | null
  readonly timeoutMs: number
  readonly signal?: AbortSignal
  /** Asked before a batch that waits for others is begun; absent: `signal` says it. */
  readonly isCalledOff?: () => boolean
  /** Of batches that are to keep their order, the same object in each. */
  readonly order?: CallOrder
}

export interface Produced {
  readonly partition: number
  /** Of the first record; the others follow without a gap. */
  readonly offset: number
  readonly count: number
}

export interface ReadOptions {
  /** At least one record comes, where there is one. */
  readonly bytesMax: number
  /** true: the leader is asked, and all that was acknowledged before is seen. */
  readonly isLinearizable: boolean
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}

export interface ReadRecords {
  /** Kept records (keyspace/record.ts) from the offset that was asked for on; none at the end. */
  readonly kept: readonly Bytes[]
  /** Of the partition, as far as the replica knows that answered: its first offset, and the one after its last. */
  readonly start: number
  readonly end: number
  /** How old what that replica knows may be. */
  readonly lagMs: number
}

export interface StreamWish {
  readonly name: string
  readonly partitions: number
  readonly retentionMs: number | null
  readonly retentionBytes: number | null
  /** True: one that is there is as good. */
  readonly ifMissing: boolean
}

export interface PartitionStatus {
  readonly partition: number
  readonly shard: number
  readonly leader: string | null
  readonly replicas: readonly string[]
  readonly start: number
  readonly end: number
  /** Of the last record, ms since 1970; 0: there was none. */
  readonly timestampMs: number
  /** On one replica's disk, about. */
  readonly bytes: number
  /** Why it is not known what it holds; null: it is. */
  readonly error: string | null
}

export interface StreamDescription {
  readonly stream: StreamRecord
  readonly partitions: readonly PartitionStatus[]
}

export interface LogServer {
  readonly nodeId: string
  readonly clientAddress: string
  readonly isLeader: boolean
}

/** Names are checked; one that is not in the catalogue is NO_SUCH_STREAM, but for `default`, which is made when it is used. */
export interface StreamService {
  create(wish: StreamWish): Promise<StreamRecord>
  /** What is absent stays as it is. */
  change(
    name: string,
    retention: { readonly retentionMs?: number | null; readonly retentionBytes?: number | null },
  ): Promise<StreamRecord>
  /** Resolves when nobody can produce to it any more; its records go meanwhile. */
  delete(name: string): Promise<void>
  /** By name. */
  list(): readonly StreamRecord[]
  describe(name: string): Promise<StreamDescription>
  /** Removes the records before an offset, and answers the first that is left. Throws OFFSET_OUT_OF_RANGE. */
  truncate(name: string, partition: number, before: number): Promise<number>
  produce(batch: Batch): Promise<Produced>
  /**
   * Appends records at the offset that the first has elsewhere, and answers the partition's end. Throws OFFSET_OUT_OF_RANGE,
   * with the range there is, where the partition ends somewhere else and is not empty.
   */
  copy(stream: string, partition: number, offset: number, records: readonly CopiedRecord[]): Promise<number>
  /** The command that appends these records, to be one of an atomic entry's. */
  operationOf(stream: string, partition: number, records: readonly ProducedRecord[]): Promise<Operation>
  /**
   * Throws NO_SUCH_STREAM, NO_SUCH_PARTITION; and STREAM_REMADE where an id is given and the name stands for another
   * stream by now; 0: for whichever.
   */
  find(name: string, partition: number, id?: number): Promise<PartitionPlace>
  /** Records from an offset on. Throws OFFSET_OUT_OF_RANGE, with the range there is. */
  read(place: PartitionPlace, from: number, options: ReadOptions): Promise<ReadRecords>
  /** The first offset whose record is of that time or later; the end when there is none. */
  seek(place: PartitionPlace, timestampMs: number): Promise<number>
  /** Where the partition begins and ends, as the leader knows. */
  rangeOf(place: PartitionPlace): Promise<{ readonly start: number; readonly end: number }>
  /** Resolves true when there may be more than `offset`, false after `timeoutMs`, or when the signal says so. */
  wait(place: PartitionPlace, offset: number, timeoutMs: number, signal: AbortSignal): Promise<boolean>
  /** The cluster's nodes, with the one that leads the partition. */
  servers(name: string, partition: number): readonly LogServer[]
}

// --- Watches --------------------------------------------------------------------------------------------------------

/** One of `key` and `prefix` is null; an empty prefix stands for all keys. */
export interface WatchWish {
  readonly key: Bytes | null
  readonly prefix: Bytes | null
  /**
   * By shard the entry after which to begin; a number: of a key, a revision that a reply told. null: what comes after
   * all that was acknowledged before the call.
   */
  readonly from: ReadonlyMap<number, number> | number | null
  readonly signal?: AbortSignal
}

export interface WatchService {
  /** Throws OVERLOADED, INVALID_ARGUMENT where the cursor can't be one of this cluster, and what a read may throw. */
  open(wish: WatchWish): Promise<OpenWatch>
}

export interface OpenWatch {
  /** By shard the last entry that it is through with: what `next` gave is before it. */
  readonly cursor: ReadonlyMap<number, number>
  /**
   * Changes of one shard, whole entries, about `bytesMax` of them; idle when there were none for `waitMs`. One call at a
   * time. Throws COMPACTED, and then `cursor` is where to go on; SHUTTING_DOWN.
   */
  next(bytesMax: number, waitMs: number): Promise<WatchNews>
  close(): void
}

export type WatchNews =
  | {
      readonly kind: 'changes'
      readonly shard: number
      readonly changes: readonly Change[]
      /** The cursor of the shard after them. */
      readonly place: number
    }
  | { readonly kind: 'idle' }

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
   * did not get there in time · silent: its node does not answer · passed: it went past the entry without looking · unknown,
   * quarantined: it has nothing to say
   */
  readonly state: 'equal' | 'odd' | 'disputed' | 'waiting' | 'silent' | 'passed' | 'unknown' | 'quarantined'
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
