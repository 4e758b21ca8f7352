/**
 * Memory and queues stay within their named limits, whatever happens: looked at after every event, on the node where it
 * happened. A queue that grows without a limit is an outage that waits for a bad day; no answer would ever show it.
 *
 * Limits that a small run can reach are shrunk by its seed (swarm.ts) and checked as closely as they are meant: one proposal
 * may always go (a limit must not stop progress), the window counts what it lets in, a checkpoint takes its time. The others
 * are those of production.
 */
import { changeLimits } from '../../src/keyspace/changes.ts'
import { limits } from '../../src/keyspace/limits.ts'
import { prefixes, readNumber, systemRows } from '../../src/keyspace/rows.ts'
import { ByteReader } from '../../src/lib/byte-reader.ts'
import type { Bytes } from '../../src/lib/bytes.ts'
import type { Node } from '../../src/node/node.ts'
import { callBytesMax, callsMax } from '../../src/node/router.ts'
import { readsWaitingMax } from '../../src/raft/read-only.ts'
import type { Inflights } from '../../src/raft/tracker.ts'
import { type HostLimits, hostLimits } from '../../src/shard/host.ts'
import { nodeUncommittedBytesMax, queuedMax, type Replica, sendersMax } from '../../src/shard/replica.ts'
import { incomingMax } from '../../src/shard/snapshotter.ts'

/** A checkpoint that is due is made in this time, ms, on a disk that works. */
const checkpointMsMax = 4_000
/** `'s' id(16)`, and with a sequence: rows of sessions.ts. */
const sessionKeyChars = 17
/** What says how an answer ended, before the reply itself. */
const answerBytesMax = 64

/** What is counted, and not for everybody to see. */
interface ReplicaInside {
  readonly queuedWrites: { readonly length: number }
  readonly queuedReads: { readonly length: number }
  readonly senders: { readonly size: number }
}
interface RaftInside {
  readonly readOnly: { readonly count: number }
  readonly postponedReads: { readonly length: number }
}
interface InflightsInside {
  readonly first: number
  readonly used: number
  readonly sizes: readonly number[]
}
interface RingInside {
  readonly bytesMax: number
  readonly first: number
  readonly next: number
  readonly slots: readonly ({ readonly index: number } | undefined)[]
}
interface HostInside {
  readonly inbox: { readonly length: number }
  readonly limits: HostLimits
  readonly options: { readonly uncommittedBytesMax?: number }
  readonly snapshotter: { readonly incoming: { readonly size: number } }
}
interface RouterInside {
  readonly underWay: number
  readonly bytesUnderWay: number
}

export class Bounds {
  private readonly violated: (text: string) => void
  private readonly nowMs: () => number
  /** Since when a replica's memtable is larger than it should be, with a disk that works and no checkpoint begun. */
  private readonly over = new WeakMap<Replica, { readonly sinceMs: number; readonly lastMs: number }>()
  /** Bytes of the largest entry that any leader took in; at the start, of the changes that a boot makes. */
  private largestProposal = 128

  constructor(violated: (text: string) => void, nowMs: () => number) {
    this.violated = violated
    this.nowMs = nowMs
  }

  /** Once a replica. */
  watch({ raft }: Replica): void {
    const counted =
      <Proposal>(propose: (proposal: Proposal) => ReturnType<typeof raft.propose>) =>
      (proposal: Proposal) => {
        const before = raft.uncommittedBytes
        const result = propose(proposal)
        this.largestProposal = Math.max(this.largestProposal, raft.uncommittedBytes - before)
        return result
      }
    raft.propose = counted(raft.propose.bind(raft))
    const proposeAll = raft.proposeAll.bind(raft)
    raft.proposeAll = data => {
      for (const { byteLength } of data) this.largestProposal = Math.max(this.largestProposal, byteLength)
      return proposeAll(data)
    }
    raft.proposeConfChange = counted(raft.proposeConfChange.bind(raft))
  }

  private within(node: string, what: string, count: number, max: number): void {
    if (count > max) this.violated(`${node}: ${what}: ${count}, the limit is ${max}`)
  }

  /** After an event on it. */
  look(node: Node): void {
    const { host, router, nodeId } = node
    const inside = host as unknown as HostInside
    const { underWay, bytesUnderWay } = router as unknown as RouterInside
    this.within(nodeId, 'messages that wait for a turn', inside.inbox.length, inside.limits.inboxMax)
    this.within(nodeId, 'snapshots that are received at once', inside.snapshotter.incoming.size, incomingMax)
    this.within(nodeId, 'calls under way', underWay, callsMax)
    this.within(nodeId, 'bytes of calls under way', bytesUnderWay, callBytesMax)
    let uncommitted = 0
    for (const replica of host.all()) {
      if (replica.halted !== null) continue
      uncommitted += replica.raft.uncommittedBytes
      this.lookAt(nodeId, replica)
    }
    // What each group's own limit lets through is checked above; all together one proposal may pass it.
    const max = inside.options.uncommittedBytesMax ?? nodeUncommittedBytesMax
    this.within(nodeId, 'uncommitted bytes of all groups', uncommitted, max + this.largestProposal)
  }

  private lookAt(node: string, replica: Replica): void {
    const { queuedWrites, queuedReads, senders } = replica as unknown as ReplicaInside
    const { raft } = replica.raft
    const { uncommittedBytes, config } = raft
    // A first one may always go, however large.
    const uncommittedMax = Math.max(config.maxUncommittedEntriesSize, this.largestProposal)
    if (uncommittedBytes > uncommittedMax)
      this.within(node, `uncommitted bytes of replica ${replica.id}`, uncommittedBytes, uncommittedMax)
    if (queuedWrites.length > queuedMax)
      this.within(node, `writes of replica ${replica.id}`, queuedWrites.length, queuedMax)
    if (queuedReads.length > queuedMax)
      this.within(node, `reads of replica ${replica.id}`, queuedReads.length, queuedMax)
    if (senders.size > sendersMax)
      this.within(node, `speakers of replica ${replica.id}`, senders.size, sendersMax)
    this.lookAtRing(node, replica)
    const { readOnly, postponedReads } = raft as unknown as RaftInside
    const asked = Math.max(readOnly.count, postponedReads.length)
    if (asked > readsWaitingMax)
      this.within(node, `reads that wait for a quorum of replica ${replica.id}`, asked, readsWaitingMax)
    if (raft.role !== 'leader') return
    for (const { inflights } of raft.tracker.progress.values()) this.lookAtWindow(node, replica, inflights)
  }

  /** What entries did to keys is kept for watches: the newest entry whole, however much it did. */
  private lookAtRing(node: string, { id, changes }: Replica): void {
    const { bytesMax } = changes as unknown as RingInside
    if (changes.size <= changeLimits.changesMax && changes.byteSize <= bytesMax) return
    const { first, next, slots } = changes as unknown as RingInside
    const indexAt = (sequence: number) => slots[sequence & (slots.length - 1)]!.index
    if (indexAt(first) === indexAt(next - 1)) return
    const what = `${changes.size} changes of ${changes.byteSize} bytes`
    this.violated(
      `${node}: replica ${id} keeps ${what} for watches, the limits are ${changeLimits.changesMax} and ${bytesMax}`,
    )
  }

  /** The last append may pass the limit of bytes; none comes behind it. */
  private lookAtWindow(node: string, { id }: Replica, inflights: Inflights): void {
    const { count, bytes, messagesMax, bytesMax } = inflights
    if (count > messagesMax) this.within(node, `appends under way of replica ${id}`, count, messagesMax)
    if (bytesMax === 0 || bytes < bytesMax) return
    const { first, used, sizes } = inflights as unknown as InflightsInside
    const before = bytes - sizes[(first + used - 1) % sizes.length]!
    if (before >= bytesMax)
      this.within(node, `bytes under way of replica ${id} before its last append`, before, bytesMax - 1)
  }

  /**
   * Now and then. Rows and records that only memory has wait for a checkpoint: not for long, while the disk works. How much
   * comes in meanwhile the journal bounds.
   */
  lookAtMemtables(node: Node, isDiskWell: boolean): void {
    const { memtableBytesMax } = (node.host as unknown as HostInside).limits
    const nowMs = this.nowMs()
    for (const replica of node.host.all()) {
      const isOver = replica.state.memtableBytes > (memtableBytesMax ?? hostLimits.memtableBytesMax)
      if (!isOver || !isDiskWell || replica.halted !== null || replica.isInstalling) {
        this.over.delete(replica)
        continue
      }
      const lastMs = replica.checkpointedAtMs
      const known = this.over.get(replica)
      const sinceMs = known?.lastMs === lastMs ? known.sinceMs : nowMs
      this.over.set(replica, { sinceMs, lastMs })
      if (nowMs - sinceMs > checkpointMsMax)
        this.violated(
          `${node.nodeId}: replica ${replica.id} keeps ${replica.state.memtableBytes} bytes for ${Math.round(nowMs - sinceMs)} ms, the limit is ${memtableBytesMax}`,
        )
    }
  }

  /** A row of a state, when it is written. */
  lookAtRow(key: string, value: Bytes): void {
    if (key === systemRows.sessions) {
      const sessions = readNumber(value, 0)
      if (sessions > limits.sessionsMax)
        this.violated(`${sessions} sessions in a shard, the limit is ${limits.sessionsMax}`)
      return
    }
    if (key[0] !== prefixes.session) return
    if (key.length > sessionKeyChars) {
      if (value.byteLength > limits.sessionReplyBytesMax + answerBytesMax)
        this.violated(
          `an answer of ${value.byteLength} bytes is kept, the limit is ${limits.sessionReplyBytesMax}`,
        )
      return
    }
    const reader = new ByteReader(value)
    for (let i = 0; i < 3; i++) reader.varint()
    const kept = reader.varint()
    if (kept > limits.sessionSequencesMax)
      this.violated(`${kept} answers kept for a session, the limit is ${limits.sessionSequencesMax}`)
  }
}
