/**
 * What must hold after every event. It is checked where the event happened, against books that are kept beside the
 * program (`ledger.ts`), so that a check costs some comparisons of numbers:
 *
 * - one leader a term (Raft §5.2); terms, votes and commit indexes never go back, not over a crash either
 * - one log: the same index and term name the same entries everywhere (§5.3); committed entries are never replaced
 * - a leader has all that was committed before (§5.4); nothing is committed that no durable quorum has
 * - the same applied index means the same rows, in every replica and after every restart (§5.4.3)
 * - no answer to an append or a vote leaves before what it promises is durable; what was confirmed survives
 * - one uncommitted change of configuration; consecutive quorums meet (§6); ids that left never come back
 * - a quarantined replica is mute
 * - what is read was committed when it was asked for: a linearizable answer is no older than any commit before its question
 *   (Raft §6.4, thesis), and no replica answers older rows than it has shown, over restarts too
 * - memory and queues are bounded (bounds.ts)
 * - no stamp is far off the voters' clocks
 */

import { clock } from '../../src/commands/clock.ts'
import { decodeEnvelope } from '../../src/commands/envelope.ts'
import { sweep } from '../../src/commands/sweep.ts'
import { metaGroup } from '../../src/node/meta-register.ts'
import type { Node } from '../../src/node/node.ts'
import type { Entry } from '../../src/raft/types.ts'
import { type Configuration, decodeConfiguration } from '../../src/shard/configuration.ts'
import type { JournalRecord, PeerMessage } from '../../src/shard/ports.ts'
import type { Replica } from '../../src/shard/replica.ts'
import type { OpenedJournal } from '../../src/storage/journal.ts'
import { Bounds } from './bounds.ts'
import { bornHash, doIntersect, entryHash, GroupTruth, isQuorum, ReplicaLedger } from './ledger.ts'
import { asRead } from './releases.ts'
import type { Sightings } from './sometimes.ts'
import { rowsDigestOf } from './watched.ts'

/** A clock entry or a sweep takes less. */
const ownEntryBytesMax = 64

/** A group's log may be this long while one who votes has nothing of it: it is being born. */
const emptyLogMax = 16

/** How far a stamp may be ahead of the median of the voters' clocks, and what a greeting may be late. */
const stampOffMsMax = 500 + 250

/** A violation that is told once is enough: what follows from it is noise. */
const violationsMax = 20

export class Invariants {
  readonly violations: string[] = []
  /** A group has just entered a joint configuration. */
  onJoint: ((group: number) => void) | null = null
  /** A leader on that node writes a change of configuration; its appends are on their way. */
  onChange: ((node: string) => void) | null = null
  /** When the first was seen, ms of simulated time. */
  firstViolationMs: number | null = null
  readonly groups = new Map<number, GroupTruth>()
  readonly ledgers = new Map<number, ReplicaLedger>()
  /** Leaders seen, all groups together: what elections are counted by. */
  elections = 0
  readonly bounds: Bounds
  private readonly byNode = new Map<string, Set<ReplicaLedger>>()
  private readonly sightings: Sightings
  private readonly nowMs: () => number
  /** Whether no process runs on a node that is still a member. */
  private readonly isDown: (node: string) => boolean
  /** Whether something was done to a node's disk that no replica of it need survive. */
  private readonly isDamaged: (node: string) => boolean
  /** The latest time that any right clock shows; NaN where nobody can say which are right. */
  private readonly latestWallMs: () => number
  /** Whether entries that it does not understand may reach this node. */
  private readonly mayMisread: (node: string) => boolean
  /** How long a replica puts off applying what is committed, ms; null: it does not. */
  holdApply: ((node: string, replica: Replica) => number) | null = null
  /** Entries were carried forward in the journal of that node. */
  onCopied: ((node: string) => void) | null = null

  constructor(
    sightings: Sightings,
    nowMs: () => number,
    isDown: (node: string) => boolean,
    isDamaged: (node: string) => boolean,
    latestWallMs: () => number,
    mayMisread: (node: string) => boolean,
  ) {
    this.sightings = sightings
    this.nowMs = nowMs
    this.isDown = isDown
    this.isDamaged = isDamaged
    this.latestWallMs = latestWallMs
    this.mayMisread = mayMisread
    this.bounds = new Bounds(text => this.violated(text), nowMs)
  }

  violated(text: string): void {
    this.firstViolationMs ??= this.nowMs()
    if (this.violations.length < violationsMax)
      this.violations.push(`${Math.round(this.nowMs())} ms: ${text}`)
  }

  group(id: number): GroupTruth {
    const known = this.groups.get(id)
    if (known !== undefined) return known
    const group = new GroupTruth(id)
    group.places.set(group.place(1, 1), bornHash(1, 1))
    this.groups.set(id, group)
    return group
  }

  private ledger(id: number, node: string): ReplicaLedger {
    const known = this.ledgers.get(id)
    if (known !== undefined) {
      if (known.node !== node)
        this.violated(`replica ${id} is on ${node}, and its id was given to ${known.node}`)
      return known
    }
    const ledger = new ReplicaLedger(id, node)
    this.ledgers.set(id, ledger)
    const its = this.byNode.get(node) ?? new Set()
    this.byNode.set(node, its.add(ledger))
    return ledger
  }

  // --- The journal of a node ----------------------------------------------------------------------------------------

  writing(node: string, batch: readonly JournalRecord[]): void {
    for (const record of batch) {
      const ledger = this.ledger(record.replica, node)
      ledger.isWriteInFlight = true
      const { hardState, configuration, reset, entries } = record
      if (configuration !== undefined) ledger.group ??= decodeConfiguration(configuration).group
      const group = ledger.group === null ? null : this.group(ledger.group)
      if (hardState !== null) {
        const isBack =
          hardState.term < ledger.term ||
          (hardState.term === ledger.term && ledger.vote !== 0 && hardState.vote !== ledger.vote)
        if (isBack)
          this.violated(
            `replica ${ledger.id} writes term ${hardState.term} vote ${hardState.vote} after term ${ledger.term} vote ${ledger.vote}`,
          )
        ledger.term = hardState.term
        ledger.vote = hardState.vote
        ledger.commit = hardState.commit
      }
      // Configurations count from their apply on: a restart must know how far to apply before it may campaign.
      if (entries.length > 0 && ledger.commit < ledger.shownCommit)
        this.violated(
          `replica ${ledger.id} writes entries with commit ${ledger.commit} and knows of ${ledger.shownCommit}`,
        )
      if (reset !== undefined) {
        const hash =
          group?.committed[reset.index] ?? group?.places.get(group.place(reset.index, reset.term)) ?? 0
        if (hash === 0 && group !== null)
          this.violated(`replica ${ledger.id} installs (${reset.index}, ${reset.term}), which was never seen`)
        ledger.reset(reset.index, hash, reset.term)
        ledger.durableLast = 0
        ledger.isPulling = false
        if (reset.index > 1) this.sightings.see('snapshotInstalled')
      }
      if (entries.length > 0) this.wrote(ledger, group, entries)
    }
  }

  private wrote(ledger: ReplicaLedger, group: GroupTruth | null, entries: JournalRecord['entries']): void {
    const first = entries[0]!.index
    if (first <= ledger.last) {
      this.sightings.see('tailReplaced')
      if (group !== null && ledger.changes.some(index => index >= first && index > group.commit))
        this.sightings.see('changeOverwritten')
    }
    // What was committed and is here stays. (A leader that is cut off may append to an older tail: that is no harm.)
    const had = ledger.hashes.slice(Math.max(0, first - ledger.base))
    ledger.truncate(first - 1)
    ledger.durableLast = Math.min(ledger.durableLast, first - 1)
    for (const [i, entry] of entries.entries()) {
      if (entry.kind === 'confChange' && ledger.seenRole === 'leader') this.onChange?.(ledger.node)
      if (entry.data.byteLength < ownEntryBytesMax) this.noteOwn(entry.data)
      const hash = ledger.append(entry)
      if (group === null) continue
      if (ledger.seenRole === 'leader' && entry.term === ledger.seenTerm) this.noteStamp(ledger, group, entry)
      if (had[i] !== undefined && had[i] !== hash && had[i] === group.committed[entry.index])
        this.violated(`replica ${ledger.id} replaces the committed entry ${entry.index} of group ${group.id}`)
      const place = group.place(entry.index, entry.term)
      const known = group.places.get(place)
      if (known === undefined) group.places.set(place, hash)
      else if (known !== hash)
        this.violated(
          `log matching: replica ${ledger.id} has another log up to (${entry.index}, ${entry.term}) of group ${group.id}`,
        )
    }
    if (group !== null && ledger.changes.filter(index => index > group.commit).length > 1)
      this.violated(
        `replica ${ledger.id} has ${ledger.changes.length} uncommitted changes of configuration in group ${group.id}`,
      )
  }

  /** Of three clocks and more the one that is off decides nothing: TTLs and sessions of everybody hang on the stamps. */
  private noteStamp(ledger: ReplicaLedger, group: GroupTruth, { index, kind, data }: Entry): void {
    if (kind !== 'normal' || data.byteLength === 0) return
    const { timestampMs } = decodeEnvelope(asRead(data))
    const before = group.stampMs
    group.stampMs = Math.max(before, timestampMs)
    const voters = group.configurations.get(group.lastConfiguration)?.voters
    if (voters === undefined || voters.voters.length < 3 || voters.votersOutgoing.length > 0) return
    const latestMs = this.latestWallMs()
    if (timestampMs > before && timestampMs > latestMs + stampOffMsMax)
      this.violated(
        `leader ${ledger.id} stamps entry ${index} of group ${group.id} ${Math.round(timestampMs - latestMs)} ms ahead of every right clock`,
      )
  }

  /** Entries that a cluster gives itself are seen by their names. */
  private noteOwn(data: Uint8Array): void {
    const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    if (text.includes(sweep.name)) this.sightings.see('swept')
    if (text.includes(clock.name)) this.sightings.see('clockWanted')
  }

  written(batch: readonly JournalRecord[]): void {
    for (const { replica, configuration } of batch) {
      const ledger = this.ledgers.get(replica)!
      if (configuration !== undefined && decodeConfiguration(configuration).quarantined !== undefined)
        ledger.isQuarantineNoted = true
      ledger.isWriteInFlight = false
      ledger.durableTerm = ledger.term
      ledger.durableVote = ledger.vote
      ledger.durableLast = ledger.last
    }
  }

  removing(replica: number): void {
    const ledger = this.ledgers.get(replica)
    if (ledger !== undefined) ledger.isRemoving = true
  }

  removed(replica: number): void {
    const ledger = this.ledgers.get(replica)
    if (ledger === undefined) return
    ledger.isRemoved = true
    ledger.durableLast = 0
    if (ledger.isQuarantined) this.sightings.see('rotMended')
  }

  crashed(node: string): void {
    for (const ledger of this.byNode.get(node) ?? [])
      if (ledger.isWriteInFlight) this.sightings.see('crashInFlight')
  }

  /** A process begins: what its journal gives back must be all that it had confirmed. */
  recovered(node: string, { journal, recovered, damage, torn }: OpenedJournal): void {
    if (torn !== null) this.sightings.see('tornTail')
    if (damage.length > 0) this.sightings.see('rotFound')
    const found = new Set<number>()
    for (const { replica, hardState, configuration, snapshotPoint, lastIndex, damaged } of recovered) {
      found.add(replica)
      const ledger = this.ledger(replica, node)
      ledger.forgetProcess()
      if (configuration !== null) ledger.group ??= decodeConfiguration(configuration).group
      if (damaged !== null) {
        ledger.isLost = true
        continue
      }
      // What it promised may be lost, and the damage that told so be written over: it is mute for good, see `sent`.
      if (ledger.isQuarantineNoted) continue
      if (damage.length > 0) this.sightings.see('rotHarmless')
      if (hardState.term < ledger.durableTerm)
        this.violated(`replica ${replica} came back in term ${hardState.term} after ${ledger.durableTerm}`)
      if (
        hardState.term === ledger.durableTerm &&
        ledger.durableVote !== 0 &&
        hardState.vote !== ledger.durableVote
      )
        this.violated(
          `replica ${replica} came back with vote ${hardState.vote} in term ${hardState.term}, it had voted ${ledger.durableVote}`,
        )
      if (lastIndex < ledger.durableLast)
        this.violated(
          `replica ${replica} came back with ${lastIndex} entries, ${ledger.durableLast} were durable`,
        )
      if (ledger.isWriteInFlight)
        this.sightings.see(
          lastIndex > ledger.durableLast || hardState.term > ledger.durableTerm
            ? 'writeSurvivedUnsynced'
            : 'writeLostUnsynced',
        )
      this.reread(ledger, journal, snapshotPoint, lastIndex)
      ledger.isWriteInFlight = false
      ledger.term = hardState.term
      ledger.vote = hardState.vote
      ledger.commit = hardState.commit
      ledger.durableTerm = hardState.term
      ledger.durableVote = hardState.vote
      ledger.durableLast = ledger.last
    }
    for (const ledger of this.byNode.get(node) ?? []) {
      if (found.has(ledger.id) || ledger.isRemoved || ledger.isRemoving || ledger.isLost) continue
      if (ledger.durableTerm > 0 && damage.length === 0)
        this.violated(`replica ${ledger.id} did not come back on ${node}`)
      ledger.isLost = true
    }
  }

  /** The log as it is on disk, entry by entry; then the books go on from it. */
  private reread(
    ledger: ReplicaLedger,
    journal: OpenedJournal['journal'],
    point: { readonly index: number; readonly term: number },
    last: number,
  ): void {
    const group = ledger.group === null ? null : this.group(ledger.group)
    const known = group?.committed[point.index] ?? group?.places.get(group.place(point.index, point.term))
    let hash = known ?? ledger.hashAt(point.index) ?? bornHash(point.index, point.term)
    const before = {
      base: ledger.base,
      hashes: ledger.hashes,
      durable: ledger.durableLast,
    }
    ledger.reset(point.index, hash, point.term)
    let entries: ReturnType<typeof journal.entries> = []
    try {
      if (last > point.index)
        entries = journal.entries(ledger.id, point.index + 1, last + 1, Number.MAX_SAFE_INTEGER)
    } catch {
      // Damaged since it was opened: the replica will find out when it reads.
      ledger.isLost = true
      return
    }
    for (const entry of entries) {
      hash = entryHash(hash, entry)
      const place = group?.places.get(group.place(entry.index, entry.term))
      if (place !== undefined && place !== hash)
        this.violated(`replica ${ledger.id} came back with another entry ${entry.index} than it had`)
      if (entry.index <= before.durable && entry.index >= before.base) {
        if (before.hashes[entry.index - before.base] !== hash)
          this.violated(
            `replica ${ledger.id} came back with another log up to ${entry.index} than was durable`,
          )
      }
      ledger.append(entry)
    }
  }

  /** Its disk is gone. */
  lost(node: string): void {
    for (const ledger of this.byNode.get(node) ?? []) {
      ledger.isLost = true
      ledger.lostLast = Math.max(ledger.lostLast, ledger.durableLast)
      ledger.durableLast = 0
    }
  }

  // --- Messages -----------------------------------------------------------------------------------------------------

  sent(node: Node | null, messages: readonly PeerMessage[]): void {
    for (const { message } of messages) {
      const ledger = this.ledgers.get(message.from)
      if (ledger === undefined) {
        this.violated(`${message.kind} from replica ${message.from}, which has nothing on disk`)
        continue
      }
      if (node?.host.unfit().has(message.from) || node?.host.replica(message.from)?.halted != null)
        this.violated(`${message.kind} from replica ${message.from}, which is quarantined`)
      else if (ledger.isQuarantineNoted)
        this.violated(`${message.kind} from replica ${message.from}, which was quarantined once`)
      if (ledger.isRemoved) this.violated(`${message.kind} from replica ${message.from}, which was destroyed`)
      switch (message.kind) {
        case 'MsgAppResp':
          if (message.reject) this.sightings.see('probeRefused')
          // In a later term its entries may have been replaced before they were written: whoever still counts in the
          // term before can't commit them, since a majority has voted without them (Raft §5.4.3).
          else if (ledger.durableTerm > message.term) break
          else if (message.index > ledger.durableLast || message.term > ledger.durableTerm)
            this.violated(
              `replica ${ledger.id} acknowledges ${message.index} in term ${message.term}; durable are ${ledger.durableLast} and ${ledger.durableTerm}`,
            )
          break
        case 'MsgVoteResp': {
          if (message.reject || ledger.durableTerm > message.term) break
          if (ledger.durableTerm < message.term || ledger.durableVote !== message.to)
            this.violated(
              `replica ${ledger.id} votes for ${message.to} in term ${message.term}; durable is a vote for ${ledger.durableVote} in ${ledger.durableTerm}`,
            )
          break
        }
        case 'MsgSnap': {
          const receiver = this.ledgers.get(message.to)
          if (receiver !== undefined) receiver.isPulling = true
          break
        }
        case 'MsgTimeoutNow':
          this.sightings.see('leaderTransferred')
          break
        default:
      }
    }
  }

  // --- After an event -----------------------------------------------------------------------------------------------

  look(node: Node): void {
    for (const [id, { why }] of node.host.unfit()) {
      const ledger = this.ledgers.get(id)
      if (ledger === undefined || ledger.isQuarantined) continue
      ledger.isQuarantined = true
      this.sightings.see('quarantined')
      if (/state: the checksum of a row/.test(why)) this.sightings.see('rowRotMet')
      if (!this.isDamaged(node.nodeId))
        this.violated(`${node.nodeId}: replica ${id} is quarantined, and nothing was damaged: ${why}`)
    }
    for (const replica of node.host.all()) {
      this.watch(node.nodeId, replica)
      this.lookAt(node.nodeId, replica)
    }
    this.bounds.look(node)
  }

  private readonly watched = new WeakSet<Replica>()

  /** Once a replica: what its host and its callers ask of it goes by here. */
  private watch(node: string, replica: Replica): void {
    if (this.watched.has(replica)) return
    this.watched.add(replica)
    this.countTicks(node, replica)
    this.watchReads(node, replica)
    this.bounds.watch(replica)
    const apply = replica.applyCommitted.bind(replica)
    // Whoever puts it off sees to it that the replica is looked at again.
    replica.applyCommitted = untilMs => {
      const heldMs = this.holdApply?.(node, replica) ?? 0
      if (heldMs === 0) return apply(untilMs)
      this.sightings.see('applyLate')
      return true
    }
  }

  /** Ticks that a stalled process missed must not be made up for: a burst starts elections by itself. */
  private countTicks(node: string, replica: Replica): void {
    const last = { atMs: -1, times: 0 }
    const { raft } = replica
    const tick = raft.tick.bind(raft)
    raft.tick = () => {
      const now = this.nowMs()
      last.times = last.atMs === now ? last.times + 1 : 1
      last.atMs = now
      if (last.times === 2) this.violated(`${node}: replica ${replica.id} ticks twice at once`)
      tick()
    }
  }

  private watchReads(node: string, replica: Replica): void {
    const { group } = replica
    const enqueue = replica.enqueueRead.bind(replica)
    const stale = replica.readStale.bind(replica)
    replica.enqueueRead = read => {
      // All that was ever answered was committed by then.
      const due = this.group(group).commit
      const { log, term } = replica.raft.raft
      if (replica.isLeader && log.term(log.committed) !== term) this.sightings.see('readBeforeFirstCommit')
      const settle: typeof read.settle = result => {
        if (result.ok) this.showed(node, replica, due)
        read.settle(result)
      }
      enqueue({ ...read, settle })
    }
    replica.readStale = (command, args) => {
      const answer = stale(command, args)
      this.showed(node, replica, 0)
      return answer
    }
  }

  private showed(node: string, replica: Replica, due: number): void {
    const { id, appliedIndex } = replica
    if (appliedIndex < due)
      this.violated(
        `${node}: replica ${id} answers a read as of ${appliedIndex}; ${due} was committed in group ${replica.group} when it was asked`,
      )
    const ledger = this.ledgers.get(id)
    if (ledger === undefined) return
    if (appliedIndex < ledger.shownApplied)
      this.violated(
        `${node}: replica ${id} answers a read as of ${appliedIndex}, after one as of ${ledger.shownApplied}`,
      )
    ledger.shownApplied = Math.max(ledger.shownApplied, appliedIndex)
  }

  private lookAt(node: string, replica: Replica): void {
    const { raft } = replica.raft
    const ledger = this.ledgers.get(replica.id)
    if (ledger === undefined) return
    if (replica.halted !== null) {
      this.lookAtHalted(node, replica.halted, ledger)
      return
    }
    if (
      raft.term === ledger.seenTerm &&
      raft.log.committed === ledger.seenCommit &&
      replica.appliedIndex === ledger.seenApplied &&
      raft.role === ledger.seenRole &&
      replica.configuration.index === ledger.seenConfiguration
    )
      return
    ledger.group ??= replica.group
    const group = this.group(replica.group)
    if (raft.term < ledger.seenTerm)
      this.violated(`${node}: the term of replica ${replica.id} went back to ${raft.term}`)
    if (raft.role !== ledger.seenRole || raft.term !== ledger.seenTerm)
      this.lookAtRole(replica, ledger, group)
    // The configuration that was in force when the commit index rose is the one before, if both changed.
    const before = group.configurations.get(ledger.seenConfiguration)
    if (raft.log.committed !== ledger.seenCommit) this.lookAtCommit(node, replica, ledger, group, before)
    if (replica.configuration.index !== ledger.seenConfiguration)
      this.lookAtConfiguration(node, replica.configuration, group)
    if (replica.appliedIndex !== ledger.seenApplied) this.lookAtRows(node, replica, ledger, group)
    ledger.seenTerm = raft.term
    // What the checkpoint brings is committed without being written again.
    if (ledger.seenCommit === -1) ledger.commit = Math.max(ledger.commit, raft.log.committed)
    ledger.seenCommit = raft.log.committed
    // What a snapshot says to be committed is written when it is installed.
    if (!replica.raft.hasPendingSnapshot) ledger.shownCommit = raft.log.committed
    ledger.seenApplied = replica.appliedIndex
    ledger.seenRole = raft.role
    ledger.seenConfiguration = replica.configuration.index
  }

  /** What a member does not understand is not written: that is what the feature level is for. */
  private lookAtHalted(node: string, why: string, ledger: ReplicaLedger): void {
    if (!why.startsWith('entry not understood') || ledger.hasMisread) return
    ledger.hasMisread = true
    if (/envelope version/.test(why)) this.sightings.see('versionNotUnderstood')
    if (!this.mayMisread(node))
      this.violated(`${node}: replica ${ledger.id} stands still, and every member must understand: ${why}`)
  }

  private lookAtRole(replica: Replica, ledger: ReplicaLedger, group: GroupTruth): void {
    const { raft } = replica.raft
    if (raft.role === 'candidate' || raft.role === 'preCandidate') {
      for (const each of this.ledgers.values())
        if (each.group === group.id && each.isPulling) this.sightings.see('snapshotInElection')
    }
    if (ledger.seenRole === 'leader' && raft.role === 'follower' && raft.term === ledger.seenTerm)
      this.sightings.see('leaderSteppedDown')
    if (raft.role !== 'leader') return
    const other = group.leaders.get(raft.term)
    if (other === replica.id) return
    if (other !== undefined) {
      this.violated(`group ${group.id} has two leaders in term ${raft.term}: ${other} and ${replica.id}`)
      return
    }
    // A leader that crashed could come back, be elected in this term again and write another log in it (§5.3).
    if (ledger.durableTerm !== raft.term || ledger.durableVote !== replica.id)
      this.violated(
        `replica ${replica.id} leads term ${raft.term} of group ${group.id}; durable is a vote for ${ledger.durableVote} in ${ledger.durableTerm}`,
      )
    // Who has gone on to a later term, or has lost its disk, can't be asked any more.
    const voted = (id: number) => {
      const voter = this.ledgers.get(id)
      if (voter === undefined || voter.isLost || voter.durableTerm > raft.term) return true
      return voter.durableTerm === raft.term && voter.durableVote === replica.id
    }
    if (!isQuorum({ ...raft.tracker.config, members: [] }, voted))
      this.violated(
        `replica ${replica.id} leads term ${raft.term} of group ${group.id} without the votes of a quorum of ${raft.tracker.config.voters} ${raft.tracker.config.votersOutgoing}`,
      )
    const last = this.ledgers.get([...group.leaders.values()].at(-1) ?? 0)
    if (last !== undefined && this.isDown(last.node)) this.sightings.see('electionAfterCrash')
    group.leaders.set(raft.term, replica.id)
    this.elections++
    if (group.leaders.size === 5) this.sightings.see('electionAgain')
    // Leader completeness: all that was committed in earlier terms.
    for (let index = group.commit; index > 0; index--) {
      const term = group.committedTerms[index]
      if (term === undefined) break
      if (term >= raft.term) continue
      const its = raft.log.term(index)
      if (its !== term && raft.log.firstIndex() <= index)
        this.violated(
          `leader ${replica.id} of term ${raft.term} lacks entry ${index} of term ${term}, committed in group ${group.id}`,
        )
      break
    }
  }

  private lookAtCommit(
    node: string,
    replica: Replica,
    ledger: ReplicaLedger,
    group: GroupTruth,
    before: ReturnType<GroupTruth['configurations']['get']>,
  ): void {
    const { raft } = replica.raft
    const { committed } = raft.log
    if (committed < ledger.seenCommit)
      this.violated(`${node}: the commit index of replica ${replica.id} went back to ${committed}`)
    const place = (index: number) => {
      const term = raft.log.term(index)
      return term === undefined ? undefined : group.places.get(group.place(index, term))
    }
    const hash = place(committed) ?? ledger.hashAt(committed)
    const agreed = group.committed[committed]
    if (agreed !== undefined && hash !== undefined && agreed !== hash)
      this.violated(
        `${node}: replica ${replica.id} commits another entry ${committed} than others of group ${group.id}`,
      )
    const isCounted = raft.role === 'leader' && ledger.seenRole === 'leader' && ledger.seenTerm === raft.term
    if (isCounted && raft.log.term(committed) !== raft.term)
      this.violated(
        `leader ${replica.id} of term ${raft.term} counts ${committed}, an entry of term ${raft.log.term(committed)}`,
      )
    if (committed <= group.commit) return
    for (let index = committed; index > group.commit; index--) {
      // What the journal was handed last may be a tail that Raft has replaced in memory already.
      const term = raft.log.term(index) ?? ledger.termAt(index)
      const its = place(index) ?? (ledger.termAt(index) === term ? ledger.hashAt(index) : undefined)
      if (its === undefined || term === undefined) break
      group.committed[index] = its
      group.committedTerms[index] = term
    }
    const isDurable = (id: number) => {
      const voter = this.ledgers.get(id)
      return (
        voter !== undefined &&
        Math.max(voter.durableLast, voter.lostLast) >= committed &&
        (voter.base > committed || voter.hashAt(committed) === hash)
      )
    }
    const now = raft.tracker.config
    const isHeld = isQuorum({ ...now, members: [] }, isDurable)
    if (!isHeld && (before === undefined || !isQuorum(before.voters, isDurable)))
      this.violated(
        `group ${group.id} commits ${committed} (by replica ${replica.id}, term ${raft.term}), which no quorum of ${now.voters} ${now.votersOutgoing} has on disk: ${[...now.voters, ...now.votersOutgoing].map(id => `${id}: ${this.ledgers.get(id)?.durableLast}`).join(', ')}`,
      )
    group.commit = committed
  }

  private lookAtConfiguration(node: string, configuration: Configuration, group: GroupTruth): void {
    const { index, members, confState } = configuration
    if (index === 0) return
    const text = JSON.stringify([members, confState])
    const known = group.configurations.get(index)
    if (known !== undefined) {
      if (known.text !== text)
        this.violated(
          `${node}: group ${group.id} has two configurations at ${index}: ${text} and ${known.text}`,
        )
      return
    }
    const { voters, votersOutgoing } = confState
    const sets = {
      voters,
      votersOutgoing,
      members: members.map(member => member.replica),
    }
    group.configurations.set(index, { text, voters: sets })
    if (index < group.lastConfiguration) return
    const before = group.configurations.get(group.lastConfiguration)?.voters
    group.lastConfiguration = index
    if (before === undefined) return
    if (!doIntersect(before, sets))
      this.violated(
        `quorums of group ${group.id} at ${index} need not meet those before: ${JSON.stringify([before, sets])}`,
      )
    for (const id of sets.members)
      if (group.removed.has(id)) this.violated(`replica ${id} is back in group ${group.id}`)
    for (const id of sets.voters) {
      const isNew = !before.voters.includes(id) && !before.votersOutgoing.includes(id)
      if (isNew && group.commit > emptyLogMax && (this.ledgers.get(id)?.last ?? 0) <= 1)
        this.violated(`replica ${id} votes in group ${group.id} with an empty log`)
    }
    for (const id of before.members) {
      if (sets.members.includes(id)) continue
      group.removed.add(id)
      if (this.isDown(this.ledgers.get(id)?.node ?? '')) this.sightings.see('lostNodeReplaced')
    }
    if (votersOutgoing.length > 0) {
      this.sightings.see('jointEntered')
      this.onJoint?.(group.id)
    }
    const leader = (at: number) => group.leaders.get(group.committedTerms[at] ?? -1)
    if (before.votersOutgoing.length > 0 && votersOutgoing.length === 0) {
      const entered = [...group.configurations.keys()].filter(at => at < index).sort((a, b) => b - a)[0]!
      if (leader(entered) !== leader(index)) this.sightings.see('jointFinishedByAnother')
    }
  }

  private lookAtRows(node: string, replica: Replica, ledger: ReplicaLedger, group: GroupTruth): void {
    const { appliedIndex, raft, state } = replica
    if (appliedIndex < ledger.seenApplied)
      this.violated(`${node}: the applied index of replica ${replica.id} went back to ${appliedIndex}`)
    if (appliedIndex > raft.raft.log.committed)
      this.violated(`${node}: replica ${replica.id} applied ${appliedIndex}, which is not committed`)
    // A state machine ahead of its own log would remember, after a crash, what its log does not.
    const isOfSnapshot = (state.checkpointed?.index ?? 0) >= appliedIndex
    if (!isOfSnapshot && appliedIndex > ledger.durableLast && appliedIndex > ledger.base)
      this.violated(
        `${node}: replica ${replica.id} applied ${appliedIndex}, durable are ${ledger.durableLast}`,
      )
    const digest = replica.isInstalling ? undefined : rowsDigestOf(state)
    if (digest === undefined) return
    if (ledger.seenApplied === -1 && appliedIndex < group.commit && appliedIndex > 1)
      this.sightings.see('replayed')
    const known = group.digests.get(appliedIndex)
    if (known === undefined) group.digests.set(appliedIndex, { digest, by: node })
    else if (known.digest !== digest)
      this.violated(
        `${node} and ${known.by} hold different rows of group ${group.id} at ${appliedIndex}${group.id === metaGroup ? ' (meta)' : ''}`,
      )
  }
}
