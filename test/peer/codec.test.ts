import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { isError } from '../../src/errors.ts'
import { Frame, GroupMessage } from '../../src/gen/roundhouse/v1/peer.ts'
import { emptyBytes } from '../../src/lib/bytes.ts'
import { malformedFrame } from '../../src/peer/byte-source.ts'
import {
  decodeFrame,
  encodeFrames,
  encodeHandshake,
  frameLimits,
  readHandshake,
} from '../../src/peer/frames.ts'
import { draft, type Entry, type MessageKind } from '../../src/raft/types.ts'
import type { PeerMessage } from '../../src/shard/ports.ts'
import { wholeOf } from './encoded.ts'

const travelling: Partial<Record<MessageKind, number>> = {
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
}

const bytes = fc.uint8Array({ maxLength: 300 }).map(each => Uint8Array.from(each))
const number = fc.oneof(fc.constantFrom(0, 1, 127, 128, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1), fc.maxSafeNat())
const id = fc.maxSafeNat().map(each => Math.max(1, each))
const ids = fc.array(number, { maxLength: 7 })

const message: fc.Arbitrary<PeerMessage> = fc
  .record({
    group: fc.nat({ max: 2 ** 32 - 1 }),
    kind: fc.constantFrom(...(Object.keys(travelling) as MessageKind[])),
    to: id,
    from: id,
    term: number,
    logTerm: number,
    index: fc.nat({ max: 2 ** 52 }),
    commit: number,
    leaderCommit: number,
    vote: number,
    reject: fc.boolean(),
    rejectHint: number,
    context: bytes,
    entries: fc.array(fc.record({ data: bytes, isChange: fc.boolean() }), { maxLength: 5 }),
    entryTerm: id,
    snapshot: fc.record({
      meta: fc.record({
        index: number,
        term: number,
        confState: fc.record({
          voters: ids,
          votersOutgoing: ids,
          learners: ids,
          learnersNext: ids,
          autoLeave: fc.boolean(),
        }),
      }),
      data: bytes,
    }),
  })
  .map(({ group, kind, to, from, entries, entryTerm, snapshot, ...fields }) => ({
    group,
    message: {
      ...draft(kind, to, from, 0),
      ...fields,
      entries:
        kind === 'MsgApp'
          ? entries.map(
              ({ data, isChange }, i): Entry => ({
                term: entryTerm,
                index: fields.index + 1 + i,
                kind: isChange ? 'confChange' : 'normal',
                data,
              }),
            )
          : [],
      snapshot: kind === 'MsgSnap' ? snapshot : null,
    },
  }))

/** Byte arrays of any class as arrays of numbers. */
const plain = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return [...value]
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]))
}

/** The message as the generated code knows it. */
const generated = ({ group, message: m }: PeerMessage): GroupMessage =>
  GroupMessage.fromPartial({
    group,
    kind: travelling[m.kind]!,
    to: BigInt(m.to),
    from: BigInt(m.from),
    term: BigInt(m.term),
    logTerm: BigInt(m.logTerm),
    index: BigInt(m.index),
    commit: BigInt(m.commit),
    leaderCommit: BigInt(m.leaderCommit),
    vote: BigInt(m.vote),
    reject: m.reject,
    rejectHint: BigInt(m.rejectHint),
    context: Buffer.from(m.context),
    entries: m.entries.map(entry => ({
      term: BigInt(entry.term),
      index: BigInt(entry.index),
      kind: entry.kind === 'confChange' ? 1 : 0,
      data: Buffer.from(entry.data),
    })),
    ...(m.snapshot === null
      ? {}
      : {
          snapshot: {
            index: BigInt(m.snapshot.meta.index),
            term: BigInt(m.snapshot.meta.term),
            confState: {
              voters: m.snapshot.meta.confState.voters.map(BigInt),
              votersOutgoing: m.snapshot.meta.confState.votersOutgoing.map(BigInt),
              learners: m.snapshot.meta.confState.learners.map(BigInt),
              learnersNext: m.snapshot.meta.confState.learnersNext.map(BigInt),
              autoLeave: m.snapshot.meta.confState.autoLeave,
            },
            data: Buffer.from(m.snapshot.data),
          },
        }),
  })

const frameOf = (messages: readonly PeerMessage[]): Buffer => {
  const { frames } = encodeFrames(messages)
  assert.equal(frames.length, 1)
  assert.equal(frames[0]!.bytes, wholeOf(frames[0]!).length)
  return wholeOf(frames[0]!)
}

/** The bytes of one message that the generated code writes, as a frame. */
const foreign = (partial: Parameters<typeof GroupMessage.fromPartial>[0]): Uint8Array =>
  Frame.encode(Frame.fromPartial({ messages: [{ to: 1n, from: 2n, kind: 8, ...partial }] })).finish()

const isInvalid = (error: unknown) => isError(error, 'INVALID_ARGUMENT')

describe('a frame', () => {
  it('carries every message unchanged', () => {
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 8 }), messages => {
        assert.deepEqual(plain(decodeFrame(frameOf(messages))), plain(messages))
      }),
      { numRuns: 200 },
    )
  })

  it('is byte for byte what the contract says', () => {
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 3 }), messages => {
        const bytesOfContract = Frame.encode(
          Frame.fromPartial({ messages: messages.map(generated) }),
        ).finish()
        assert.deepEqual([...frameOf(messages)], [...bytesOfContract])
      }),
      { numRuns: 200 },
    )
  })

  it('does not copy the entries it brings', () => {
    const entry: Entry = { term: 1, index: 1, kind: 'normal', data: new Uint8Array(1000) }
    const frame = frameOf([{ group: 1, message: { ...draft('MsgApp', 1, 2, 1), entries: [entry] } }])
    assert.equal(decodeFrame(frame)[0]!.message.entries[0]!.data.buffer, frame.buffer)
  })

  it('is refused or read, never anything else, whatever bytes it is', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), noise => {
        try {
          decodeFrame(noise)
        } catch (error) {
          assert.ok(isInvalid(error), String(error))
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('is refused or read, never anything else, with bytes changed or the end cut off', () => {
    const flips = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 3 })
    fc.assert(
      fc.property(message, flips, fc.nat(), (whole, changes, cut) => {
        const frame = Buffer.from(frameOf([whole]))
        for (const [at, to] of changes) frame[at % frame.length] = to
        try {
          decodeFrame(frame.subarray(0, frame.length - (cut % 3)))
        } catch (error) {
          assert.ok(isInvalid(error), String(error))
        }
      }),
      { numRuns: 2000 },
    )
  })

  for (const [what, partial] of [
    ['a number beyond 2^53 - 1', { term: 2n ** 53n }],
    ['a number of 64 bits', { commit: 2n ** 64n - 1n }],
    ['a kind that does not travel', { kind: 2 }],
    ['a kind that is none', { kind: 77 }],
    ['no kind', { kind: 0 }],
    ['no sender', { from: 0n }],
    ['entries in another kind than MsgApp', { entries: [{ term: 1n, index: 1n }] }],
    ['entries that leave a gap', { kind: 3, index: 5n, entries: [{ term: 1n, index: 7n }] }],
    [
      'entries whose terms fall',
      {
        kind: 3,
        entries: [
          { term: 2n, index: 1n },
          { term: 1n, index: 2n },
        ],
      },
    ],
    ['an entry of an unknown kind', { kind: 3, entries: [{ term: 1n, index: 1n, kind: 2 }] }],
    ['a snapshot outside MsgSnap', { snapshot: { confState: {} } }],
    ['MsgSnap without a snapshot', { kind: 7 }],
    ['a snapshot without a configuration', { kind: 7, snapshot: { index: 1n } }],
  ] as const) {
    it(`is refused with ${what}`, () => {
      assert.throws(() => decodeFrame(foreign(partial as never)), isInvalid)
    })
  }

  it('passes over fields of a later version', () => {
    const known = frameOf([{ group: 3, message: draft('MsgHeartbeat', 1, 2, 5) }])
    // Field 90 as a varint, a string, a fixed32 and a fixed64, inside the message.
    const unknown = [0xd0, 5, 1, 0xd2, 5, 2, 7, 7, 0xd5, 5, 1, 2, 3, 4, 0xd1, 5, 1, 2, 3, 4, 5, 6, 7, 8]
    const longer = Buffer.concat([known, Buffer.from(unknown)])
    longer[1] = known[1]! + unknown.length
    assert.deepEqual(plain(decodeFrame(longer)), plain(decodeFrame(known)))
  })
})

describe('encoding', () => {
  const append = (bytesOfData: number): PeerMessage => ({
    group: 1,
    message: {
      ...draft('MsgApp', 1, 2, 1),
      entries: [{ term: 1, index: 1, kind: 'normal', data: new Uint8Array(bytesOfData) }],
    },
  })

  it('splits what is beyond a frame’s limit, in order', () => {
    const messages = Array.from({ length: 10 }, (_, i) => ({ ...append(300 * 1024), group: i }))
    const { frames, tooLarge } = encodeFrames(messages)
    assert.equal(tooLarge, 0)
    assert.deepEqual(
      frames.map(frame => frame.messages),
      [3, 3, 3, 1],
    )
    assert.ok(frames.every(frame => frame.bytes <= frameLimits.frameBytesMax))
    assert.deepEqual(
      frames.flatMap(frame => decodeFrame(wholeOf(frame)).map(each => each.group)),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    )
  })

  it('sends a message that is larger than a frame alone, and leaves out what no peer would take', () => {
    const { frames, tooLarge } = encodeFrames([
      append(10),
      append(3 * 1024 * 1024),
      append(frameLimits.messageBytesMax),
      append(20),
    ])
    assert.equal(tooLarge, 1)
    assert.deepEqual(
      frames.map(frame => decodeFrame(wholeOf(frame)).map(each => each.message.entries[0]!.data.length)),
      [[10], [3 * 1024 * 1024], [20]],
    )
  })

  it('hands what is large on as it is, and the frame reads as it would in one piece', () => {
    const data = [8 * 1024, 3, 20_000].map((bytes, i) => new Uint8Array(bytes).fill(i + 1))
    const entries = data.map((each, i): Entry => ({ term: 1, index: 1 + i, kind: 'normal', data: each }))
    const context = new Uint8Array(9_000).fill(9)
    const confState = { voters: [1], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false }
    const snapshot = { meta: { index: 1, term: 1, confState }, data: new Uint8Array(10_000).fill(7) }
    const messages: PeerMessage[] = [
      { group: 1, message: { ...draft('MsgApp', 1, 2, 1), entries, context } },
      { group: 2, message: { ...draft('MsgSnap', 1, 2, 1), snapshot } },
      { group: 3, message: { ...draft('MsgApp', 1, 2, 1), entries: entries.slice(0, 1) } },
    ]
    const { frames } = encodeFrames(messages)
    assert.equal(frames.length, 1)
    const { parts, bytes } = frames[0]!
    const isHandedOn = (each: Uint8Array) => parts.some(part => part.buffer === each.buffer)
    assert.deepEqual([...data, context, snapshot.data].map(isHandedOn), [true, false, true, true, true])
    assert.equal(bytes, wholeOf(frames[0]!).length)
    assert.deepEqual(plain(decodeFrame(wholeOf(frames[0]!))), plain(messages))
  })

  it('makes no frame of nothing', () => {
    assert.deepEqual(encodeFrames([]), { frames: [], tooLarge: 0 })
  })
})

describe('a handshake', () => {
  const identity = { clusterId: 'c1', nodeId: 'n1', storeId: 's1' }

  it('says who speaks and on which lane', () => {
    assert.deepEqual(readHandshake(encodeHandshake(identity, 'control')), { identity, lane: 'control' })
  })

  it('is refused where it is a frame of messages, of another lane or nothing', () => {
    const frames = [
      emptyBytes,
      frameOf([{ group: 1, message: draft('MsgHeartbeat', 1, 2, 1) }]),
      Frame.encode(Frame.fromPartial({ handshake: { ...identity, lane: 'fast' } })).finish(),
      Uint8Array.of(0x0a, 0x7f),
    ]
    for (const frame of frames) assert.throws(() => readHandshake(frame), isInvalid)
    assert.ok(isInvalid(malformedFrame('x')))
  })
})
