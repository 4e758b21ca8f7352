/** What two stores have in common, as far as they are compared: nodes, a leader for a key, a write and a linearizable read. */
import type { CallName, SideName } from './ports.ts'
import type { RawClient } from './raw-client.ts'

export interface Side {
  readonly name: SideName
  readonly version: string
  readonly nodes: readonly SideNode[]
  /** Which node a write of this key is proposed by; null: none is known. May be old by a second. */
  leaderOf(key: string): string | null
  /** From the cluster itself, now. */
  askLeaders(): Promise<void>
  /** Keys whose shards are led by this node, each in another shard, at most so many. */
  keysLedBy(nodeId: string, most: number): readonly string[]
  path(call: CallName): string
  message(call: CallName, key: string, value: Uint8Array): Uint8Array
  /** Of the answer to a get; null: there is none. */
  valueIn(response: Uint8Array): Uint8Array | null
  client(nodeId: string): RawClient
  /** Counters of every node now; null: the node did not answer. */
  read(): Promise<readonly (NodeReading | null)[]>
  /** Only nodes that were started for the comparison. */
  kill(nodeId: string): Promise<void>
  /** Resolves when all is in place again. */
  restart(nodeId: string): Promise<void>
  stop(): Promise<void>
}

export interface SideNode {
  readonly id: string
  /** host:port, for clients. */
  readonly address: string
}

export interface NodeReading {
  readonly nodeId: string
  /** s; null: not known. */
  readonly cpuS: number | null
  readonly syncs: number | null
  /** Calls that it answered well, by what it counts itself; null: it does not. */
  readonly served: Readonly<Record<CallName, number>> | null
}
