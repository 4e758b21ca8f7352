/**
 * Headers (RFC 7541). Reading keeps the table that the other side fills; writing keeps none: fields go as they are, with no
 * state to lose, and the blocks that are sent most are made once.
 *
 * A block that changes nothing in the table means the same each time until one does. Callers repeat themselves, so what a
 * short block meant is remembered: most of them are read by one look.
 */
import { ConnectionError, errorCodes } from './frame.ts'
import { decodeHuffman } from './huffman.ts'

/** Names and values in turn. Names as they came: HTTP/2 has them in lower case. */
export type HeaderList = readonly string[]

export function headerOf(list: HeaderList, name: string): string | undefined {
  for (let i = 0; i < list.length; i += 2) if (list[i] === name) return list[i + 1]
  return undefined
}

/** Appendix A; the first has the index 1. */
const staticTable: readonly (readonly [name: string, value: string])[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ['accept-language', ''],
  ['accept-ranges', ''],
  ['accept', ''],
  ['access-control-allow-origin', ''],
  ['age', ''],
  ['allow', ''],
  ['authorization', ''],
  ['cache-control', ''],
  ['content-disposition', ''],
  ['content-encoding', ''],
  ['content-language', ''],
  ['content-length', ''],
  ['content-location', ''],
  ['content-range', ''],
  ['content-type', ''],
  ['cookie', ''],
  ['date', ''],
  ['etag', ''],
  ['expect', ''],
  ['expires', ''],
  ['from', ''],
  ['host', ''],
  ['if-match', ''],
  ['if-modified-since', ''],
  ['if-none-match', ''],
  ['if-range', ''],
  ['if-unmodified-since', ''],
  ['last-modified', ''],
  ['link', ''],
  ['location', ''],
  ['max-forwards', ''],
  ['proxy-authenticate', ''],
  ['proxy-authorization', ''],
  ['range', ''],
  ['referer', ''],
  ['refresh', ''],
  ['retry-after', ''],
  ['server', ''],
  ['set-cookie', ''],
  ['strict-transport-security', ''],
  ['transfer-encoding', ''],
  ['user-agent', ''],
  ['vary', ''],
  ['via', ''],
  ['www-authenticate', ''],
]

/** SETTINGS_HEADER_TABLE_SIZE: the default, which we leave as it is. */
const tableBytesMax = 4096
/** Of each entry, beside its name and value (section 4.1). */
const entryOverheadBytes = 32
const rememberedBlocksMax = 64
const rememberedBlockBytesMax = 128

export interface HeaderLimits {
  /** Names, values and 32 bytes a field; SETTINGS_MAX_HEADER_LIST_SIZE. */
  readonly listBytesMax: number
}

export class HeaderDecoder {
  private readonly limits: HeaderLimits
  /** The newest last: index 62 is the last one. */
  private readonly table: (readonly [name: string, value: string])[] = []
  private tableBytes = 0
  private capacity = tableBytesMax
  /** Of the table as it is now. */
  private readonly remembered = new Map<string, HeaderList>()
  private bytes!: Buffer
  private at = 0

  constructor(limits: HeaderLimits) {
    this.limits = limits
  }

  /**
   * A block, whole; null: it is longer than the limit, and read all the same, for the table's sake. Throws ConnectionError
   * where it is none: the tables of both sides then differ for good.
   */
  decode(block: Buffer): HeaderList | null {
    const isShort = block.byteLength <= rememberedBlockBytesMax
    const key = isShort ? block.toString('latin1') : ''
    const known = isShort ? this.remembered.get(key) : undefined
    if (known !== undefined) return known
    this.bytes = block
    this.at = 0
    const list: string[] = []
    let listBytes = 0
    let isTableChanged = false
    while (this.at < block.byteLength) {
      const first = block[this.at]!
      if ((first & 0xe0) === 0x20) {
        if (listBytes > 0) throw broken('a change of the table’s size among fields')
        this.resize(this.integer(5))
        isTableChanged = true
        continue
      }
      let name: string
      let value: string
      if ((first & 0x80) !== 0) {
        const entry = this.entry(this.integer(7))
        name = entry[0]
        value = entry[1]
      } else {
        const isAdded = (first & 0xc0) === 0x40
        const index = this.integer(isAdded ? 6 : 4)
        name = index === 0 ? this.text() : this.entry(index)[0]
        value = this.text()
        if (isAdded) {
          this.add(name, value)
          isTableChanged = true
        }
      }
      listBytes += name.length + value.length + entryOverheadBytes
      if (listBytes <= this.limits.listBytesMax) list.push(name, value)
    }
    if (isTableChanged) this.remembered.clear()
    if (listBytes > this.limits.listBytesMax) return null
    if (!isTableChanged && isShort && this.remembered.size < rememberedBlocksMax)
      this.remembered.set(key, list)
    return list
  }

  private entry(index: number): readonly [name: string, value: string] {
    const found =
      index <= staticTable.length
        ? staticTable[index - 1]
        : this.table[this.table.length - (index - staticTable.length)]
    if (found === undefined) throw broken(`the index ${index}`)
    return found
  }

  /** Section 5.1; `bits` of the first byte are the number's. */
  private integer(bits: number): number {
    const most = 2 ** bits - 1
    let value = this.bytes[this.at++]! & most
    if (value < most) return value
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.bytes[this.at++]
      if (byte === undefined) break
      value += (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    throw broken('a number that does not end or is too large')
  }

  private text(): string {
    const first = this.bytes[this.at]
    if (first === undefined) throw broken('the end in the middle of a field')
    const length = this.integer(7)
    const from = this.at
    const to = from + length
    if (to > this.bytes.byteLength) throw broken('the end in the middle of a field')
    this.at = to
    if (first < 0x80) return this.bytes.toString('latin1', from, to)
    const decoded = decodeHuffman(this.bytes, from, to)
    if (decoded === null) throw broken('bytes that are not of the Huffman code')
    return decoded.toString('latin1')
  }

  private add(name: string, value: string): void {
    const bytes = name.length + value.length + entryOverheadBytes
    this.table.push([name, value])
    this.tableBytes += bytes
    this.evict()
  }

  private resize(capacity: number): void {
    if (capacity > tableBytesMax) throw broken(`a table of ${capacity} bytes; ${tableBytesMax} are the most`)
    this.capacity = capacity
    this.evict()
  }

  /** From the oldest on. An entry larger than the table empties it (section 4.4). */
  private evict(): void {
    let from = 0
    while (this.tableBytes > this.capacity) {
      const [name, value] = this.table[from++]!
      this.tableBytes -= name.length + value.length + entryOverheadBytes
    }
    if (from > 0) this.table.splice(0, from)
  }
}

function broken(what: string): ConnectionError {
  return new ConnectionError(errorCodes.compression, `a header block with ${what}`)
}

/** A first byte of a block: from here on no table is used, so that its size does not matter (section 4.2). */
export const noTable = Buffer.from([0x20])

/** A block that reads the same whatever came before it: literals without indexing, not in Huffman's code. */
export function encodeHeaders(list: HeaderList): Buffer {
  const parts: Buffer[] = []
  for (let i = 0; i < list.length; i += 2) {
    const name = Buffer.from(list[i]!, 'latin1')
    const value = Buffer.from(list[i + 1]!, 'latin1')
    parts.push(Buffer.from([0]), integer(name.byteLength), name, integer(value.byteLength), value)
  }
  return Buffer.concat(parts)
}

/** With a prefix of seven bits. */
function integer(value: number): Buffer {
  if (value < 0x7f) return Buffer.from([value])
  const bytes = [0x7f]
  let rest = value - 0x7f
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  bytes.push(rest)
  return Buffer.from(bytes)
}
