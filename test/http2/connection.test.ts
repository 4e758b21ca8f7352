import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { describe, it } from 'node:test'
import {
  ack,
  block,
  Caller,
  type CallerOptions,
  callFrame,
  codes,
  dataFrame,
  endBlock,
  endHeaders,
  endStream,
  frame,
  okBlock,
  padded,
  pingFrame,
  preface,
  prioritized,
  requestOf,
  resetFrame,
  type Served,
  settingsFrame,
  told,
  turn,
  types,
  uint32,
  windowFrame,
} from './caller.ts'

const headerTableSize = 1
const enablePush = 2
const initialWindow = 4
const frameSizeMax = 5
const windowMax = 2 ** 31 - 1

/** The connection ends with this code, and all of it is closed once. */
async function ends(code: number, caller: Caller, ...frames: Buffer[]): Promise<void> {
  const heard = await caller.tells(...frames)
  const bye = heard.filter(each => each.startsWith('goaway'))
  assert.equal(bye.length, 1, `${heard.slice(-10)}`)
  assert.equal(Number(bye[0]!.split(' ')[2]), code, bye[0])
  assert.equal(heard.at(-1), bye[0])
  assert.ok(caller.wire.isEnded)
  assert.equal(caller.closings.length, 1)
  assert.equal(typeof caller.closings[0], 'string')
  for (const call of caller.served) assert.equal(call.closings.length, 1)
  // Nobody listens any more.
  assert.deepEqual(await caller.tells(pingFrame(), callFrame(99)), [])
  caller.wire.destroy()
  await turn()
  assert.equal(caller.closings.length, 1)
}

/** The same of a connection that has said its settings. */
async function refuses(code: number, ...frames: Buffer[]): Promise<void> {
  await ends(code, await Caller.greeted(), ...frames)
}

/** Answers at once, with so many bytes. */
const answering =
  (bytes: number): NonNullable<CallerOptions['onCall']> =>
  ({ stream }) => {
    stream.respond(okBlock)
    stream.write(Buffer.alloc(bytes, 7))
    stream.finish(endBlock)
  }

const bytesOf = (told: readonly string[], stream: number) =>
  told
    .filter(each => each.startsWith(`data ${stream} `))
    .reduce((sum, each) => sum + Number(each.split(' ')[2]), 0)

describe('the beginning of a connection', () => {
  const greeting = Buffer.concat([preface, settingsFrame(), callFrame(1, endStream)])
  const settled = ['settings', 'window 0 65537', 'settings ack']

  it('is answered with settings, a window, and the acknowledgement', async () => {
    const caller = new Caller()
    assert.deepEqual(await caller.tells(preface, settingsFrame()), settled)
    assert.equal(caller.settingsHeard, 1)
    assert.deepEqual(await caller.tells(settingsFrame()), ['settings ack'])
    assert.equal(caller.settingsHeard, 1)
  })

  it('says the window of calls, how many there may be, and how long headers may be', async () => {
    const [first] = await new Caller().heard()
    const values = new Map<number, number>()
    for (let at = 0; at < first!.payload.byteLength; at += 6)
      values.set(first!.payload.readUInt16BE(at), first!.payload.readUInt32BE(at + 2))
    assert.deepEqual(Object.fromEntries(values), { 3: 5, 4: 128 * 1024, 6: 65_535 })
  })

  it('needs no window where the windows are those that everybody begins with', async () => {
    assert.deepEqual((await new Caller({ receiveWindowBytes: 65_535 }).heard()).map(told), ['settings'])
  })

  it('may come in whatever pieces', async () => {
    for (let at = 1; at < greeting.byteLength; at++) {
      const caller = new Caller()
      caller.wire.come(greeting.subarray(0, at))
      await turn()
      caller.wire.come(greeting.subarray(at))
      assert.deepEqual((await caller.heard()).map(told), settled)
      assert.equal(caller.served[0]?.completed, 1, `${at}`)
    }
    const caller = new Caller()
    await turn()
    for (const byte of greeting) caller.wire.come(Buffer.of(byte))
    assert.deepEqual((await caller.heard()).map(told), settled)
    assert.equal(caller.served[0]?.completed, 1)
  })

  it('is HTTP/2’s: at the first other byte it is over', async () => {
    for (let at = 0; at < preface.byteLength; at++) {
      const wrong = Buffer.from(preface.subarray(0, at + 1))
      wrong[at]! ^= 1
      await ends(codes.protocol, new Caller(), wrong)
    }
    await ends(codes.protocol, new Caller(), Buffer.from('GET / HTTP/1.1\r\n\r\n'))
  })

  it('has settings as its first frame', async () => {
    for (const first of [pingFrame(), windowFrame(0, 1), callFrame(1), frame(99, 0, 0), dataFrame(1, 'x')])
      await ends(codes.protocol, new Caller(), preface, first)
    // An acknowledgement of ours are none of its own.
    await ends(codes.protocol, new Caller(), preface, frame(types.settings, ack, 0), pingFrame())
  })

  it('may break off: then it is closed, once', async () => {
    for (const at of [0, 5, 24, 30, greeting.byteLength]) {
      const caller = new Caller()
      await caller.send(greeting.subarray(0, at))
      caller.wire.push(null)
      await turn()
      await turn()
      assert.ok(caller.wire.destroyed)
      assert.deepEqual(caller.closings, [null])
      for (const call of caller.served) assert.deepEqual(call.closings, [true])
    }
  })
})

describe('a frame', () => {
  const eight = Buffer.alloc(8)

  it('of a wrong length ends the connection: FRAME_SIZE_ERROR', async () => {
    const call = callFrame(1)
    const wrong: readonly Buffer[][] = [
      [frame(types.data, 0, 1, Buffer.alloc(16_385))],
      [call, frame(types.data, padded, 1)],
      [frame(types.headers, endHeaders | padded, 1)],
      [frame(types.headers, endHeaders | prioritized, 1, Buffer.alloc(4))],
      [frame(types.priority, 0, 1, Buffer.alloc(4))],
      [frame(types.priority, 0, 1, Buffer.alloc(6))],
      [call, frame(types.reset, 0, 1, Buffer.alloc(3))],
      [call, frame(types.reset, 0, 1, Buffer.alloc(5))],
      [frame(types.settings, 0, 0, Buffer.alloc(5))],
      [frame(types.settings, 0, 0, Buffer.alloc(7))],
      [frame(types.settings, ack, 0, Buffer.alloc(6))],
      [frame(types.ping, 0, 0, Buffer.alloc(7))],
      [frame(types.ping, ack, 0, Buffer.alloc(9))],
      [frame(types.goAway, 0, 0, Buffer.alloc(7))],
      [frame(types.windowUpdate, 0, 0, Buffer.alloc(3))],
      [call, frame(types.windowUpdate, 0, 1, Buffer.alloc(5))],
      [frame(99, 0, 0, Buffer.alloc(16_385))],
    ]
    for (const frames of wrong) await refuses(codes.frameSize, ...frames)
  })

  it('of 16384 bytes is taken', async () => {
    const caller = await Caller.greeted()
    await caller.send(
      callFrame(1),
      dataFrame(1, Buffer.alloc(16_384, 1)),
      frame(99, 0, 0, Buffer.alloc(16_384)),
    )
    assert.equal(caller.served[0]!.bytes, 16_384)
  })

  it('of a call where it is of the connection, or the other way, ends it: PROTOCOL_ERROR', async () => {
    const wrong = [
      frame(types.data, 0, 0, 'x'),
      frame(types.headers, endHeaders, 0, requestOf('/direct')),
      frame(types.priority, 0, 0, Buffer.alloc(5)),
      frame(types.reset, 0, 0, uint32(8)),
      frame(types.settings, 0, 1),
      frame(types.ping, 0, 1, eight),
      frame(types.goAway, 0, 1, eight),
      frame(types.continuation, endHeaders, 0),
    ]
    for (const each of wrong) await refuses(codes.protocol, each)
  })

  it('of a call that was not begun ends it: PROTOCOL_ERROR', async () => {
    for (const each of [
      dataFrame(1, 'x'),
      resetFrame(1),
      windowFrame(1, 1),
      frame(types.continuation, endHeaders, 1),
    ])
      await refuses(codes.protocol, each)
    await refuses(codes.protocol, callFrame(1), dataFrame(3, 'x'))
  })

  it('that only a server sends ends it: promises, and calls with even numbers', async () => {
    await refuses(codes.protocol, frame(types.pushPromise, endHeaders, 1, Buffer.alloc(4)))
    await refuses(codes.protocol, callFrame(1), frame(types.pushPromise, endHeaders, 1, Buffer.alloc(4)))
    await refuses(codes.protocol, callFrame(2))
  })

  it('of a kind that nobody knows is ignored, as are flags, priorities, farewells and the first bit of a number', async () => {
    const caller = await Caller.greeted()
    const odd = [
      frame(10, 255, 0, 'alternative'),
      frame(99, 255, 1, 'x'),
      frame(255, 0, 2 ** 31 - 1),
      frame(types.priority, 0, 1, Buffer.alloc(5)),
      frame(types.priority, 255, 2 ** 31 - 1, Buffer.alloc(5)),
      frame(types.goAway, 0, 0, Buffer.concat([eight, Buffer.from('why')])),
      frame(types.windowUpdate, 255, 0, uint32(2 ** 31 + 1)),
      frame(types.ping, ack, 0, eight),
      settingsFrame([9, 9], [255, 2 ** 32 - 1]),
    ]
    assert.deepEqual(await caller.tells(...odd), ['settings ack'])
    const call = callFrame(1)
    call[5]! |= 0x80
    call[4]! |= 0x50
    assert.deepEqual(await caller.tells(call, dataFrame(1, 'x', endStream | 0x56)), [])
    assert.deepEqual([caller.served[0]!.body.toString(), caller.served[0]!.completed], ['x', 1])
  })

  it('in however many pieces is one', async () => {
    const caller = await Caller.greeted()
    const body = Buffer.from(Array.from({ length: 3_000 }, (_, i) => i))
    const bytes = Buffer.concat([
      callFrame(1),
      dataFrame(1, body.subarray(0, 1000)),
      dataFrame(1, body.subarray(1000)),
    ])
    for (const byte of bytes) caller.wire.come(Buffer.of(byte))
    await turn()
    assert.deepEqual(caller.served[0]!.body, body)
  })
})

describe('a ping', () => {
  it('comes back as it was, and what comes back is not sent again', async () => {
    const caller = await Caller.greeted()
    assert.deepEqual(await caller.tells(pingFrame('12345678'), pingFrame('abcdefgh')), [
      'ping ack 12345678',
      'ping ack abcdefgh',
    ])
    assert.deepEqual(await caller.tells(frame(types.ping, ack, 0, 'ABCDEFGH')), [])
  })
})

describe('settings', () => {
  it('are acknowledged one by one', async () => {
    const caller = await Caller.greeted()
    const three = Array.from({ length: 3 }, () => settingsFrame([initialWindow, 100], [3, 7]))
    assert.deepEqual(await caller.tells(...three), ['settings ack', 'settings ack', 'settings ack'])
  })

  it('that can’t be end the connection, each with its code', async () => {
    await refuses(codes.protocol, settingsFrame([enablePush, 2]))
    await refuses(codes.protocol, settingsFrame([frameSizeMax, 16_383]))
    await refuses(codes.protocol, settingsFrame([frameSizeMax, 2 ** 24]))
    await refuses(codes.flowControl, settingsFrame([initialWindow, 2 ** 31]))
  })

  it('at their limits are taken', async () => {
    const caller = await Caller.greeted()
    const values = [
      ...[[enablePush, 0] as const, [enablePush, 1] as const, [frameSizeMax, 16_384] as const],
      ...[
        [frameSizeMax, 2 ** 24 - 1] as const,
        [initialWindow, windowMax] as const,
        [headerTableSize, 0] as const,
      ],
    ]
    assert.deepEqual(await caller.tells(settingsFrame(...values)), ['settings ack'])
  })

  it('of the table are followed by headers that say that none is used', async () => {
    const caller = await Caller.greeted({ onCall: ({ stream }) => stream.respond(okBlock, true) })
    const [plain] = await caller.send(callFrame(1, endStream))
    assert.deepEqual(plain!.payload, okBlock)
    const heard = await caller.send(
      settingsFrame([headerTableSize, 100]),
      callFrame(3, endStream),
      callFrame(5, endStream),
    )
    assert.deepEqual(
      heard.slice(1).map(each => each.payload),
      [Buffer.concat([Buffer.of(0x20), okBlock]), okBlock],
    )
  })
})

describe('headers of a call', () => {
  const long = Buffer.concat([requestOf('/direct'), block('x-long', 'x'.repeat(40_000))])

  it('may be padded and have a priority', async () => {
    const caller = await Caller.greeted()
    const plain = requestOf('/direct')
    const priority = Buffer.alloc(5, 0x81)
    await caller.send(
      frame(types.headers, endHeaders | padded, 1, Buffer.concat([Buffer.of(7), plain, Buffer.alloc(7)])),
      frame(types.headers, endHeaders | prioritized, 3, Buffer.concat([priority, plain])),
      frame(
        types.headers,
        endHeaders | padded | prioritized,
        5,
        Buffer.concat([Buffer.of(255), priority, plain, Buffer.alloc(255)]),
      ),
    )
    assert.deepEqual(
      caller.served.map(({ stream, list }) => [stream.id, list[5]]),
      [
        [1, '/direct'],
        [3, '/direct'],
        [5, '/direct'],
      ],
    )
  })

  it('with more padding than there is end the connection: PROTOCOL_ERROR', async () => {
    await refuses(codes.protocol, frame(types.headers, endHeaders | padded, 1, [2, 0]))
    await refuses(codes.protocol, callFrame(1), frame(types.data, padded, 1, [2, 0]))
    await refuses(codes.protocol, callFrame(1), frame(types.data, padded, 1, [255]))
  })

  it('that are no block end the connection: COMPRESSION_ERROR, of calls that are over, too', async () => {
    await refuses(codes.compression, frame(types.headers, endHeaders, 1, [0x80]))
    await refuses(codes.compression, callFrame(1), frame(types.headers, endHeaders, 1, [0x80]))
    await refuses(codes.compression, callFrame(1), resetFrame(1), frame(types.headers, endHeaders, 1, [0x80]))
    await refuses(
      codes.compression,
      frame(types.headers, 0, 1, [0]),
      frame(types.continuation, endHeaders, 1, [9]),
    )
  })

  it('may go on in further frames, wherever they are cut', async () => {
    const caller = await Caller.greeted()
    await caller.send(
      frame(types.headers, endStream, 1, long.subarray(0, 16_384)),
      frame(types.continuation, 0, 1, long.subarray(16_384, 32_768)),
      frame(types.continuation, endHeaders, 1, long.subarray(32_768)),
      frame(types.headers, 0, 3),
      frame(types.continuation, 0, 3),
      frame(types.continuation, 0, 3, long.subarray(0, 3)),
      frame(types.continuation, 0, 3, long.subarray(3, 16_000)),
      frame(types.continuation, 0, 3, long.subarray(16_000, 32_000)),
      frame(types.continuation, 0, 3, long.subarray(32_000)),
      frame(types.continuation, endHeaders, 3),
    )
    const [one, other] = caller.served
    assert.deepEqual([one!.list.at(-1)!.length, one!.completed], [40_000, 1])
    assert.deepEqual([other!.list.at(-1)!.length, other!.completed], [40_000, 0])
  })

  it('are not broken off by anything: PROTOCOL_ERROR', async () => {
    const begun = frame(types.headers, 0, 1, requestOf('/direct'))
    const between = [
      pingFrame(),
      dataFrame(1, 'x'),
      callFrame(3),
      settingsFrame(),
      windowFrame(0, 1),
      frame(99, 0, 0),
    ]
    for (const each of [...between, frame(types.continuation, endHeaders, 3), resetFrame(1)])
      await refuses(codes.protocol, begun, each)
    await refuses(codes.protocol, callFrame(1), frame(types.continuation, endHeaders, 1))
  })

  it('that go on for ever end the connection: ENHANCE_YOUR_CALM', async () => {
    const part = Buffer.alloc(16_384)
    const large = Array.from({ length: 5 }, () => frame(types.continuation, 0, 1, part))
    await refuses(codes.enhanceYourCalm, frame(types.headers, 0, 1), ...large)
    const empty = Array.from({ length: 20 }, () => frame(types.continuation, 0, 1))
    await refuses(codes.enhanceYourCalm, frame(types.headers, 0, 1), ...empty)
  })

  it('of a table that unfolds to more than the limit end the call alone, and in the midst of one the connection: ENHANCE_YOUR_CALM', async () => {
    const entry = Buffer.concat([Buffer.from('4001617f811d', 'hex'), Buffer.alloc(3840, 'x')])
    const many = Buffer.concat([requestOf('/direct'), entry, Buffer.alloc(20, 0xbe)])
    const caller = await Caller.greeted()
    assert.deepEqual(await caller.tells(frame(types.headers, endHeaders | endStream, 1, many)), [
      'reset 1 11',
    ])
    // What they add to the table is there for others.
    const short = Buffer.concat([requestOf('/direct'), Buffer.of(0xbe)])
    await caller.send(frame(types.headers, endHeaders, 3, short))
    assert.deepEqual(caller.served[0]!.list.slice(-2), ['a', 'x'.repeat(3840)])
    assert.equal(caller.connection.openStreams, 1)
    assert.deepEqual(
      await caller.tells(
        // Of one that is over: nobody is told again.
        frame(types.headers, endHeaders | endStream, 1, many),
        frame(types.headers, endHeaders | endStream, 3, many),
      ),
      ['goaway 3 11'],
    )
    assert.deepEqual(caller.served[0]!.closings, [true])
  })

  it('beyond the number of calls refuse this one, and no other', async () => {
    const caller = await Caller.greeted()
    const heard = await caller.tells(...[1, 3, 5, 7, 9, 11, 13].map(id => callFrame(id)))
    assert.deepEqual(heard, ['reset 11 7', 'reset 13 7'])
    assert.equal(caller.connection.openStreams, 5)
    // What is still on its way of a refused one is nobody's.
    assert.deepEqual(
      await caller.tells(dataFrame(11, 'x', endStream), windowFrame(13, 5), resetFrame(13)),
      [],
    )
    caller.served[0]!.stream.reset(codes.cancel)
    assert.deepEqual(await caller.tells(callFrame(15)), ['reset 1 8'])
    assert.equal(caller.served.length, 6)
  })

  it('of a smaller number than others that came are those of a call that is over', async () => {
    const caller = await Caller.greeted()
    assert.deepEqual(await caller.tells(callFrame(5), callFrame(3)), [])
    assert.equal(caller.served.length, 1)
  })

  it('that come again end the request where they are its last, and otherwise the connection', async () => {
    const caller = await Caller.greeted()
    const trailers = (id: number, flags: number) =>
      frame(types.headers, endHeaders | flags, id, block('x', 'y'))
    assert.deepEqual(await caller.tells(callFrame(1), dataFrame(1, 'x'), trailers(1, endStream)), [])
    assert.deepEqual([caller.served[0]!.completed, caller.served[0]!.closings], [1, []])
    await ends(codes.protocol, caller, callFrame(3), trailers(3, 0))
    assert.deepEqual([caller.served[1]!.completed, caller.served[1]!.closings], [0, [true]])
  })
})

describe('a call whose request is over', () => {
  it('takes no more data and no more headers: STREAM_CLOSED, and the connection is over', async () => {
    const again = frame(types.headers, endHeaders | endStream, 1, block('x', 'y'))
    for (const more of [dataFrame(1, 'x'), dataFrame(1, '', endStream), again])
      for (const whole of [[callFrame(1, endStream)], [callFrame(1), dataFrame(1, 'x', endStream)]]) {
        const caller = await Caller.greeted()
        await ends(codes.streamClosed, caller, ...whole, more)
        assert.deepEqual([caller.served[0]!.completed, caller.served[0]!.closings], [1, [true]])
      }
  })

  it('may be taken back, and its window may grow', async () => {
    const caller = await Caller.greeted()
    assert.deepEqual(await caller.tells(callFrame(1, endStream), windowFrame(1, 5), resetFrame(1)), [])
    assert.deepEqual(caller.served[0]!.closings, [true])
    assert.equal(caller.connection.openStreams, 0)
  })

  it('and answered is gone: what comes of it then is ignored', async () => {
    const caller = await Caller.greeted({ onCall: answering(3) })
    assert.deepEqual(await caller.tells(callFrame(1, endStream)), ['headers 1', 'data 1 3', 'headers 1 end'])
    assert.deepEqual(caller.served[0]!.closings, [false])
    assert.equal(caller.connection.openStreams, 0)
    assert.deepEqual(
      await caller.tells(
        dataFrame(1, 'x'),
        windowFrame(1, 5),
        resetFrame(1),
        frame(types.priority, 0, 1, Buffer.alloc(5)),
      ),
      [],
    )
    assert.deepEqual(caller.served[0]!.closings, [false])
  })
})

describe('a call that is answered before its request is over', () => {
  it('keeps its place until the request is over, and what still comes of it is read', async () => {
    const caller = await Caller.greeted({ onCall: ({ stream }) => stream.respond(okBlock, true) })
    assert.deepEqual(await caller.tells(callFrame(1)), ['headers 1 end'])
    const [call] = caller.served
    assert.deepEqual([call!.closings, call!.takings, caller.connection.openStreams], [[], 1, 1])
    const heard: string[] = []
    for (let i = 0; i < 64; i++) heard.push(...(await caller.tells(dataFrame(1, Buffer.alloc(16_000)))))
    assert.ok(heard.length > 10 && heard.every(each => each.startsWith('window ')), `${heard}`)
    assert.deepEqual(await caller.tells(windowFrame(1, 5), resetFrame(1), callFrame(1, endStream)), [])
    assert.deepEqual([call!.bytes, call!.completed, call!.closings], [0, 0, [true]])
  })

  it('even where it was held, and where the answer waited for a window', async () => {
    const caller = await Caller.greeted({ onCall: ({ stream }) => stream.hold() }, [initialWindow, 10])
    await caller.send(callFrame(1), ...Array.from({ length: 8 }, () => dataFrame(1, Buffer.alloc(16_000))))
    answering(11)(caller.served[0]!)
    assert.deepEqual((await caller.heard()).map(told), ['headers 1', 'data 1 10'])
    assert.equal(caller.connection.openStreams, 1)
    assert.deepEqual(await caller.tells(windowFrame(1, 1)), ['data 1 1', 'headers 1 end'])
    assert.deepEqual([caller.served[0]!.closings, caller.connection.openStreams], [[], 1])
  })
})

describe('the place of a call', () => {
  it('is free when both sides have said all; who serves it hears of the end when ours is with the system', async () => {
    const caller = await Caller.greeted({ streamsMax: 1 })
    await caller.send(callFrame(1, endStream))
    caller.wire.isStuck = true
    answering(10)(caller.served[0]!)
    await turn()
    const { closings } = caller.served[0]!
    assert.deepEqual([caller.connection.openStreams, caller.served[0]!.takings, closings], [0, 0, []])
    await caller.send(callFrame(3))
    assert.equal(caller.served.length, 2)
    caller.wire.unstick()
    await caller.heard()
    assert.deepEqual([caller.served[0]!.takings, closings], [1, [false]])
  })

  it('is told of no more once it was cut, whatever of it still leaves', async () => {
    const caller = await Caller.greeted({ onCall: answering(10) })
    caller.wire.isStuck = true
    await caller.send(callFrame(1, endStream), windowFrame(0, 0))
    const [call] = caller.served
    assert.deepEqual([call!.takings, call!.closings], [0, [true]])
    caller.wire.isStuck = false
    caller.wire.unstick()
    await caller.heard()
    assert.ok(caller.wire.isEnded)
    assert.deepEqual([call!.takings, call!.closings], [0, [true]])
  })
})

describe('what a call answers', () => {
  it('beyond the windows leaves as they grow, then its trailers', async () => {
    const caller = await Caller.greeted({ onCall: answering(100_000) }, [initialWindow, 1000])
    assert.deepEqual(await caller.tells(callFrame(1, endStream)), ['headers 1', 'data 1 1000'])
    assert.deepEqual(await caller.tells(windowFrame(1, 1)), ['data 1 1'])
    assert.deepEqual(await caller.tells(windowFrame(0, 50_000)), [])
    assert.deepEqual(await caller.tells(windowFrame(1, 20_000)), ['data 1 16384', 'data 1 3616'])
    assert.deepEqual(caller.served[0]!.closings, [])
    const rest = await caller.tells(windowFrame(1, 100_000))
    assert.deepEqual([bytesOf(rest, 1), rest.at(-1)], [78_999, 'headers 1 end'])
    assert.deepEqual(caller.served[0]!.closings, [false])
  })

  it('leaves byte by byte where the windows grow so', async () => {
    const caller = await Caller.greeted({ onCall: answering(100) }, [initialWindow, 0])
    assert.deepEqual(await caller.tells(callFrame(1, endStream)), ['headers 1'])
    for (let i = 1; i < 100; i++) assert.deepEqual(await caller.tells(windowFrame(1, 1)), ['data 1 1'])
    assert.deepEqual(await caller.tells(windowFrame(1, 1)), ['data 1 1', 'headers 1 end'])
  })

  it('needs no window where it is nothing', async () => {
    const caller = await Caller.greeted({ onCall: answering(0) }, [initialWindow, 0])
    assert.deepEqual(await caller.tells(callFrame(1, endStream)), ['headers 1', 'headers 1 end'])
  })

  it('shares the connection’s window: a frame each in turn', async () => {
    const caller = await Caller.greeted({ onCall: answering(200_000) }, [initialWindow, windowMax])
    const first = await caller.tells(
      callFrame(1, endStream),
      callFrame(3, endStream),
      callFrame(5, endStream),
    )
    assert.equal(bytesOf(first, 1), 65_535)
    const second = await caller.tells(windowFrame(0, 4 * 16_384))
    assert.deepEqual(second, ['data 1 16384', 'data 3 16384', 'data 5 16384', 'data 1 16384'])
    assert.deepEqual(await caller.tells(windowFrame(0, 1)), ['data 3 1'])
    assert.deepEqual(await caller.tells(windowFrame(0, 1)), ['data 5 1'])
    // Who is at the end of its own window is left out.
    const rest = await caller.tells(windowFrame(0, 1_000_000))
    for (const [id, sent] of [
      [1, 65_535 + 32_768],
      [3, 16_385],
      [5, 16_385],
    ] as const)
      assert.equal(bytesOf(rest, id), 200_000 - sent)
  })

  it('waits for less where settings make its window negative', async () => {
    const caller = await Caller.greeted({ onCall: answering(50_000) }, [initialWindow, 20_000])
    assert.equal(bytesOf(await caller.tells(callFrame(1, endStream)), 1), 20_000)
    assert.deepEqual(await caller.tells(settingsFrame([initialWindow, 5_000])), ['settings ack'])
    // 15000 below nothing.
    assert.deepEqual(await caller.tells(windowFrame(1, 15_000)), [])
    assert.deepEqual(await caller.tells(windowFrame(1, 10)), ['data 1 10'])
    assert.deepEqual(await caller.tells(settingsFrame([initialWindow, 5_005])), ['settings ack', 'data 1 5'])
    assert.deepEqual(await caller.tells(settingsFrame([initialWindow, 0])), ['settings ack'])
    const rest = await caller.tells(settingsFrame([initialWindow, 60_000]))
    assert.deepEqual([bytesOf(rest, 1), rest.at(-1)], [29_985, 'headers 1 end'])
  })

  it('in many parts is the same, in their order, each told when it is with the system', async () => {
    const taken: number[] = []
    const caller = await Caller.greeted(
      {
        onCall: ({ stream }) => {
          stream.respond(okBlock)
          for (let i = 0; i < 200; i++) stream.write(Buffer.alloc(i * 13, i), () => taken.push(i))
          stream.finish(endBlock)
        },
      },
      [initialWindow, 1_000],
    )
    const data: Buffer[] = []
    const note = async (...frames: Buffer[]) => {
      for (const each of await caller.send(...frames)) if (each.type === types.data) data.push(each.payload)
    }
    await note(callFrame(1, endStream))
    for (let i = 0; caller.served[0]!.closings.length === 0; i++) {
      assert.ok(i < 2000)
      await note(windowFrame(1, 1 + ((i * 7919) % 1500)), windowFrame(0, 1 + ((i * 104_729) % 1500)))
    }
    assert.deepEqual(
      taken,
      Array.from({ length: 200 }, (_, i) => i),
    )
    assert.deepEqual(
      Buffer.concat(data),
      Buffer.concat(Array.from({ length: 200 }, (_, i) => Buffer.alloc(i * 13, i))),
    )
  })

  it('is nothing after a second answer, after its end, or once it was taken back', async () => {
    const caller = await Caller.greeted()
    await caller.send(callFrame(1, endStream), callFrame(3))
    const { stream } = caller.served[0]!
    stream.respond(okBlock)
    stream.respond(okBlock)
    stream.finish(endBlock)
    stream.finish(endBlock)
    stream.write(Buffer.from('x'))
    stream.respond(okBlock, true)
    assert.deepEqual((await caller.heard()).map(told), ['headers 1', 'headers 1 end'])
    stream.reset(codes.cancel)
    await caller.send(resetFrame(3))
    const other = caller.served[1]!.stream
    other.respond(okBlock)
    other.write(Buffer.from('x'))
    other.finish(endBlock)
    other.reset(codes.cancel)
    assert.deepEqual((await caller.heard()).map(told), [])
    assert.deepEqual(
      caller.served.map(each => each.closings),
      [[false], [true]],
    )
  })

  it('has headers of any length', async () => {
    const long = block(':status', '200', 'x', 'y'.repeat(50_000))
    const caller = await Caller.greeted({ onCall: ({ stream }) => stream.respond(long, true) }, [
      headerTableSize,
      0,
    ])
    const frames = await caller.send(callFrame(1, endStream))
    assert.deepEqual(
      frames.map(each => [each.type, each.flags, each.payload.byteLength <= 16_384]),
      [
        [types.headers, endStream, true],
        [types.continuation, 0, true],
        [types.continuation, 0, true],
        [types.continuation, endHeaders, true],
      ],
    )
    assert.deepEqual(Buffer.concat(frames.map(each => each.payload)), Buffer.concat([Buffer.of(0x20), long]))
  })
})

describe('a window', () => {
  it('of the connection that grows by nothing, or too much, ends it', async () => {
    await refuses(codes.protocol, windowFrame(0, 0))
    await refuses(codes.flowControl, windowFrame(0, windowMax))
    await refuses(codes.flowControl, windowFrame(0, windowMax - 65_535), windowFrame(0, 1))
    const caller = await Caller.greeted()
    assert.deepEqual(await caller.tells(windowFrame(0, windowMax - 65_535), pingFrame()), [
      'ping ack pingpong',
    ])
  })

  it('of a call that does so ends it as well', async () => {
    await refuses(codes.protocol, callFrame(1), windowFrame(1, 0))
    await refuses(codes.flowControl, callFrame(1), windowFrame(1, windowMax))
    const caller = await Caller.greeted()
    assert.deepEqual(await caller.tells(callFrame(1), windowFrame(1, windowMax - 65_535), pingFrame()), [
      'ping ack pingpong',
    ])
    await ends(codes.flowControl, caller, windowFrame(1, 1))
  })

  it('of a call that settings make too large ends the connection: FLOW_CONTROL_ERROR', async () => {
    await refuses(
      codes.flowControl,
      callFrame(1),
      windowFrame(1, 1),
      settingsFrame([initialWindow, windowMax]),
    )
  })

  it('of ours is kept: beyond that of a call or the connection’s the connection ends', async () => {
    const part = dataFrame(1, Buffer.alloc(16_384))
    const hold: CallerOptions = { onCall: ({ stream }) => stream.hold() }
    const caller = await Caller.greeted(hold)
    assert.deepEqual(await caller.tells(callFrame(1), ...Array.from({ length: 8 }, () => part)), [
      'window 0 65536',
      'window 0 65536',
    ])
    await ends(codes.flowControl, caller, dataFrame(1, 'x'))
  })

  it('of ours is given back for what is relayed when it is read there, or nobody can', async () => {
    let inner!: Duplex
    const relay = (duplex: Duplex) => {
      inner = duplex
    }
    const relayed = [
      callFrame(1, 0, '/relayed'),
      ...Array.from({ length: 8 }, () => dataFrame(1, Buffer.alloc(16_384))),
    ]
    const unread = await Caller.greeted({ relay })
    assert.deepEqual(await unread.tells(...relayed), [])
    await ends(codes.flowControl, unread, dataFrame(1, 'x'))
    const read = await Caller.greeted({ relay })
    await read.send(...relayed)
    inner.resume()
    assert.deepEqual((await read.heard()).map(told), ['window 0 65536', 'window 0 65536'])
    const gone = await Caller.greeted({ relay })
    await gone.send(...relayed)
    inner.destroy()
    assert.deepEqual((await gone.heard()).map(told), ['window 0 131072', 'reset 1 8'])
    assert.deepEqual(await gone.tells(...relayed.slice(1, 5)), ['window 0 65536'])
  })

  it('counts padding, too', async () => {
    const caller = await Caller.greeted({ onCall: ({ stream }) => stream.hold() })
    const padding = frame(types.data, padded, 1, Buffer.concat([Buffer.of(255), Buffer.alloc(256, 1)]))
    await caller.send(callFrame(1), ...Array.from({ length: 510 }, () => padding))
    assert.equal(caller.served[0]!.bytes, 510)
    // 131072 are the most; 510 of 257 bytes are 131070.
    assert.deepEqual(await caller.tells(dataFrame(1, 'xx')), [])
    await ends(codes.flowControl, caller, dataFrame(1, 'x'))
  })

  /** A caller that keeps to the windows it is told: all it may send, in frames of `piece`, then what it hears. */
  async function upload(
    caller: Caller,
    streams: readonly number[],
    each: number,
    piece: number,
  ): Promise<void> {
    const windows = new Map(streams.map(id => [id, 128 * 1024]))
    const left = new Map(streams.map(id => [id, each]))
    let window = 128 * 1024
    const payload = Buffer.alloc(piece, 5)
    await caller.send(...streams.map(id => callFrame(id)))
    for (let stalls = 0; [...left.values()].some(bytes => bytes > 0); ) {
      let sent = 0
      const frames: Buffer[] = []
      for (const id of streams) {
        for (;;) {
          const bytes = Math.min(piece, left.get(id)!, windows.get(id)!, window)
          if (bytes <= 0) break
          windows.set(id, windows.get(id)! - bytes)
          left.set(id, left.get(id)! - bytes)
          window -= bytes
          sent += bytes
          frames.push(dataFrame(id, payload.subarray(0, bytes), left.get(id) === 0 ? endStream : 0))
        }
      }
      stalls = sent === 0 ? stalls + 1 : 0
      assert.ok(stalls < 3, 'there is no window')
      for (const said of await caller.send(...frames)) {
        assert.equal(said.type, types.windowUpdate, told(said))
        const bytes = said.payload.readUInt32BE(0)
        if (said.stream === 0) window += bytes
        else windows.set(said.stream, windows.get(said.stream)! + bytes)
        assert.ok(window <= 128 * 1024 && [...windows.values()].every(each => each <= 128 * 1024))
      }
    }
  }

  const counted = (call: Served) => {
    let bytes = 0
    call.data = chunk => {
      bytes += chunk.byteLength
    }
    return () => bytes
  }

  it('is given back as it is read: 50 MiB over one call', async () => {
    let bytes = () => 0
    const caller = await Caller.greeted({ onCall: call => (bytes = counted(call)) })
    const all = 50 * 1024 * 1024
    await upload(caller, [1], all, 16_384)
    assert.deepEqual([bytes(), caller.served[0]!.completed], [all, 1])
  })

  it('is given back of many calls, of those that end and are reset, too', async () => {
    const caller = await Caller.greeted({
      onCall: call => {
        const bytes = counted(call)
        call.complete = () => {
          if (call.stream.id % 3 === 0) call.stream.reset(codes.cancel)
          else call.stream.respond(okBlock, true)
          assert.ok(bytes() === 70_001)
        }
      },
    })
    caller.heard = (
      heard => async () =>
        (await heard()).filter(({ type }) => type === types.windowUpdate)
    )(caller.heard.bind(caller))
    for (let id = 1; id < 1500; id += 10)
      await upload(caller, [id, id + 2, id + 4, id + 6, id + 8], 70_001, 9_999)
    assert.equal(caller.connection.openStreams, 0)
  })

  it('of a call that is held closes, and no other’s does', async () => {
    const caller = await Caller.greeted({
      onCall: call => {
        if (call.stream.id < 7) call.stream.hold()
      },
    })
    const full = (id: number) => Array.from({ length: 8 }, () => dataFrame(id, Buffer.alloc(16_384)))
    for (const id of [1, 3, 5]) {
      const heard = await caller.tells(callFrame(id), ...full(id))
      assert.ok(
        heard.every(each => each.startsWith('window 0')),
        `${heard}`,
      )
    }
    // Three times the connection's window is held, and here go fifty times that.
    await upload(caller, [7], 6_400_000, 16_384)
    caller.served[0]!.stream.release()
    assert.deepEqual((await caller.heard()).map(told), ['window 1 131072'])
    const again = (await caller.tells(...full(1))).filter(each => !each.startsWith('window 0'))
    assert.deepEqual(again, ['window 1 65536', 'window 1 65536'])
    assert.deepEqual(await caller.tells(resetFrame(3)), [])
  })
})

describe('a caller that does not read', () => {
  it('and asks for echoes is not heard any more, until it reads', async () => {
    const caller = await Caller.greeted()
    caller.wire.isStuck = true
    const many = Buffer.concat(Array.from({ length: 1000 }, () => pingFrame()))
    for (let i = 0; i < 100; i++) {
      caller.wire.come(many)
      await turn()
    }
    // Ten thousand and one chunk.
    assert.ok(caller.wire.writableLength <= 11_000 * 17, `${caller.wire.writableLength}`)
    assert.ok(caller.wire.isPaused())
    let echoes = 0
    for (let i = 0; i < 20; i++) {
      caller.wire.unstick()
      echoes += (await caller.heard()).length
    }
    assert.equal(echoes, 100_000)
    assert.deepEqual(await caller.tells(pingFrame('andagain')), ['ping ack andagain'])
  })

  it('makes it hold no more than it reads, however large its windows are and whatever it takes back', async () => {
    const caller = await Caller.greeted({ onCall: answering(1_000_000) }, [initialWindow, windowMax])
    await caller.send(windowFrame(0, windowMax - 65_535))
    caller.wire.isStuck = true
    for (let id = 1; id < 401; id += 2) await caller.send(callFrame(id, endStream), resetFrame(id))
    // The first is answered as a whole, so that nothing was left to take back: it waits for the system.
    assert.deepEqual(
      caller.served.map(each => each.closings.length),
      [0, ...Array(199).fill(1)],
    )
    assert.ok(caller.wire.writableLength < 1_200_000, `${caller.wire.writableLength}`)
    caller.wire.unstick()
    await caller.heard()
    assert.deepEqual(caller.served[0]!.closings, [false])
  })

  it('gets all of it once it does', async () => {
    const caller = await Caller.greeted({ onCall: answering(5_000_000) }, [initialWindow, windowMax])
    await caller.send(windowFrame(0, windowMax - 65_535))
    caller.wire.isStuck = true
    await caller.send(callFrame(1, endStream), callFrame(3, endStream))
    assert.deepEqual(
      caller.served.map(each => each.closings),
      [[], []],
    )
    caller.wire.isStuck = false
    caller.wire.unstick()
    const heard: string[] = []
    for (let i = 0; i < 50; i++) heard.push(...(await caller.tells()))
    for (const id of [1, 3]) assert.equal(bytesOf(heard, id), 5_000_000)
    assert.deepEqual(
      caller.served.map(each => each.closings),
      [[false], [false]],
    )
  })
})

describe('calls that are taken back', () => {
  it('a thousand at once are too many: ENHANCE_YOUR_CALM', async () => {
    const caller = await Caller.greeted()
    const rapid = (id: number) => [callFrame(id), resetFrame(id)]
    // Its settings were the first change.
    const ids = Array.from({ length: 999 }, (_, i) => 2 * i + 1)
    assert.deepEqual(await caller.tells(...ids.flatMap(rapid), pingFrame()), ['ping ack pingpong'])
    assert.equal(caller.served.length, 999)
    // As long as this took, some more are allowed.
    await ends(
      codes.enhanceYourCalm,
      caller,
      ...Array.from({ length: 1000 }, (_, i) => rapid(2 * i + 3001)).flat(),
    )
  })

  it('and settings that change are counted as one', async () => {
    const caller = await Caller.greeted()
    const few = Array.from({ length: 450 }, (_, i) => [callFrame(2 * i + 1), resetFrame(2 * i + 1)])
    const settings = Array.from({ length: 450 }, () => settingsFrame())
    assert.equal((await caller.tells(...few.flat(), ...settings)).length, 450)
    await ends(codes.enhanceYourCalm, caller, ...settings)
  })
})

describe('a connection that drains', () => {
  it('answers what was begun, refuses the rest, and ends', async () => {
    const caller = await Caller.greeted()
    await caller.send(callFrame(1, endStream), callFrame(3))
    caller.connection.drain()
    caller.connection.drain()
    assert.deepEqual(await caller.tells(callFrame(5), dataFrame(3, 'x', endStream)), [
      'goaway 3 0',
      'reset 5 7',
    ])
    answering(10)(caller.served[0]!)
    assert.deepEqual((await caller.heard()).map(told), ['headers 1', 'data 1 10', 'headers 1 end'])
    assert.ok(!caller.wire.isEnded)
    answering(10)(caller.served[1]!)
    assert.equal((await caller.heard()).length, 3)
    assert.ok(caller.wire.isEnded)
    assert.deepEqual(
      caller.served.map(each => each.closings),
      [[false], [false]],
    )
  })

  it('ends at once where nothing was begun', async () => {
    const caller = await Caller.greeted()
    caller.connection.drain()
    assert.deepEqual((await caller.heard()).map(told), ['goaway 0 0'])
    assert.ok(caller.wire.isEnded)
    caller.wire.push(null)
    await turn()
    assert.deepEqual(caller.closings, [null])
  })

  it('says nothing after its end, so that what it said arrives', async () => {
    const caller = await Caller.greeted()
    const errors: Error[] = []
    caller.wire.on('error', error => errors.push(error))
    caller.wire.isStuck = true
    caller.connection.drain()
    await caller.send(pingFrame(), callFrame(1), settingsFrame(), windowFrame(0, 5))
    for (let i = 0; i < 2; i++) caller.connection.tick()
    await turn()
    assert.deepEqual([errors, caller.wire.destroyed], [[], false])
    caller.wire.isStuck = false
    caller.wire.unstick()
    assert.equal((await caller.heard()).length, 0)
    assert.ok(caller.wire.isEnded)
  })
})

describe('a silent connection', () => {
  it('is asked, and cut where it says nothing', async () => {
    const caller = await Caller.greeted({ onCall: ({ stream }) => stream.hold() })
    await caller.send(callFrame(1))
    caller.connection.tick()
    assert.deepEqual((await caller.heard()).map(told), [])
    caller.connection.tick()
    assert.deepEqual((await caller.heard()).map(told), [`ping ${'\0'.repeat(8)}`])
    caller.connection.tick()
    await turn()
    assert.ok(caller.wire.destroyed)
    assert.deepEqual([caller.closings, caller.served[0]!.closings], [[null], [true]])
  })

  it('lives where it answers', async () => {
    const caller = await Caller.greeted()
    let asked = 0
    for (let i = 0; i < 20; i++) {
      caller.connection.tick()
      for (const said of await caller.heard()) {
        assert.equal(said.type, types.ping)
        asked++
        await caller.send(frame(types.ping, ack, 0, said.payload))
      }
    }
    assert.equal(asked, 10)
    assert.ok(!caller.wire.destroyed)
  })
})

describe('the end of a connection', () => {
  it('closes each call once, however it comes', async () => {
    const endings: Record<string, (caller: Caller) => void> = {
      destroyed: caller => caller.connection.destroy(codes.cancel),
      broken: caller => caller.wire.destroy(new Error('ECONNRESET')),
      closed: caller => caller.wire.push(null),
      wrong: caller => caller.wire.come(windowFrame(0, 0)),
      'destroyed twice': caller => {
        caller.connection.destroy(codes.cancel)
        caller.connection.destroy(codes.cancel)
      },
      'wrong, then destroyed': caller => {
        caller.wire.come(windowFrame(0, 0))
        caller.connection.destroy(codes.cancel)
        caller.wire.destroy()
      },
    }
    for (const [what, end] of Object.entries(endings)) {
      const caller = await Caller.greeted({}, [initialWindow, 10])
      await caller.send(...[1, 3, 5, 7, 9].map(id => callFrame(id, id === 3 ? endStream : 0)))
      const [, answered, half, reset] = caller.served
      answering(5)(answered!)
      answering(50)(half!)
      reset!.stream.reset(codes.internal)
      await turn()
      end(caller)
      await turn()
      await turn()
      assert.equal(caller.closings.length, 1, what)
      assert.deepEqual(
        caller.served.map(each => each.closings),
        [[true], [false], [true], [true], [true]],
        what,
      )
      for (const { stream } of caller.served) {
        stream.respond(okBlock)
        stream.write(Buffer.from('x'))
        stream.finish(endBlock)
        stream.release()
        stream.reset(codes.cancel)
      }
      caller.connection.drain()
      caller.connection.tick()
      await turn()
      assert.deepEqual([caller.connection.openStreams, caller.closings.length], [0, 1], what)
      caller.wire.destroy()
    }
  })

  it('closes a call that ends as it begins, too', async () => {
    const caller = await Caller.greeted({ onCall: ({ stream }) => stream.reset(codes.internal) })
    assert.deepEqual(await caller.tells(callFrame(1, endStream), pingFrame()), [
      'reset 1 2',
      'ping ack pingpong',
    ])
    assert.deepEqual(caller.served[0]!.closings, [true])
    assert.equal(caller.served[0]!.completed, 0)
  })

  it('by destroy is told with its code', async () => {
    const caller = await Caller.greeted()
    await caller.send(callFrame(7))
    caller.connection.destroy(codes.enhanceYourCalm)
    assert.deepEqual((await caller.heard()).map(told), ['goaway 7 11'])
    assert.ok(caller.wire.destroyed)
  })
})
