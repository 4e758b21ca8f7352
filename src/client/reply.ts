/** Replies as JavaScript values. A command has one kind of reply, so its method has one type. */
import type { CommandResponse, KeyValue } from '../gen/clusterpb/cluster.ts'
import { CallError } from './call-error.ts'

/** How bytes become what the caller works with. */
export type Decode<Data> = (bytes: Buffer) => Data

export const decodeText: Decode<string> = bytes => bytes.toString('utf8')
/** A copy: what came off the wire is a view of a larger buffer, which one kept value would keep alive. */
export const decodeBytes: Decode<Buffer> = bytes => Buffer.from(bytes)

export interface ScoredMember<Data> {
  readonly member: Data
  readonly score: number
}

/** Kinds of replies, and what they are to the caller. */
export interface ReplyTypes<Data> {
  /** null: there is no such key, field, element. */
  value: Data | null
  text: string
  integer: number
  /** null: there is no such member. */
  rank: number | null
  score: number | null
  /** Whether it was done (SET NX) or is so (EXISTS of one key). */
  boolean: boolean
  done: undefined
  list: Data[]
  /** In the order that was asked, null for what is missing. */
  values: (Data | null)[]
  /** null: there is no such key. */
  maybeList: Data[] | null
  record: Record<string, Data>
  scored: ScoredMember<Data>[]
}
export type ReplyKind = keyof ReplyTypes<unknown>

interface Answered<Kind extends ReplyKind> {
  readonly name: string
  readonly access: 'read' | 'write'
  readonly reply: Kind
}

/** Throws CallError where the reply is of another kind than the command's. */
export function readReply<Data, Kind extends ReplyKind>(
  { name, access, reply }: Answered<Kind>,
  response: CommandResponse,
  decode: Decode<Data>,
): ReplyTypes<Data>[Kind] {
  return readers[reply](new Reader(name, access, response, decode)) as ReplyTypes<Data>[Kind]
}

class Reader<Data> {
  private readonly command: string
  private readonly access: 'read' | 'write'
  private readonly response: CommandResponse
  private readonly decode: Decode<Data>

  constructor(command: string, access: 'read' | 'write', response: CommandResponse, decode: Decode<Data>) {
    this.command = command
    this.access = access
    this.response = response
    this.decode = decode
  }

  get isNil(): boolean {
    return this.response.response === undefined
  }

  bytes(): Buffer | null {
    const { response } = this.response
    if (response === undefined) return null
    return response.$case === 'value' ? response.value : this.unexpected(response.$case)
  }

  value(): Data | null {
    const bytes = this.bytes()
    return bytes === null ? null : this.decode(bytes)
  }

  integer(): number {
    const { response, affected } = this.response
    const count =
      response?.$case === 'count'
        ? response.value
        : response?.$case === 'success'
          ? (affected ?? (response.value ? 1n : 0n))
          : this.unexpected(response?.$case)
    const number = Number(count)
    if (!Number.isSafeInteger(number)) {
      throw new RangeError(
        `${this.command} answered ${count}, which a number can't hold exactly; run('${this.command}', …) answers it as a bigint`,
      )
    }
    return number
  }

  success(): boolean {
    const { response } = this.response
    return response?.$case === 'success' ? response.value : this.integer() > 0
  }

  items(): KeyValue[] {
    const { response } = this.response
    return response?.$case === 'list' ? response.value.list : this.unexpected(response?.$case)
  }

  itemKey({ key, keyBytes }: KeyValue): Data {
    return this.decode(keyBytes.length > 0 || key === undefined ? keyBytes : Buffer.from(key, 'utf8'))
  }

  itemName({ key, keyBytes }: KeyValue): string {
    return keyBytes.length > 0 || key === undefined ? keyBytes.toString('utf8') : key
  }

  itemValue({ value }: KeyValue): Data | null {
    return value === undefined ? null : this.decode(value)
  }

  /** Keys or values, whichever the items have. */
  item(item: KeyValue): Data {
    return this.itemValue(item) ?? this.itemKey(item)
  }

  score({ value }: KeyValue): number {
    return value === undefined ? Number.NaN : parseScore(value.toString('latin1'))
  }

  private unexpected(found = 'nothing'): never {
    const command = this.command
    const outcome = this.access === 'write' ? 'applied' : 'refused'
    // The shards keep short replies for a write that is sent again, and of longer ones only that it was applied.
    if (found === 'success') {
      const message = `${command}: it was applied, but its reply was lost on the way and was too long to be kept`
      throw new CallError({ code: 'REPLY_LOST', message, outcome, command })
    }
    const message = `${command}: a reply of another kind than expected: ${found}`
    throw new CallError({ code: 'UNEXPECTED_REPLY', message, outcome, command })
  }
}

function parseScore(text: string): number {
  if (text === 'inf' || text === '+inf') return Number.POSITIVE_INFINITY
  return text === '-inf' ? Number.NEGATIVE_INFINITY : Number(text)
}

const readers: { [Kind in ReplyKind]: <Data>(reply: Reader<Data>) => ReplyTypes<Data>[Kind] } = {
  value: reply => reply.value(),
  text: reply => reply.bytes()?.toString('utf8') ?? '',
  integer: reply => reply.integer(),
  rank: reply => (reply.isNil ? null : reply.integer()),
  score: reply => {
    const bytes = reply.bytes()
    return bytes === null ? null : parseScore(bytes.toString('latin1'))
  },
  boolean: reply => reply.success(),
  done: () => undefined,
  list: reply => reply.items().map(item => reply.item(item)),
  values: reply => reply.items().map(item => reply.itemValue(item)),
  maybeList: reply => (reply.isNil ? null : reply.items().map(item => reply.item(item))),
  // Not by assignment: a field may be called __proto__.
  record: reply =>
    Object.fromEntries(reply.items().map(item => [reply.itemName(item), reply.itemValue(item)!])),
  scored: reply => reply.items().map(item => ({ member: reply.itemKey(item), score: reply.score(item) })),
}

// --- Without a type -------------------------------------------------------------------------------------------------

/** What `run` answers: whatever the command does. */
export type Value<Data> =
  | null
  | boolean
  | number
  | bigint
  | Data
  | (Data | null | [field: Data, value: Data | null])[]
  | Page<Data>

/** Of scans. `cursor` is for the next call, 0 at the end. */
export interface Page<Data> {
  readonly cursor: string
  readonly items: (Data | null | [field: Data, value: Data | null])[]
}

export function readValue<Data>(message: CommandResponse, decode: Decode<Data>): Value<Data> {
  const { response, affected, cursor } = message
  const reply = new Reader('', 'read', message, decode)
  switch (response?.$case) {
    case undefined:
      return null
    case 'value':
      return decode(response.value)
    case 'success':
      return affected === undefined ? response.value : Number(affected)
    case 'count':
      return Number.isSafeInteger(Number(response.value)) ? Number(response.value) : response.value
    case 'list': {
      const items = response.value.list.map((item): Data | null | [Data, Data | null] => {
        const isNamed = item.key !== undefined || item.keyBytes.length > 0
        if (!isNamed) return reply.itemValue(item)
        return item.value === undefined ? reply.itemKey(item) : [reply.itemKey(item), reply.itemValue(item)]
      })
      return cursor === undefined ? items : { cursor: cursor.toString('latin1'), items }
    }
    case 'map':
      return null
  }
}
