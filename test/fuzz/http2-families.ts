/** Connections of HTTP/2 by hand, and gRPC's calls over them: from anybody who reaches the port. */
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ServiceDefinition } from '@grpc/grpc-js'
import { CommandResponse, HeartbeatResponse } from '../../src/gen/clusterpb/cluster.ts'
import { ClientConnection } from '../../src/http2/client-connection.ts'
import { headerOf } from '../../src/http2/hpack.ts'
import { framePrefixBytes, grpcFrame } from '../../src/lib/grpc-frame.ts'
import type { Prng } from '../../src/lib/prng.ts'
import { nobodyIsChecked } from '../../src/peer/caller.ts'
import { decodeMessage } from '../../src/peer/proto-io.ts'
import { ClusterNodeHandlers, clusterNodeMethods } from '../../src/wire/grpc/cluster-node.ts'
import { DirectCalls } from '../../src/wire/grpc/direct.ts'
import {
  ack,
  block,
  Caller,
  callFrame,
  codes,
  dataFrame,
  endBlock,
  endHeaders,
  endStream,
  type Frame,
  frame,
  framesOf,
  okBlock,
  padded,
  pingFrame,
  preface,
  prioritized,
  readBlock,
  requestOf,
  resetFrame,
  type Served,
  settingsFrame,
  turn,
  types,
  Wire,
  windowFrame,
} from '../http2/caller.ts'
import type { Family } from './family.ts'
import { connections, gateOptions, OneShard, throwUnexpected } from './gate.ts'
import { Mutator } from './mutate.ts'
import { inputsOfOneShard, requestBytes, requestCorpus } from './wire-families.ts'

const initialWindow = 4

/** Pieces of any size, mostly few. */
function pieces(bytes: Buffer, random: Prng): Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at < bytes.byteLength; ) {
    const piece = bytes.subarray(at, at + 1 + random.below(random.below(4) === 0 ? 3 : 8_192))
    found.push(piece)
    at += piece.byteLength
  }
  return found
}

const grpcTimeouts = [
  ...[
    undefined,
    undefined,
    undefined,
    '1S',
    '99999999n',
    '0m',
    '',
    '1',
    'S',
    '-1S',
    '123456789S',
    '1.5S',
    ' 1S',
  ],
]
const callsPerInput = 3
const turnsMax = 2_000

/** What came back of one call. */
interface Answer {
  readonly status: number | null
  readonly messages: Buffer[]
}

function answerOf(frames: readonly Frame[], stream: number): Answer | null {
  const own = frames.filter(each => each.stream === stream)
  // One that is answered before its request is over is reset after its end.
  const last = own.find(
    each => each.type === types.reset || (each.type === types.headers && (each.flags & endStream) !== 0),
  )
  if (last === undefined) return null
  if (last.type === types.reset) return { status: null, messages: [] }
  const bytes = Buffer.concat(own.filter(each => each.type === types.data).map(each => each.payload))
  const messages: Buffer[] = []
  for (let at = 0; at < bytes.byteLength; ) {
    const end = at + framePrefixBytes + bytes.readUInt32BE(at + 1)
    if (bytes[at] !== 0 || end > bytes.byteLength) throw new Error('an answer that is no message')
    messages.push(bytes.subarray(at + framePrefixBytes, end))
    at = end
  }
  return { status: Number(headerOf(readBlock(last.payload), 'grpc-status')), messages }
}

const decoders = {
  runCommand: CommandResponse,
  streamCommand: CommandResponse,
  heartbeat: HeartbeatResponse,
} as const
const methods = ['runCommand', 'streamCommand', 'streamCommand', 'heartbeat'] as const

/**
 * Calls past grpc-js on a real connection: each has one end with a status, however its messages are framed, cut up or
 * broken off, and whatever windows its caller has; afterwards nothing is held for it.
 */
const directCalls: Family = {
  name: 'direct-call',
  refuses: 'a status with one of our codes',
  share: 0.2,
  isStateful: true,
  open: async random => {
    const requests = new Mutator(requestCorpus(random))
    const frames = new Mutator(requestCorpus(random).map(grpcFrame))
    let calls: DirectCalls
    let inputs = 0
    return {
      run: async each => {
        if (inputs++ % inputsOfOneShard === 0) {
          calls = new DirectCalls({
            begin: connection => connections.begin(connection),
            admit: () => null,
            remember: () => {},
            denied: () => {},
          })
          const handlers = new ClusterNodeHandlers(
            gateOptions(new OneShard(random)),
            nobodyIsChecked,
            connections,
          )
          calls.add(handlers.directRunCommand())
          calls.addService(clusterNodeMethods as unknown as ServiceDefinition, handlers.handlers())
        }
        const window = [65_535, 65_535, 0, 1, 100][each.below(5)]!
        /** What is due an answer; what is relayed is nobody's here. */
        const open = new Map<number, (typeof methods)[number]>()
        let beginning = 0
        let held!: ReturnType<typeof connections.opened>
        const caller: Caller = new Caller({
          open: (begin, headers) => {
            const receiver = calls.take(begin, headers, held)
            if (receiver === null) open.delete(beginning)
            return receiver
          },
          relay: inner => inner.resume(),
        })
        held = connections.opened(caller.wire as unknown as Socket, () =>
          caller.connection.destroy(codes.cancel),
        )
        const heard = await caller.send(preface, settingsFrame([initialWindow, window]))
        let isTaken = false
        for (let call = 0; call < callsPerInput; call++) {
          const stream = 2 * call + 1
          const method = methods[each.below(methods.length)]!
          const timeout = grpcTimeouts[each.below(grpcTimeouts.length)]
          const count = method === 'streamCommand' ? each.below(6) : 1
          const body = Buffer.concat(
            Array.from({ length: count }, () =>
              each.below(3) === 0 ? frames.next(each) : grpcFrame(requestBytes(each, requests)),
            ),
          )
          const headers = requestOf(
            clusterNodeMethods[method].path,
            ...['content-type', each.below(50) === 0 ? 'text/plain' : 'application/grpc+proto'],
            ...(timeout === undefined ? [] : ['grpc-timeout', timeout]),
          )
          open.set(stream, method)
          beginning = stream
          heard.push(...(await caller.send(frame(types.headers, endHeaders, stream, headers))))
          for (const piece of pieces(body, each)) {
            caller.wire.come(dataFrame(stream, piece))
            if (each.below(4) === 0) heard.push(...(await caller.heard()))
          }
          const end = each.below(16)
          if (end === 0) open.delete(stream)
          caller.wire.come(end === 0 ? resetFrame(stream) : dataFrame(stream, '', endStream))
        }
        for (const [stream, method] of open) {
          let answer: Answer | null = null
          for (let turns = 0; ; turns++) {
            answer = answerOf(heard, stream)
            if (answer !== null) break
            if (turns > turnsMax) throw new Error(`no end of ${method}`)
            heard.push(
              ...(await caller.send(windowFrame(stream, 1 + each.below(1_000)), windowFrame(0, 1_000))),
            )
          }
          throwUnexpected()
          for (const message of answer.messages) decodeMessage<unknown>(decoders[method], message)
          isTaken ||= answer.status === 0
        }
        await caller.heard()
        if (caller.wire.isEnded) throw new Error('the connection ended')
        if (held.bytes !== 0) throw new Error(`${held.bytes} bytes are held after the last call`)
        caller.wire.destroy()
        connections.closed(held)
        return isTaken ? 'taken' : 'refused'
      },
    }
  },
}

/** Frames of good conversations, and such conversations. */
function conversations(random: Prng): { readonly frames: Buffer[]; readonly whole: Buffer[] } {
  const long = block('x-long', 'x'.repeat(2_000))
  const ids = [1, 3, 5, 7]
  const indexed = Buffer.from('83868741016144012f64697265637400', 'hex')
  const frames = ids.flatMap(id => [
    callFrame(id),
    callFrame(id, endStream),
    callFrame(id, 0, '/relayed'),
    callFrame(id, endStream, '/relayed'),
    frame(
      types.headers,
      endHeaders,
      id,
      Buffer.concat([Buffer.from('8386', 'hex'), block(':path', '/direct')]),
    ),
    frame(types.headers, endHeaders, id, indexed),
    frame(
      types.headers,
      endHeaders | padded,
      id,
      Buffer.concat([Buffer.of(3), requestOf('/direct'), Buffer.alloc(3)]),
    ),
    frame(
      types.headers,
      endHeaders | prioritized,
      id,
      Buffer.concat([Buffer.alloc(5), requestOf('/direct')]),
    ),
    frame(types.headers, endHeaders | endStream, id, block('trailer', 'x')),
    Buffer.concat([
      frame(types.headers, 0, id, requestOf('/direct')),
      frame(types.continuation, 0, id, long.subarray(0, 900)),
      frame(types.continuation, endHeaders, id, long.subarray(900)),
    ]),
    dataFrame(id, random.bytes(10)),
    dataFrame(id, random.bytes(1_000), endStream),
    frame(types.data, padded, id, Buffer.concat([Buffer.of(9), random.bytes(20), Buffer.alloc(9)])),
    dataFrame(id, '', endStream),
    windowFrame(id, 1 + random.below(70_000)),
    resetFrame(id),
    frame(types.priority, 0, id, Buffer.alloc(5)),
  ])
  frames.push(
    ...[pingFrame(), windowFrame(0, 1_000), windowFrame(0, 1_000_000), frame(99, 1, 1, 'unknown')],
    ...[
      settingsFrame(),
      settingsFrame([initialWindow, 100]),
      settingsFrame([initialWindow, 100_000], [1, 0]),
    ],
    ...[
      frame(types.settings, ack, 0),
      frame(types.ping, ack, 0, 'pingpong'),
      frame(types.goAway, 0, 0, Buffer.alloc(8)),
    ],
  )
  const begun = Buffer.concat([preface, settingsFrame([initialWindow, 65_535], [1, 4096])])
  const whole = Array.from({ length: 60 }, () => {
    const calls = ids.flatMap(id => {
      const kind = random.below(3) === 0 ? '/relayed' : '/direct'
      return [
        callFrame(id, 0, kind),
        dataFrame(id, random.bytes(random.below(300))),
        dataFrame(id, '', endStream),
      ]
    })
    const others = Array.from({ length: 6 }, () => frames[random.below(frames.length)]!)
    return Buffer.concat([begun, ...calls, ...others])
  })
  return { frames, whole }
}

const knownCodes: ReadonlySet<number> = new Set(Object.values(codes))

/** What is behind a relay says what a session would, sometimes ends, and never hears what is no frame. */
function sessionOf(inner: Duplex, random: Prng): void {
  let bytes = Buffer.alloc(0)
  let at = preface.byteLength
  inner.on('error', () => {})
  inner.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk])
    while (bytes.byteLength - at >= 9) {
      const end = at + 9 + bytes.readUIntBE(at, 3)
      if (end > bytes.byteLength) return
      const stream = bytes.readUInt32BE(at + 5)
      const type = bytes[at + 3]!
      at = end
      if (type > types.continuation) throw new Error(`a frame of the type ${type} in the relay`)
      if (inner.destroyed) return
      if (type === types.settings) inner.write(frame(types.settings, ack, 0))
      if (type !== types.headers) continue
      const kind = random.below(8)
      if (kind === 0) inner.destroy()
      else if (kind === 1) inner.write(resetFrame(stream, codes.internal))
      else if (kind === 2) inner.write(frame(types.goAway, 0, 0, Buffer.from('0000000000000001', 'hex')))
      else {
        inner.write(frame(types.headers, endHeaders, stream, okBlock))
        inner.write(dataFrame(stream, Buffer.alloc(random.below(300)), kind === 3 ? endStream : 0))
      }
    }
  })
}

/**
 * A connection's bytes: it lives on, or says why it does not and ends; what it says is frames, no more of them than it was
 * made to say; and who serves a call hears of its end once.
 */
const http2Frames: Family = {
  name: 'http2-frames',
  refuses: 'GOAWAY with a code',
  share: 0.5,
  open: async random => {
    const { frames, whole } = conversations(random)
    const mutators = { frames: new Mutator(frames), whole: new Mutator(whole) }
    const answerBytes = 500
    return {
      run: async each => {
        const closings: number[] = []
        let answered = 0
        const onCall = (call: Served) => {
          const nth = closings.push(0) - 1
          call.closed = () => void closings[nth]!++
          const kind = each.below(6)
          if (kind === 0) return
          if (kind === 1) call.stream.hold()
          else if (kind === 2) call.stream.reset(codes.internal)
          else {
            const bytes = each.below(answerBytes)
            answered += bytes + 200
            call.stream.respond(okBlock)
            call.stream.write(Buffer.alloc(bytes))
            if (kind > 3) call.stream.finish(endBlock)
          }
        }
        const caller = new Caller({ onCall, relay: inner => sessionOf(inner, each) })
        const bytes =
          each.below(3) === 0
            ? Buffer.from(mutators.whole.next(each))
            : Buffer.concat([
                ...[preface, settingsFrame()],
                // Mostly of calls that are there: what was not begun ends it all.
                ...(each.below(4) === 0
                  ? []
                  : [1, 3, 5, 7].map(id => callFrame(id, 0, each.below(3) === 0 ? '/relayed' : '/direct'))),
                // A few mostly: what its maker does wrong with a call ends it all, too.
                ...Array.from({ length: 1 + each.below(each.below(3) === 0 ? 40 : 6) }, () =>
                  each.below(32) === 0 ? mutators.frames.next(each) : frames[each.below(frames.length)]!,
                ),
              ])
        const heard: Frame[] = []
        for (const piece of pieces(bytes, each)) {
          caller.wire.come(piece)
          if (each.below(8) === 0) heard.push(...(await caller.heard()))
          if (caller.connection.openStreams > 5)
            throw new Error(`${caller.connection.openStreams} calls are open`)
        }
        for (let i = 0; i < 4; i++) heard.push(...(await caller.heard()))
        const last = heard.at(-1)
        const isRefused = caller.closings.length > 0
        if (isRefused) {
          if (!caller.wire.isEnded || typeof caller.closings[0] !== 'string' || last?.type !== types.goAway)
            throw new Error(`it ended with ${JSON.stringify(last)}: ${caller.closings}`)
          if (!knownCodes.has(last.payload.readUInt32BE(4)) || last.payload.readUInt32BE(4) === 0)
            throw new Error(`the code ${last.payload.readUInt32BE(4)}`)
        } else if (caller.wire.isEnded || caller.wire.destroyed)
          throw new Error('it ended and nobody knows why')
        const saidBytes = heard.reduce((sum, { payload }) => sum + 9 + payload.byteLength, 0)
        if (saidBytes > 1_000 + answered + 50 * bytes.byteLength)
          throw new Error(`${saidBytes} bytes are said to ${bytes.byteLength}`)
        for (const { type, payload } of heard) {
          if (type > types.continuation) throw new Error(`a frame of the type ${type}`)
          if (type === types.headers) readBlock(payload)
        }
        caller.wire.destroy()
        await caller.heard()
        if (caller.closings.length !== 1) throw new Error(`it is closed ${caller.closings.length} times`)
        if (closings.some(times => times !== 1)) throw new Error(`its calls are closed ${closings} times`)
        if (caller.connection.openStreams !== 0) throw new Error('calls are open after the end')
        return isRefused ? 'refused' : 'taken'
      },
    }
  },
}

/** A server's bytes to a client with three calls: each call ends once, and what is no answer ends the connection. */
const http2Answers: Family = {
  name: 'http2-answers',
  refuses: 'GOAWAY with a code, or the error that a farewell names',
  share: 0.5,
  open: async random => {
    const long = block('x-long', 'x'.repeat(3_000))
    const frames = [1, 3, 5].flatMap(id => [
      ...Array.from({ length: 3 }, () => frame(types.headers, endHeaders, id, okBlock)),
      ...Array.from({ length: 4 }, () => dataFrame(id, random.bytes(random.below(2_000)))),
      frame(types.headers, endHeaders | endStream, id, endBlock),
      dataFrame(id, '', endStream),
      frame(types.data, padded, id, Buffer.concat([Buffer.of(9), random.bytes(20), Buffer.alloc(9)])),
      Buffer.concat([frame(types.headers, 0, id, okBlock), frame(types.continuation, endHeaders, id, long)]),
      windowFrame(id, 1 + random.below(70_000)),
      resetFrame(id),
      resetFrame(id, codes.none),
    ])
    frames.push(
      ...[pingFrame(), windowFrame(0, 100_000), settingsFrame(), settingsFrame([initialWindow, 100], [3, 2])],
      ...[frame(types.goAway, 0, 0, Buffer.from('0000000300000000', 'hex')), frame(99, 1, 1, 'unknown')],
    )
    const mutator = new Mutator(frames)
    return {
      run: async each => {
        const wire = new Wire()
        const closings: (string | null)[] = []
        const connection = new ClientConnection(wire as Duplex, {
          receiveWindowBytes: 128 * 1024,
          onSettings: () => {},
          onClosed: why => closings.push(why),
        })
        const ends = [0, 0, 0]
        for (let i = 0; i < ends.length; i++) {
          const open = () => {
            if (ends[i] !== 0) throw new Error('a call hears more after its end')
          }
          const stream = connection.request(requestOf('/'), {
            ...{ headers: open, data: open, complete: open, taken: open },
            closed: () => void ends[i]!++,
          })!
          stream.write(Buffer.alloc(each.below(100_000)))
          if (each.below(2) === 0) stream.finish(null)
          if (each.below(6) === 0) stream.hold()
        }
        const bytes = Buffer.concat([
          settingsFrame(),
          ...Array.from({ length: 1 + each.below(12) }, () =>
            each.below(12) === 0 ? mutator.next(each) : frames[each.below(frames.length)]!,
          ),
        ])
        for (const piece of pieces(bytes, each)) {
          wire.come(piece)
          if (each.below(4) === 0) await turn()
        }
        await turn()
        await turn()
        const isRefused = typeof closings[0] === 'string'
        const heard = framesOf(wire.written().subarray(preface.byteLength))
        if (heard.rest.byteLength > 0) throw new Error(`${heard.rest.byteLength} bytes that are no frame`)
        const said = heard.frames.at(-1)
        // It may have ended by itself already, after a farewell and its last call.
        const isLeft = framesOf(bytes).frames.some(({ type }) => type === types.goAway)
        if (isRefused && !wire.destroyed && !((said?.type === types.goAway || isLeft) && wire.isEnded))
          throw new Error(`it ended with ${JSON.stringify(said)}: ${closings}`)
        wire.destroy()
        await turn()
        await turn()
        if (closings.length !== 1) throw new Error(`it is closed ${closings.length} times`)
        if (ends.some(times => times !== 1)) throw new Error(`its calls are closed ${ends} times`)
        if (connection.openStreams !== 0 || connection.room !== 0)
          throw new Error('it has calls, or room for them')
        return isRefused ? 'refused' : 'taken'
      },
    }
  },
}

export const http2Families: readonly Family[] = [directCalls, http2Frames, http2Answers]
