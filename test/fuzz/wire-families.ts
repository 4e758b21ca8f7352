/** What comes in over gRPC: from anybody who reaches the port, from peers, and from the peers that this node asked. */
import { EventEmitter } from 'node:events'
import { Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { CallError } from '../../src/client/call-error.ts'
import { decodeText, readReply as readClientReply } from '../../src/client/reply.ts'
import { ShardMap } from '../../src/client/shard-map.ts'
import type { Reply } from '../../src/commands/command.ts'
import { commands } from '../../src/commands/table.ts'
import { isError, RemoteError, RoundhouseError } from '../../src/errors.ts'
import {
  CommandRequest,
  CommandResponse,
  HeartbeatRequest,
  HeartbeatResponse,
} from '../../src/gen/clusterpb/cluster.ts'
import { MapResponse } from '../../src/gen/roundhouse/v1/admin.ts'
import { AskRequest } from '../../src/gen/roundhouse/v1/peer.ts'
import { Detector, defaultSettings } from '../../src/gossip/detector.ts'
import type { MemberRecord } from '../../src/gossip/member.ts'
import type { Bytes } from '../../src/lib/bytes.ts'
import { crc32 } from '../../src/lib/crc.ts'
import { statusDetailsKey } from '../../src/lib/error-info.ts'
import type { Prng } from '../../src/lib/prng.ts'
import type { Call } from '../../src/node/ports.ts'
import { BulkStream } from '../../src/peer/bulk.ts'
import {
  readResponse,
  writeChunk,
  writeRequest,
  writeResponse,
  writeTransfer,
} from '../../src/peer/call-codec.ts'
import { nobodyIsChecked } from '../../src/peer/caller.ts'
import type { Channel } from '../../src/peer/channel.ts'
import { decodeFrame, encodeFrames, encodeHandshake, readHandshake } from '../../src/peer/frames.ts'
import { readMembers, writeMember } from '../../src/peer/member-codec.ts'
import { decodeMessage, encodeMessage } from '../../src/peer/proto-io.ts'
import { encodeRichStatus } from '../../src/peer/rich-status.ts'
import { remoteErrorOf, statusOf } from '../../src/peer/status.ts'
import { draft, type Message } from '../../src/raft/types.ts'
import type { PeerMessage } from '../../src/shard/ports.ts'
import { ClusterNodeHandlers, clusterNodeMethods } from '../../src/wire/grpc/cluster-node.ts'
import { wholeOf } from '../peer/encoded.ts'
import { FakePeerService, FakeService } from '../wire/grpc/fake-service.ts'
import { decodes, type Family, type Outcome } from './family.ts'
import {
  connections,
  FakeStream,
  frozenClock,
  gateOptions,
  OneShard,
  peerHandlers,
  throwUnexpected,
  unaryLater,
  unaryNow,
} from './gate.ts'
import { Mutator } from './mutate.ts'

const text = (value: string): Buffer => Buffer.from(value)

// --- Frames of peers ------------------------------------------------------------------------------------------------

function messagesOf(random: Prng): PeerMessage[] {
  const entries = [1, 2, 3].map(i => ({
    term: 3,
    index: 40 + i,
    kind: i === 2 ? ('confChange' as const) : ('normal' as const),
    data: random.bytes(i * 30),
  }))
  const confState = {
    voters: [1, 2, 300],
    votersOutgoing: [1],
    learners: [4],
    learnersNext: [5],
    autoLeave: true,
  }
  const base = { logTerm: 3, index: 40, commit: 39, leaderCommit: 40 }
  const messages: Message[] = [
    { ...draft('MsgApp', 2, 1, 3), ...base, entries },
    { ...draft('MsgAppResp', 1, 2, 3), index: 43, reject: true, rejectHint: 39 },
    { ...draft('MsgHeartbeat', 2, 1, 3), commit: 39, context: random.bytes(8) },
    { ...draft('MsgHeartbeatResp', 1, 2, 3), context: random.bytes(8) },
    { ...draft('MsgVote', 2, 1, 4), ...base, vote: 1 },
    { ...draft('MsgPreVoteResp', 2, 1, 4), reject: true },
    {
      ...draft('MsgSnap', 2, 1, 3),
      snapshot: { meta: { index: 40, term: 3, confState }, data: random.bytes(60) },
    },
    { ...draft('MsgTimeoutNow', 2, 1, 3) },
  ]
  return messages.map((message, group) => ({ group: group * 1000, message }))
}

function frames(random: Prng): Buffer[] {
  const messages = messagesOf(random)
  return [messages, ...messages.map(each => [each])].flatMap(each => encodeFrames(each).frames.map(wholeOf))
}

/** Raft takes all this for granted of a message that it is given. */
function assertSound({ group, message: m }: PeerMessage): void {
  const numbers = [
    group,
    m.to,
    m.from,
    m.term,
    m.logTerm,
    m.index,
    m.commit,
    m.leaderCommit,
    m.vote,
    m.rejectHint,
  ]
  if (!numbers.every(each => Number.isSafeInteger(each) && each >= 0) || m.to === 0 || m.from === 0)
    throw new Error(`numbers that are none: ${numbers}`)
  m.entries.forEach((entry, i) => {
    if (entry.index !== m.index + 1 + i || entry.term === 0) throw new Error(`entry ${i} of ${m.index}`)
  })
  if ((m.kind === 'MsgSnap') !== (m.snapshot !== null)) throw new Error(`${m.kind} with ${m.snapshot}`)
}

const peerFrames: Family = {
  name: 'peer-frames',
  refuses: 'INVALID_ARGUMENT',
  share: 1,
  open: async random => {
    const mutator = new Mutator(frames(random))
    return {
      run: each =>
        decodes(['INVALID_ARGUMENT'], () => {
          for (const message of decodeFrame(mutator.next(each))) assertSound(message)
        }),
    }
  },
}

const handshakes: Family = {
  name: 'handshake',
  refuses: 'INVALID_ARGUMENT',
  share: 1,
  open: async random => {
    const identity = { clusterId: 'c'.repeat(32), nodeId: 'node1', storeId: 'f'.repeat(32) }
    const corpus = [
      encodeHandshake(identity, 'appends'),
      encodeHandshake(identity, 'control'),
      ...frames(random),
    ]
    const mutator = new Mutator(corpus)
    return { run: each => decodes(['INVALID_ARGUMENT'], () => readHandshake(mutator.next(each))) }
  },
}

/** A whole stream of a peer through the real handlers: a handshake, frames, one end and one only. */
const peerStreams: Family = {
  name: 'peer-stream',
  refuses: 'a status of the stream',
  share: 0.5,
  open: async random => {
    const identity = { clusterId: 'c1', nodeId: 'n2', storeId: 's2' }
    const corpus = [encodeHandshake(identity, 'control'), ...frames(random)]
    const mutator = new Mutator(corpus)
    const service = new FakePeerService()
    const handlers = peerHandlers(service, expectedStatus)
    const open = handlers.frames as unknown as (
      stream: FakeStream,
      callback: (error: unknown) => void,
    ) => void
    return {
      run: each => {
        const stream = new FakeStream()
        let ends = 0
        let refusal: unknown = null
        open(stream, error => {
          ends++
          refusal = error
        })
        // Mostly a good beginning: what follows is the interesting part.
        stream.emit('data', each.below(4) === 0 ? mutator.next(each) : corpus[0])
        for (let i = each.below(4); i > 0; i--) stream.emit('data', mutator.next(each))
        stream.emit('end')
        if (ends !== 1) throw new Error(`the stream ended ${ends} times`)
        service.received.length = 0
        service.admitted.length = 0
        return refusal === null ? 'taken' : 'refused'
      },
    }
  },
}

/** A node answers what it expects by code; anything else is a fault of its own, and here a finding. */
function expectedStatus(error: unknown) {
  if (!(error instanceof RoundhouseError) && !(error instanceof RemoteError)) throw error
  return statusOf(error)
}

const questions: Family = {
  name: 'peer-question',
  refuses: 'INVALID_ARGUMENT',
  share: 0.5,
  open: async () => {
    const from = { clusterId: 'c1', nodeId: 'n2', storeId: 's2', lane: '' }
    const bodies = [
      ['join', '{"nodeId":"n2"}'] as const,
      ['meta', '{"command":"META.READ","request":"nodes"}'] as const,
    ]
    const mutator = new Mutator(
      bodies.map(([method, body]) => encodeMessage(AskRequest, { from, method, body })),
      { isText: true },
    )
    const handlers = peerHandlers(new FakePeerService(), expectedStatus)
    const ask = handlers.ask as unknown as (
      call: { request: Bytes; metadata: Metadata },
      callback: (error: unknown) => void,
    ) => void
    const metadata = new Metadata()
    return {
      run: each =>
        new Promise<Outcome>(resolve => {
          ask({ request: Buffer.from(mutator.next(each)), metadata }, error =>
            resolve(error === null ? 'taken' : 'refused'),
          )
        }),
    }
  },
}

// --- Gossip ---------------------------------------------------------------------------------------------------------

function memberRecords(): MemberRecord[] {
  const load = { replicas: 3, leaders: 1, storedBytes: 10_000, freeBytes: 2 ** 40, operationsPerSecond: 12.5 }
  const states = ['alive', 'suspect', 'dead', 'leaving', 'left', 'joining'] as const
  return states.map((state, i) => ({
    nodeId: `n${i + 1}`,
    storeId: `s${i + 1}`,
    peerAddress: `10.0.0.${i + 1}:8080`,
    clientAddress: `h${i + 1}.example:8080`,
    zone: 'a',
    incarnation: i + 2,
    heartbeat: 100 + i,
    state,
    load,
    leads: [
      { shard: i, term: 4 },
      { shard: i + 10, term: 5 },
    ],
  }))
}

/** Heartbeats as the gate takes them, merged into a real view, and that view as the next answer. */
const heartbeats: Family = {
  name: 'heartbeat',
  refuses: 'INVALID_ARGUMENT',
  share: 1,
  open: async random => {
    const records = memberRecords()
    const [self, ...peers] = records.map(writeMember)
    const clusterId = 'c1'
    const corpus = [
      encodeMessage(HeartbeatRequest, { self, peers, clusterId, wallMs: 1_700_000_000_000n }),
      encodeMessage(HeartbeatRequest, { self, peers: [], clusterId, wallMs: 0n }),
    ]
    const mutator = new Mutator(corpus, { isText: true })
    const service = new FakeService()
    const detector = new Detector({ ...records[0]!, incarnation: 1 }, defaultSettings(), random, 0)
    for (const record of records.slice(1)) detector.register(record)
    let now = 0
    service.heartbeat = ({ view }) => {
      detector.receive(view, now)
      now += 500
      detector.tick(now)
      return { clusterId, view: detector.payload(), wallMs: 1 }
    }
    const handlers = new ClusterNodeHandlers(gateOptions(service), nobodyIsChecked, connections).handlers()
    return {
      run: each => {
        const answer = unaryNow(handlers.heartbeat, clusterNodeMethods.heartbeat, mutator.next(each))
        if (answer === null) return 'refused'
        const sent = decodeMessage(HeartbeatResponse, answer)
        const heard = readMembers(undefined, sent.peers)
        // However much is said of them, members are those that were registered.
        if (heard.length !== records.length || sent.peers.length !== records.length)
          throw new Error(`${sent.peers.length} members are sent, ${heard.length} of them readable`)
        return 'taken'
      },
    }
  },
}

// --- The gate: commands ---------------------------------------------------------------------------------------------

const words = [
  ...[
    'k',
    'k2',
    '{k}a',
    '{k}b',
    'h',
    'l',
    's',
    'z',
    '',
    'EX',
    'PX',
    'EXAT',
    'NX',
    'XX',
    'GT',
    'KEEPTTL',
    'GET',
    'IFEQ',
  ],
  ...[
    'COUNT',
    'MATCH',
    'WITHSCORES',
    'LIMIT',
    'REV',
    'BYSCORE',
    'BYLEX',
    'LEFT',
    'RIGHT',
    'INCR',
    'CH',
    '*',
    '[a-z]*',
  ],
  ...[
    '0',
    '1',
    '-1',
    '10',
    '007',
    '+1',
    ' 1',
    '1.5',
    '-0',
    'nan',
    'inf',
    '-inf',
    '(1',
    '[a',
    '(a',
    '+',
    '-',
    '1e400',
  ],
  ...[
    '9223372036854775807',
    '-9223372036854775808',
    '9223372036854775808',
    '9007199254740993',
    '99999999999999',
  ],
  ...[
    '[[[[[[[[[[[*',
    'a'.repeat(1_024),
    'a'.repeat(1_025),
    '\u00e9',
    '*a*a*a*a*a*a*a*a*b',
    'NOVALUES',
    'TYPE',
    'string',
  ],
]

function someArgument(random: Prng): Buffer {
  return random.below(12) === 0
    ? Buffer.from(random.bytes(random.below(40)))
    : text(words[random.below(words.length)]!)
}

function someRequest(random: Prng): CommandRequest {
  const names = [...commands.keys()]
  const command = names[random.below(names.length)]!
  const arity = commands.get(command)!.arity
  const max = Math.min(arity.max, arity.min + 5)
  const count = random.below(8) === 0 ? random.below(8) : arity.min + random.below(max - arity.min + 1)
  const args = Array.from({ length: count }, () => someArgument(random))
  // Of a type mostly: the commands of a type and the key that holds one find each other.
  const own = { L: 'l', R: 'l', S: 's', Z: 'z', H: 'h' }[command[0]!]
  if (args.length > 0 && own !== undefined && random.below(3) > 0) args[0] = text(own)
  const session =
    random.below(4) > 0
      ? null
      : { id: random.bytes(16), sequence: 1 + random.below(5), ackedBelow: random.below(3) }
  const call: Call = {
    command: random.below(10) === 0 ? command.toLowerCase() : command,
    args,
    session,
    read: random.below(4) === 0 ? 'stale' : 'linearizable',
    forward: true,
    hops: 0,
    shard: null,
    timeoutMs: 1,
  }
  return { ...writeRequest(call), id: BigInt(random.below(1000)) }
}

export function requestCorpus(random: Prng): Buffer[] {
  const requests = Array.from({ length: 200 }, () => encodeMessage(CommandRequest, someRequest(random)))
  const transfer = { shard: 3, snapshot: 'f'.repeat(32), part: 'rows.0', position: 65_536, length: 65_536 }
  return [...requests, encodeMessage(CommandRequest, writeTransfer(transfer))]
}

/** Half of them damaged bytes, half well-formed requests with arguments that make no sense. */
export function requestBytes(random: Prng, mutator: Mutator): Uint8Array {
  return random.below(2) === 0 ? mutator.next(random) : encodeMessage(CommandRequest, someRequest(random))
}

/** A node's state grows; a new one every so often keeps its size, and the time of a scan, in bounds. */
export const inputsOfOneShard = 5_000

const unaryCommands: Family = {
  name: 'run-command',
  refuses: 'a status with one of our codes',
  share: 1,
  isStateful: true,
  open: async random => {
    const mutator = new Mutator(requestCorpus(random))
    let inputs = 0
    let handler: unknown
    return {
      run: each => {
        if (inputs++ % inputsOfOneShard === 0)
          handler = new ClusterNodeHandlers(
            gateOptions(new OneShard(random)),
            nobodyIsChecked,
            connections,
          ).handlers().runCommand
        const bytes = requestBytes(each, mutator)
        return unaryLater(handler, clusterNodeMethods.runCommand, bytes).then(answer => {
          if (answer === null) return 'refused'
          decodeMessage(CommandResponse, answer)
          return 'taken'
        })
      },
    }
  },
}

/** A stream of requests, bad ones among them: as many answers, in their order, and then its end. */
const streamedCommands: Family = {
  name: 'stream-command',
  refuses: 'an error in band',
  share: 0.25,
  isStateful: true,
  open: async random => {
    const mutator = new Mutator(requestCorpus(random))
    let inputs = 0
    let open: (stream: FakeStream) => void
    return {
      run: async each => {
        if (inputs++ % inputsOfOneShard === 0) {
          const handlers = new ClusterNodeHandlers(
            gateOptions(new OneShard(random)),
            nobodyIsChecked,
            connections,
          ).handlers()
          open = handlers.streamCommand as unknown as typeof open
        }
        const stream = new FakeStream()
        open(stream)
        const ids: (bigint | null)[] = []
        for (let i = 1 + each.below(6); i > 0; i--) {
          const bytes = Buffer.from(requestBytes(each, mutator))
          const request = clusterNodeMethods.streamCommand.requestDeserialize(bytes)
          ids.push(
            request.message === null
              ? 0n
              : request.message.transfer === undefined
                ? request.message.id
                : null,
          )
          stream.emit('data', request)
        }
        stream.emit('end')
        for (let turns = 0; stream.ends === 0 && turns < 1_000; turns++) await Promise.resolve()
        stream.emit('close')
        throwUnexpected()
        if (stream.ends !== 1 || stream.written.length !== ids.length)
          throw new Error(`${stream.written.length} answers to ${ids.length} requests, ${stream.ends} ends`)
        let outcome: Outcome = 'taken'
        stream.written.forEach((bytes, i) => {
          const answer = decodeMessage(CommandResponse, bytes)
          if (answer.code === 'INTERNAL') throw new Error(`INTERNAL: ${answer.error}`)
          if (answer.code !== '') outcome = 'refused'
          if (answer.code === '' && ids[i] !== null && answer.id !== ids[i])
            throw new Error(`answer ${i} has the id ${answer.id}, asked was ${ids[i]}`)
        })
        return outcome
      },
    }
  },
}

// --- What peers answer ----------------------------------------------------------------------------------------------

function replies(random: Prng): Reply[] {
  const value = random.bytes(20)
  return [
    { kind: 'nil' },
    { kind: 'value', value },
    { kind: 'success', success: true, integer: 3 },
    { kind: 'count', count: -5 },
    { kind: 'list', items: [{ key: text('a'), value }, { key: text('\xff') }, {}], cursor: text('17') },
  ]
}

const responses: Family = {
  name: 'response',
  refuses: 'INVALID_ARGUMENT, or what protobuf throws',
  share: 1,
  open: async random => {
    const corpus = replies(random).map(reply =>
      encodeMessage(CommandResponse, writeResponse({ reply, revision: 77, lagMs: 3 }, 9n)),
    )
    const mutator = new Mutator(corpus)
    return {
      run: each => {
        const bytes = mutator.next(each)
        let response: CommandResponse
        try {
          response = decodeMessage(CommandResponse, bytes)
        } catch {
          return 'refused'
        }
        return decodes(['INVALID_ARGUMENT'], () => readResponse(response))
      },
    }
  },
}

const errorDetails: Family = {
  name: 'error-details',
  refuses: 'null: the status is told as it is',
  share: 1,
  open: async () => {
    const info = { reason: 'NOT_LEADER', metadata: { leader: '10.0.0.1:8080' } }
    const mutator = new Mutator([encodeRichStatus(status.UNAVAILABLE, 'no leader here', info)])
    return {
      run: each => {
        const metadata = new Metadata()
        metadata.set(statusDetailsKey, Buffer.from(mutator.next(each)))
        const error = Object.assign(new Error('x'), { code: status.UNAVAILABLE, details: 'x', metadata })
        return remoteErrorOf(error as ServiceError) === null ? 'refused' : 'taken'
      },
    }
  },
}

/** Chunks of a snapshot from a peer that sends anything: what is handed on is what the checksum says, or nothing is. */
const chunks: Family = {
  name: 'chunk',
  refuses: 'CORRUPT, OUTCOME_UNKNOWN, the code of the answer',
  share: 0.5,
  open: async random => {
    const bytes = random.bytes(200)
    const other = random.bytes(64)
    const corpus = [bytes, other, new Uint8Array(0)].map(each =>
      encodeMessage(CommandResponse, writeChunk(each, crc32(each))),
    )
    const known = new Set([bytes, other].map(each => Buffer.from(each).toString('hex')).concat(''))
    const mutator = new Mutator(corpus)
    const stream = Object.assign(new EventEmitter(), { write: () => true, cancel: () => {} })
    const channel = {
      address: '10.0.0.9:8080',
      begin: () => ({ neverSent: () => false, end: () => {} }),
      client: { makeBidiStreamRequest: () => stream },
    } as unknown as Channel
    let bulk: BulkStream | null = null
    return {
      run: async each => {
        bulk ??= new BulkStream(channel, frozenClock, () => {})
        const transfer = { shard: 1, snapshot: 's', part: 'rows.0', position: 0, length: 200 }
        const chunk = bulk.fetch(transfer, 1_000)
        stream.emit('data', Buffer.from(mutator.next(each)))
        try {
          const got = Buffer.from(await chunk).toString('hex')
          // An answer without bytes has the checksum 0, which is that of nothing.
          if (!known.has(got)) throw new Error(`a chunk that nobody wrote: ${got}`)
          return 'taken'
        } catch (error) {
          if (isError(error, 'CORRUPT') || isError(error, 'OUTCOME_UNKNOWN') || error instanceof RemoteError)
            return 'refused'
          throw error
        }
      },
      close: () => bulk?.close(),
    }
  },
}

// --- What clients are answered --------------------------------------------------------------------------------------

/** The TypeScript client's reading of answers: the value that its types promise, or the error. */
const clientReplies: Family = {
  name: 'client-reply',
  refuses: 'CallError, RangeError for what no number holds, or what protobuf throws',
  share: 1,
  open: async random => {
    const kinds = ['value', 'text', 'integer', 'rank', 'score', 'boolean', 'done', 'list'] as const
    const all = [...kinds, 'values', 'maybeList', 'record', 'scored'] as const
    const mutator = new Mutator(
      replies(random).map(reply =>
        encodeMessage(CommandResponse, writeResponse({ reply, revision: 77, lagMs: 3 }, 9n)),
      ),
    )
    return {
      run: each => {
        let response: CommandResponse
        try {
          response = decodeMessage(CommandResponse, mutator.next(each))
        } catch {
          return 'refused'
        }
        const access = each.below(2) === 0 ? 'read' : 'write'
        try {
          const spec = { name: 'X', access, reply: all[each.below(all.length)]! } as const
          const reply: unknown = readClientReply(spec, response, decodeText)
          if (typeof reply === 'number' && !(spec.reply === 'score' || Number.isSafeInteger(reply)))
            throw new Error(`${spec.reply} ${reply}`)
          return 'taken'
        } catch (error) {
          if (error instanceof CallError || error instanceof RangeError) return 'refused'
          throw error
        }
      },
    }
  },
}

/** The map of shards from a node that says anything: each place has an address or none. */
const shardMaps: Family = {
  name: 'shard-map',
  refuses: 'a map that is not taken',
  share: 1,
  open: async () => {
    const node = (i: number) => ({
      ...{ nodeId: `n${i}`, address: `10.0.0.${i}:8080`, clientAddress: i === 2 ? '' : `h${i}:8080` },
      state: 'alive',
    })
    const good = MapResponse.fromPartial({
      ...{ clusterId: 'c1', epoch: 7n, shardCount: 4 },
      nodes: [1, 2, 3].map(node),
      leaders: ['n1', 'n2', '', 'n9'],
    })
    const mutator = new Mutator([encodeMessage(MapResponse, good)], { isText: true })
    return {
      run: each => {
        const known = new ShardMap(['10.0.0.1:8080'])
        const places = ['', 'k', '{k}a', '\u00e9'].map(text)
        let isTaken = false
        for (let i = 1 + each.below(2); i > 0; i--) {
          let map: ReturnType<typeof MapResponse.create> | null = null
          try {
            map = decodeMessage(MapResponse, mutator.next(each))
          } catch {
            // gRPC says so, and the next node is asked.
          }
          if (map !== null) isTaken = known.take(map, known.mark())
          for (const key of places) {
            const place = known.placeOf(key)
            if (!Number.isInteger(place) || place < 0 || place >= 16_384) throw new Error(`place ${place}`)
            const leader = known.leaderOf(place)
            if (leader !== null && typeof leader !== 'string') throw new Error(`leader ${leader}`)
            if (leader !== null) known.forget(place, known.learn(place, leader))
          }
          if (!known.addresses().every(address => typeof address === 'string')) throw new Error('addresses')
        }
        return isTaken ? 'taken' : 'refused'
      },
    }
  },
}

export const wireFamilies: readonly Family[] = [
  peerFrames,
  handshakes,
  peerStreams,
  questions,
  heartbeats,
  unaryCommands,
  streamedCommands,
  responses,
  errorDetails,
  chunks,
  clientReplies,
  shardMaps,
]
