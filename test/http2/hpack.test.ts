import assert from 'node:assert/strict'
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders, sensitiveHeaders } from 'node:http2'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { ConnectionError, encodeHeaderFrames, errorCodes } from '../../src/http2/frame.ts'
import { encodeHeaders, HeaderDecoder, type HeaderList, headerOf, noTable } from '../../src/http2/hpack.ts'
import { decodeHuffman } from '../../src/http2/huffman.ts'
import { Prng } from '../../src/lib/prng.ts'
import { until } from '../wire/grpc/harness.ts'
import { ack, endHeaders, type Frame, frame, settingsFrame, types } from './caller.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
const decoder = (listBytesMax = 65_535) => new HeaderDecoder({ listBytesMax })

/** The error that the block ends the connection with. */
function refusal(bytes: Buffer, by = decoder()): number {
  try {
    by.decode(bytes)
  } catch (error) {
    assert.ok(error instanceof ConnectionError, String(error))
    return error.code
  }
  return assert.fail(`${bytes.toString('hex')} is read`)
}

const { compression } = errorCodes

describe('RFC 7541, appendix C', () => {
  const get = [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'www.example.com']
  const requests = [
    get,
    [...get, 'cache-control', 'no-cache'],
    [
      ...[':method', 'GET', ':scheme', 'https', ':path', '/index.html', ':authority', 'www.example.com'],
      ...['custom-key', 'custom-value'],
    ],
  ]
  const dated = (time: string) => [
    ...['cache-control', 'private', 'date', `Mon, 21 Oct 2013 20:13:${time} GMT`],
    ...['location', 'https://www.example.com'],
  ]
  const responses = [
    [':status', '302', ...dated('21')],
    [':status', '307', ...dated('21')],
    [
      ...[':status', '200', 'cache-control', 'private', 'date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
      ...['location', 'https://www.example.com', 'content-encoding', 'gzip'],
      ...['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
    ],
  ]
  const examples: readonly (readonly [
    part: string,
    blocks: readonly string[],
    lists: readonly HeaderList[],
  ])[] = [
    ['C.2.1', ['400a637573746f6d2d6b65790d637573746f6d2d686561646572'], [['custom-key', 'custom-header']]],
    ['C.2.2', ['040c2f73616d706c652f70617468'], [[':path', '/sample/path']]],
    ['C.2.3', ['100870617373776f726406736563726574'], [['password', 'secret']]],
    ['C.2.4', ['82'], [[':method', 'GET']]],
    [
      'C.3',
      [
        '828684410f7777772e6578616d706c652e636f6d',
        '828684be58086e6f2d6361636865',
        '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
      ],
      requests,
    ],
    [
      'C.4',
      [
        '828684418cf1e3c2e5f23a6ba0ab90f4ff',
        '828684be5886a8eb10649cbf',
        '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
      ],
      requests,
    ],
    [
      'C.5',
      [
        `4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54
         6e1768747470733a2f2f7777772e6578616d706c652e636f6d`,
        '4803333037c1c0bf',
        `88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738
         666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d33
         3630303b2076657273696f6e3d31`,
      ],
      responses,
    ],
    [
      'C.6',
      [
        `488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718
         63c78f0b97c8e9ae82ae43d3`,
        '4883640effc1c0bf',
        `88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7
         b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007`,
      ],
      responses,
    ],
  ]

  for (const [part, blocks, lists] of examples)
    it(`${part} reads as it says`, () => {
      const by = decoder()
      // Those of answers have a table of 256 bytes, so that entries are evicted.
      const size = part === 'C.5' || part === 'C.6' ? hex('3fe101') : Buffer.alloc(0)
      assert.deepEqual(
        blocks.map((each, i) => by.decode(i === 0 ? Buffer.concat([size, hex(each)]) : hex(each))),
        lists,
      )
    })

  it('C.1 numbers are read: 10 and 1337 in five bits', () => {
    const by = decoder()
    // As sizes of the table; a table of 1337 bytes holds an entry of 1000, one of 10 none.
    const long = Buffer.concat([hex('4001617fe906'), Buffer.alloc(1000, 'x')])
    by.decode(Buffer.concat([hex('3f9a0a'), long]))
    assert.deepEqual(by.decode(hex('be')), ['a', 'x'.repeat(1000)])
    by.decode(hex('2a'))
    assert.equal(refusal(hex('be'), by), compression)
  })
})

describe('the Huffman code', () => {
  // Appendix B of what no header may hold, so that nghttp2 below never sends it.
  const odd = new Map(
    [
      ...([
        [0, '1ff8', 13],
        [1, '7fffd8', 23],
        [9, 'ffffea', 24],
        [127, 'ffffffc', 28],
      ] as const),
      ...([
        [10, '3ffffffc', 30],
        [13, '3ffffffd', 30],
        [22, '3ffffffe', 30],
      ] as const),
      ...Array.from({ length: 7 }, (_, i) => [2 + i, (0xfffffe2 + i).toString(16), 28] as const),
      ...([
        [11, 'fffffe9', 28],
        [12, 'fffffea', 28],
      ] as const),
      ...Array.from({ length: 8 }, (_, i) => [14 + i, (0xfffffeb + i).toString(16), 28] as const),
      ...Array.from({ length: 9 }, (_, i) => [23 + i, (0xffffff3 + i).toString(16), 28] as const),
    ].map(([byte, code, bits]) => [byte, BigInt(`0x${code}`).toString(2).padStart(bits, '0')]),
  )

  const bitsOf = (bits: string) =>
    Buffer.from(bits.match(/.{1,8}/g)!.map(each => Number.parseInt(each.padEnd(8, '1'), 2)))
  const read = (bytes: Buffer) => decodeHuffman(bytes, 0, bytes.byteLength)

  it('reads what is no text, too', () => {
    assert.equal(odd.size, 33)
    for (const [byte, bits] of odd) assert.deepEqual(read(bitsOf(bits)), Buffer.of(byte), `byte ${byte}`)
    const all = [...odd]
    assert.deepEqual(
      read(bitsOf(all.map(([, bits]) => bits).join(''))),
      Buffer.from(all.map(([byte]) => byte)),
    )
  })

  it('is filled with ones, of which no more than seven', () => {
    // 0 is 00000, 8 is 011110: five bits leave three to fill, eight of the first bits of EOS are too many.
    assert.deepEqual(read(bitsOf('00000')), Buffer.from('0'))
    assert.equal(read(Buffer.of(0b00000_110)), null)
    assert.equal(read(Buffer.of(0b00000_000)), null)
    assert.equal(read(Buffer.of(0b00000_111, 0xff)), null)
    assert.equal(read(Buffer.of(0xff)), null)
    assert.deepEqual(read(Buffer.alloc(0)), Buffer.alloc(0))
    // & is 11111000, which ends with its byte; seven bits of a longer one are filling.
    assert.deepEqual(read(Buffer.of(0xf8)), Buffer.from('&'))
    // 7 bits of filling: a code of nine bits does not exist, ten and five and ten do: 25 bits.
    assert.deepEqual(read(bitsOf('1111111000' + '00000' + '1111111001')), Buffer.from('!0"'))
  })

  it('holds no end of a string', () => {
    assert.equal(read(hex('3fffffffff')), null)
    assert.equal(read(hex('ffffffff')), null)
    assert.equal(read(hex('ffffffffffffffff')), null)
  })
})

describe('a block of headers', () => {
  it('that is broken ends the connection: COMPRESSION_ERROR', () => {
    const broken = {
      'the index 0': '80',
      'an index behind both tables': 'be',
      'the same of a name': '7e0161',
      'a far index': 'ffffffff7f',
      'a number that does not end': 'ff',
      'one that goes on for ever': `ff${'80'.repeat(20)}00`,
      'one that is too large': 'ffffffffff7f',
      'a name that is cut off': '400a6375',
      'no value': '4001 61',
      'a value that is cut off': '40016105 6162',
      'no length of a name': '40',
      'no length of a value of a known name': '41',
      'a length that does not end': '400161 7f',
      'filling with zeros': '0001618100',
      'filling of eight bits': '0001618207ff',
      'the end of a string in it': '00016184ffffffff',
      'a table of 4097 bytes': '3fe21f',
      'a change of the table’s size among fields': '8220',
      'the same at the end of two fields': '828420',
    }
    for (const [what, bytes] of Object.entries(broken)) assert.equal(refusal(hex(bytes)), compression, what)
  })

  it('may begin with changes of the table’s size, up to 4096 bytes', () => {
    assert.deepEqual(decoder().decode(hex('203fe11f82')), [':method', 'GET'])
  })

  it('may use up to the last index, and none beyond', () => {
    const by = decoder()
    for (let i = 0; i < 3; i++) by.decode(Buffer.concat([hex('400161'), Buffer.of(1, 0x61 + i)]))
    assert.deepEqual(by.decode(hex('bebfc0bd')), ['a', 'c', 'a', 'b', 'a', 'a', 'www-authenticate', ''])
    assert.equal(refusal(hex('c1'), by), compression)
  })

  it('with an entry that is larger than the table empties it', () => {
    const by = decoder()
    by.decode(hex('4001610162'))
    const large = Buffer.concat([hex('4001637f811f'), Buffer.alloc(4096, 'x')])
    assert.deepEqual(by.decode(large), ['c', 'x'.repeat(4096)])
    assert.equal(refusal(hex('be'), by), compression)
  })

  it('takes the name of the entry that its own one evicts', () => {
    const by = decoder()
    by.decode(hex('3f05 4001610162')) // A table of 36 bytes, an entry of 34.
    assert.deepEqual(by.decode(hex('7e0163')), ['a', 'c'])
    assert.deepEqual(by.decode(hex('be')), ['a', 'c'])
    assert.equal(refusal(hex('bf'), by), compression)
  })

  it('over the limit is none, however short it is; what it adds to the table is there', () => {
    const by = decoder(1_000)
    by.decode(Buffer.concat([hex('4001617f49'), Buffer.alloc(200, 'x')]))
    // Four times 233 bytes of one byte each.
    assert.equal(by.decode(hex('bebebebe'))?.length, 8)
    assert.equal(by.decode(hex('bebebebebe')), null)
    assert.equal(by.decode(hex('bebebebe4001620163bf')), null)
    assert.deepEqual(by.decode(hex('be')), ['b', 'c'])
  })

  it('that was read before is read anew once the table is another', () => {
    const by = decoder()
    const first = hex('4001610162')
    by.decode(first)
    assert.deepEqual(by.decode(hex('be')), ['a', 'b'])
    assert.deepEqual(by.decode(hex('be')), ['a', 'b'])
    by.decode(hex('4001630164'))
    assert.deepEqual(by.decode(hex('be')), ['c', 'd'])
    // One that adds is not remembered: it adds each time.
    by.decode(first)
    assert.deepEqual(by.decode(hex('bebfc0')), ['a', 'b', 'c', 'd', 'a', 'b'])
    // A change of size alone is one, too.
    by.decode(hex('20'))
    assert.equal(refusal(hex('be'), by), compression)
  })

  it('reads the same after ten thousand others as before', () => {
    const by = decoder()
    for (let i = 0; i < 10_000; i++) assert.deepEqual(by.decode(encodeHeaders(['n', `${i}`])), ['n', `${i}`])
    assert.deepEqual(by.decode(encodeHeaders(['n', '7'])), ['n', '7'])
  })

  it('as it is written is read: empty ones, long ones, bytes above 127', () => {
    const list = ['', '', 'a', '', 'b', 'x'.repeat(126), 'c', 'x'.repeat(127), 'd', 'x'.repeat(128)]
    const long = [...list, 'e', 'x'.repeat(20_000), 'f', '\xe9\xff']
    assert.deepEqual(decoder().decode(encodeHeaders(long)), long)
    assert.deepEqual(decoder().decode(Buffer.concat([noTable, encodeHeaders(list)])), list)
  })
})

/** Answers a client of node:http2 with frames by hand. */
class RawServer {
  readonly frames: Frame[] = []
  readonly server = createServer(socket => this.serve(socket))
  socket!: Socket
  onFrame: (frame: Frame) => void = () => {}

  async listen(): Promise<number> {
    await new Promise<void>(resolve => this.server.listen(0, '127.0.0.1', resolve))
    return (this.server.address() as AddressInfo).port
  }

  private serve(socket: Socket): void {
    this.socket = socket
    let bytes = Buffer.alloc(0)
    let at = 24
    socket.write(settingsFrame())
    socket.on('error', () => {})
    socket.on('data', chunk => {
      bytes = Buffer.concat([bytes.subarray(at), chunk as Buffer])
      if (at === 24) {
        if (bytes.byteLength < 24) return
        bytes = bytes.subarray(24)
      }
      at = 0
      while (bytes.byteLength - at >= 9) {
        const length = bytes.readUIntBE(at, 3)
        if (at + 9 + length > bytes.byteLength) break
        const payload = bytes.subarray(at + 9, at + 9 + length)
        const read = {
          type: bytes[at + 3]!,
          flags: bytes[at + 4]!,
          stream: bytes.readUInt32BE(at + 5),
          payload,
        }
        at += 9 + length
        if (read.type === types.settings && read.flags === 0) socket.write(frame(types.settings, ack, 0))
        this.onFrame(read)
      }
    })
  }
}

const names = Array.from({ length: 40 }, (_, i) => `x-${'name'.repeat(i % 5)}-${i}`)
const known = ['accept', 'user-agent', 'cookie', 'te', 'grpc-timeout', 'content-type', 'authorization', 'via']

function someText(random: Prng): string {
  const length = random.below(2 ** random.below(10))
  const kind = random.below(3)
  const printable = () => String.fromCharCode(0x21 + random.below(0x5e))
  const any = () =>
    String.fromCharCode(random.below(2) === 0 ? 0x21 + random.below(0x5e) : 0x80 + random.below(0x80))
  // Words come again, so that they are found in the table.
  if (kind === 0) return `v${random.below(12)}`
  return Array.from({ length }, kind === 1 ? printable : any).join('')
}

function someHeaders(random: Prng, call: number): { list: string[]; headers: OutgoingHttpHeaders } {
  const headers: OutgoingHttpHeaders = {
    ':method': ['GET', 'HEAD', 'DELETE'][random.below(3)]!,
    ':path': `/${random.below(3) === 0 ? call : someText(random).replaceAll(/[^a-z0-9]/g, '')}`,
    ':scheme': 'http',
    ':authority': `host-${random.below(3)}`,
  }
  const secret: string[] = []
  for (let i = random.below(12); i > 0; i--) {
    const name =
      random.below(3) === 0 ? known[random.below(known.length)]! : names[random.below(names.length)]!
    if (name === 'te') headers.te = 'trailers'
    else if (name.startsWith('x-') && random.below(4) === 0)
      headers[name] = [someText(random), someText(random)]
    else headers[name] = someText(random)
    if (random.below(8) === 0) secret.push(name)
  }
  const list = Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().flatMap(each => [name, `${each}`]),
  )
  return { list, headers: { ...headers, [sensitiveHeaders]: secret } }
}

describe('headers and nghttp2', () => {
  let raw: RawServer
  let session: ClientHttp2Session
  beforeEach(async () => {
    raw = new RawServer()
    session = connect(`http://127.0.0.1:${await raw.listen()}`)
    session.on('error', () => {})
  })
  afterEach(() => {
    session.destroy()
    raw.server.close()
  })

  it('its blocks read as they were meant: 600 on one connection, its table changed and changed again', async () => {
    const by = new HeaderDecoder({ listBytesMax: 1_000_000 })
    const read: HeaderList[] = []
    let [blocks, indexed, sizes, continued] = [0, 0, 0, 0]
    let parts: Buffer[] = []
    raw.onFrame = ({ type, flags, payload }) => {
      if (type !== types.headers && type !== types.continuation) return
      if (type === types.continuation) continued++
      // A priority is five bytes before it.
      parts.push(type === types.headers && (flags & 32) !== 0 ? payload.subarray(5) : payload)
      if ((flags & endHeaders) === 0) return
      const whole = Buffer.concat(parts)
      parts = []
      blocks++
      if (whole[0]! >> 5 === 1) sizes++
      if (whole.some(byte => byte >= 0x80 + 62)) indexed++
      read.push(by.decode(whole)!)
    }
    await new Promise(resolve => session.once('remoteSettings', resolve))
    const random = new Prng(7541)
    const sent: HeaderList[] = []
    for (let i = 0; i < 600; i++) {
      if (i % 50 === 49) {
        raw.socket.write(settingsFrame([1, [0, 60, 200, 1000, 4096, 65_536][random.below(6)]!]))
        await new Promise(resolve => session.once('remoteSettings', resolve))
      }
      const { list, headers } = someHeaders(random, i)
      if (i % 100 === 50) {
        const long = 'long'.repeat(6_000)
        headers['x-long'] = long
        list.push('x-long', long)
      }
      sent.push(list)
      session.request(headers, { endStream: true }).on('error', () => {})
    }
    await until('all are read', () => read.length === sent.length)
    for (const [i, list] of sent.entries()) assert.deepEqual(read[i], list, `list ${i}`)
    assert.ok(
      blocks === 600 && indexed > 100 && sizes > 3 && continued > 3,
      `${indexed} ${sizes} ${continued}`,
    )
  })

  it('its Huffman code of every byte that a header may hold is read', async () => {
    const by = new HeaderDecoder({ listBytesMax: 1_000_000 })
    const read: HeaderList[] = []
    raw.onFrame = ({ type, payload, flags }) => {
      if (type !== types.headers) return
      const block = (flags & 32) === 0 ? payload : payload.subarray(5)
      // nghttp2 uses the code where it is shorter: zeros of five bits make it so.
      if (!block.includes(zeros)) read.push(by.decode(block)!)
    }
    const zeros = '0'.repeat(30)
    const bytes = Array.from({ length: 0xe0 }, (_, i) => 0x20 + i).filter(byte => byte !== 0x7f)
    for (const byte of bytes)
      session.request(
        { ':path': '/', 'x-byte': `${zeros}${String.fromCharCode(byte)}0` },
        { endStream: true },
      )
    await until('all are read', () => read.length === bytes.length)
    for (const [i, byte] of bytes.entries())
      assert.equal(headerOf(read[i]!, 'x-byte'), `${zeros}${String.fromCharCode(byte)}0`)
  })

  it('ours are read by it, whatever came between them', async () => {
    const random = new Prng(7542)
    const answers = new Map<number, Record<string, unknown>>()
    raw.onFrame = ({ type, stream }) => {
      if (type !== types.headers) return
      const list = [':status', '200']
      for (let i = random.below(10); i > 0; i--)
        list.push(`${names[random.below(names.length)]!}-${i}`, someText(random))
      if (stream % 20 === 1) list.push('x-long', 'long'.repeat(6_000))
      answers.set(
        stream,
        Object.fromEntries(list.flatMap((_, at) => (at % 2 === 0 ? [[list[at], list[at + 1]]] : []))),
      )
      const bytes = encodeHeaders(list)
      raw.socket.write(
        encodeHeaderFrames(stream, stream === 3 ? Buffer.concat([noTable, bytes]) : bytes, true),
      )
    }
    for (let i = 0; i < 200; i++) {
      const stream = session.request({ ':path': '/' }).resume()
      const headers = await new Promise<Record<string, unknown>>((resolve, reject) => {
        stream.on('response', resolve)
        stream.on('error', reject)
      })
      const read = Object.entries(headers).map(([name, value]) => [name, `${value}`])
      assert.deepEqual(Object.fromEntries(read), answers.get(stream.id!))
    }
  })
})
