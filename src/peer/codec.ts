/**
 * One Raft message of one group as roundhouse.v1.GroupMessage and back, by hand: the generated codec speaks bigint and
 * copies every entry, and this is what a node does most. The bytes are the same (a test holds both side by side).
 * Entries are views of the frame they came in: a frame is mostly entries, and whoever keeps a small piece of one for long
 * copies it.
 *
 * Reading believes nothing: kinds that don't travel, numbers beyond 2^53 - 1, entries that don't follow one another and
 * broken lengths are refused.
 */
import { assert } from '../lib/assert.ts'
import { type Bytes, emptyBytes } from '../lib/bytes.ts'
import { varintBytes } from '../lib/varint.ts'
import type { ConfState, Entry, Message, MessageKind, Snapshot } from '../raft/types.ts'
import type { PeerMessage } from '../shard/ports.ts'
import { apartBytesMin, type ByteSink } from './byte-sink.ts'
import { type ByteSource, malformedFrame } from './byte-source.ts'

/** etcd's numbers; ours from 64 on. One that was used once keeps its meaning; null: never between nodes (proposals are forwarded as calls). */
const numberOfKind: Record<MessageKind, number | null> = {
  MsgProp: null,
  MsgApp: 3,
  MsgAppResp: 4,
  MsgVote: 5,
  MsgVoteResp: 6,
  MsgSnap: 7,
  MsgHeartbeat: 8,
  MsgHeartbeatResp: 9,
  MsgTransferLeader: 13,
  MsgTimeoutNow: 14,
  MsgReadIndex: 15,
  MsgReadIndexResp: 16,
  MsgPreVote: 17,
  MsgPreVoteResp: 18,
  MsgCommit: 64,
  MsgStorageAppend: null,
  MsgStorageAppendResp: null,
  MsgStorageApply: null,
  MsgStorageApplyResp: null,
}

const kindOfNumber: (MessageKind | undefined)[] = []
for (const [kind, number] of Object.entries(numberOfKind)) {
  if (number !== null) kindOfNumber[number] = kind as MessageKind
}

/** Members of a group are few; a list beyond this is no configuration. */
const replicasMax = 1000
const groupMax = 2 ** 32 - 1
/** Far above what Raft puts into one message, whose limit counts two dozen bytes an entry besides its data. */
const entriesMax = 2 ** 18

const noEntries: readonly Entry[] = []
const noMessages: readonly Message[] = []

// --- Sizes: one pass before writing, because a length stands before what it measures ------------------------------

/** Tags of all fields here take one byte; a zero is left out. */
const numberBytes = (value: number): number => (value === 0 ? 0 : 1 + varintBytes(value))
const lengthed = (bytes: number): number => 1 + varintBytes(bytes) + bytes
const blobBytes = (value: Bytes): number => (value.byteLength === 0 ? 0 : lengthed(value.byteLength))

export function messageBytes({ group, message: m }: PeerMessage): number {
  const kind = numberOfKind[m.kind]
  assert(kind !== null, `${m.kind} does not travel between nodes`)
  let bytes =
    numberBytes(group) +
    numberBytes(kind) +
    numberBytes(m.to) +
    numberBytes(m.from) +
    numberBytes(m.term) +
    numberBytes(m.logTerm) +
    numberBytes(m.index) +
    numberBytes(m.commit) +
    numberBytes(m.vote) +
    (m.reject ? 2 : 0) +
    numberBytes(m.rejectHint) +
    blobBytes(m.context) +
    numberBytes(m.leaderCommit)
  for (const entry of m.entries) bytes += lengthed(entryBytes(entry))
  if (m.snapshot !== null) bytes += lengthed(snapshotBytes(m.snapshot))
  return bytes
}

/** Of a message's bytes those that a gathering sink hands on. */
export function apartBytes({ message }: PeerMessage): number {
  let bytes = apartOf(message.context) + (message.snapshot === null ? 0 : apartOf(message.snapshot.data))
  for (const { data } of message.entries) bytes += apartOf(data)
  return bytes
}

const apartOf = ({ byteLength }: Bytes) => (byteLength >= apartBytesMin ? byteLength : 0)

function entryBytes(entry: Entry): number {
  return (
    numberBytes(entry.term) +
    numberBytes(entry.index) +
    (entry.kind === 'confChange' ? 2 : 0) +
    blobBytes(entry.data)
  )
}

function snapshotBytes({ meta, data }: Snapshot): number {
  return (
    numberBytes(meta.index) +
    numberBytes(meta.term) +
    lengthed(confStateBytes(meta.confState)) +
    blobBytes(data)
  )
}

const packedBytes = (ids: readonly number[]): number => ids.reduce((sum, id) => sum + varintBytes(id), 0)
const listBytes = (ids: readonly number[]): number => (ids.length === 0 ? 0 : lengthed(packedBytes(ids)))

function confStateBytes(state: ConfState): number {
  return (
    listBytes(state.voters) +
    listBytes(state.votersOutgoing) +
    listBytes(state.learners) +
    listBytes(state.learnersNext) +
    (state.autoLeave ? 2 : 0)
  )
}

// --- Writing ----------------------------------------------------------------------------------------------------------

const varint = 0
const lengthDelimited = 2

function putNumber(sink: ByteSink, field: number, value: number): void {
  if (value === 0) return
  sink.byte((field << 3) | varint)
  sink.varint(value)
}

function putBlob(sink: ByteSink, field: number, value: Bytes): void {
  if (value.byteLength === 0) return
  sink.byte((field << 3) | lengthDelimited)
  sink.bytes(value)
}

function putLength(sink: ByteSink, field: number, bytes: number): void {
  sink.byte((field << 3) | lengthDelimited)
  sink.varint(bytes)
}

/** Exactly `messageBytes` bytes. */
export function writeMessage(sink: ByteSink, { group, message: m }: PeerMessage): void {
  putNumber(sink, 1, group)
  putNumber(sink, 2, numberOfKind[m.kind]!)
  putNumber(sink, 3, m.to)
  putNumber(sink, 4, m.from)
  putNumber(sink, 5, m.term)
  putNumber(sink, 6, m.logTerm)
  putNumber(sink, 7, m.index)
  putNumber(sink, 8, m.commit)
  putNumber(sink, 9, m.vote)
  putNumber(sink, 10, m.reject ? 1 : 0)
  putNumber(sink, 11, m.rejectHint)
  putBlob(sink, 12, m.context)
  for (const entry of m.entries) {
    putLength(sink, 13, entryBytes(entry))
    putNumber(sink, 1, entry.term)
    putNumber(sink, 2, entry.index)
    putNumber(sink, 3, entry.kind === 'confChange' ? 1 : 0)
    putBlob(sink, 4, entry.data)
  }
  if (m.snapshot !== null) {
    putLength(sink, 14, snapshotBytes(m.snapshot))
    writeSnapshot(sink, m.snapshot)
  }
  putNumber(sink, 15, m.leaderCommit)
}

function writeSnapshot(sink: ByteSink, { meta, data }: Snapshot): void {
  const { confState } = meta
  putNumber(sink, 1, meta.index)
  putNumber(sink, 2, meta.term)
  putLength(sink, 3, confStateBytes(confState))
  putList(sink, 1, confState.voters)
  putList(sink, 2, confState.votersOutgoing)
  putList(sink, 3, confState.learners)
  putList(sink, 4, confState.learnersNext)
  putNumber(sink, 5, confState.autoLeave ? 1 : 0)
  putBlob(sink, 4, data)
}

function putList(sink: ByteSink, field: number, ids: readonly number[]): void {
  if (ids.length === 0) return
  putLength(sink, field, packedBytes(ids))
  for (const id of ids) sink.varint(id)
}

// --- Reading ----------------------------------------------------------------------------------------------------------

/** The message that ends at `end`. Its bytes are views. Throws INVALID_ARGUMENT. */
export function readMessage(source: ByteSource, end: number): PeerMessage {
  let group = 0
  let kind: MessageKind | undefined
  let to = 0
  let from = 0
  let term = 0
  let logTerm = 0
  let index = 0
  let commit = 0
  let leaderCommit = 0
  let vote = 0
  let reject = false
  let rejectHint = 0
  let context = emptyBytes
  let entries: Entry[] | null = null
  let snapshot: Snapshot | null = null
  while (source.at < end) {
    const tag = source.number()
    switch (tag) {
      case (1 << 3) | varint:
        group = source.number()
        break
      case (2 << 3) | varint:
        kind = kindOfNumber[source.number()]
        break
      case (3 << 3) | varint:
        to = source.number()
        break
      case (4 << 3) | varint:
        from = source.number()
        break
      case (5 << 3) | varint:
        term = source.number()
        break
      case (6 << 3) | varint:
        logTerm = source.number()
        break
      case (7 << 3) | varint:
        index = source.number()
        break
      case (8 << 3) | varint:
        commit = source.number()
        break
      case (9 << 3) | varint:
        vote = source.number()
        break
      case (10 << 3) | varint:
        reject = source.number() !== 0
        break
      case (11 << 3) | varint:
        rejectHint = source.number()
        break
      case (12 << 3) | lengthDelimited:
        context = source.bytesWithin(end)
        break
      case (13 << 3) | lengthDelimited:
        entries ??= []
        if (entries.length === entriesMax) throw malformedFrame(`at most ${entriesMax} entries in a message`)
        entries.push(readEntry(source, source.lengthWithin(end)))
        break
      case (14 << 3) | lengthDelimited:
        snapshot = readSnapshot(source, source.lengthWithin(end))
        break
      case (15 << 3) | varint:
        leaderCommit = source.number()
        break
      default:
        source.skip(tag, end)
    }
  }
  if (source.at !== end) throw malformedFrame('lengths that fit into one another')
  if (kind === undefined) throw malformedFrame('kinds of messages that travel')
  if (group > groupMax) throw malformedFrame(`groups up to ${groupMax}`)
  if (to === 0 || from === 0) throw malformedFrame('messages from a replica to a replica')
  if ((snapshot !== null) !== (kind === 'MsgSnap'))
    throw malformedFrame('a snapshot in MsgSnap and nowhere else')
  if (entries !== null) checkEntries(kind, index, entries)
  return {
    group,
    message: {
      kind,
      to,
      from,
      term,
      logTerm,
      index,
      entries: entries ?? noEntries,
      commit,
      leaderCommit,
      vote,
      snapshot,
      reject,
      rejectHint,
      context,
      responses: noMessages,
    },
  }
}

/** Raft takes it for granted that a MsgApp's entries follow on its index, terms never falling. */
function checkEntries(kind: MessageKind, index: number, entries: readonly Entry[]): void {
  if (kind !== 'MsgApp') throw malformedFrame('entries in MsgApp and nowhere else')
  let term = 0
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!
    if (entry.index !== index + 1 + i || entry.term < term || entry.term === 0) {
      throw malformedFrame('entries that follow one another')
    }
    term = entry.term
  }
}

function readEntry(source: ByteSource, end: number): Entry {
  let term = 0
  let index = 0
  let kind = 0
  let data = emptyBytes
  while (source.at < end) {
    const tag = source.number()
    switch (tag) {
      case (1 << 3) | varint:
        term = source.number()
        break
      case (2 << 3) | varint:
        index = source.number()
        break
      case (3 << 3) | varint:
        kind = source.number()
        break
      case (4 << 3) | lengthDelimited:
        data = source.bytesWithin(end)
        break
      default:
        source.skip(tag, end)
    }
  }
  if (source.at !== end) throw malformedFrame('lengths that fit into one another')
  if (kind > 1) throw malformedFrame('entries of the kinds 0 and 1')
  return { term, index, kind: kind === 1 ? 'confChange' : 'normal', data }
}

function readSnapshot(source: ByteSource, end: number): Snapshot {
  let index = 0
  let term = 0
  let confState: ConfState | null = null
  let data = emptyBytes
  source.fields(end, tag => {
    if (tag === ((1 << 3) | varint)) index = source.number()
    else if (tag === ((2 << 3) | varint)) term = source.number()
    else if (tag === ((3 << 3) | lengthDelimited)) confState = readConfState(source, source.lengthWithin(end))
    else if (tag === ((4 << 3) | lengthDelimited)) data = source.bytesWithin(end)
    else return false
    return true
  })
  if (confState === null) throw malformedFrame('a snapshot with its configuration')
  return { meta: { index, term, confState }, data }
}

function readConfState(source: ByteSource, end: number): ConfState {
  const lists: number[][] = [[], [], [], []]
  let autoLeave = false
  source.fields(end, tag => {
    const list = lists[(tag >>> 3) - 1]
    if (tag === ((5 << 3) | varint)) autoLeave = source.number() !== 0
    else if (list === undefined) return false
    else if ((tag & 7) === varint) putReplica(list, source.number())
    else if ((tag & 7) === lengthDelimited) {
      const to = source.lengthWithin(end)
      while (source.at < to) putReplica(list, source.number())
      if (source.at !== to) throw malformedFrame('lengths that fit into one another')
    } else return false
    return true
  })
  const [voters, votersOutgoing, learners, learnersNext] = lists as [number[], number[], number[], number[]]
  return { voters, votersOutgoing, learners, learnersNext, autoLeave }
}

function putReplica(list: number[], replica: number): void {
  if (list.length === replicasMax) throw malformedFrame(`at most ${replicasMax} replicas in a list`)
  list.push(replica)
}
