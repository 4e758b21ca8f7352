/**
 * The typed commands, one line each: name, whether it writes, which arguments are keys, what it answers, and how a
 * method's parameters become arguments. A new command is a new line here; methods, pipelines and `run` know it from that.
 */
import type { ReplyKind } from './reply.ts'

/** What is stored: text goes as UTF-8, numbers as people write them. */
export type Input = string | Uint8Array | number | bigint

/**
 * first: the first argument · pair: the first two · all · alternate: every other one, from the first · none: the command
 * has no key, or finds its way from shard to shard by itself
 */
export type KeyPositions = 'none' | 'first' | 'pair' | 'all' | 'alternate'

export interface CommandSpec<Args extends readonly unknown[], Kind extends ReplyKind> {
  readonly name: string
  readonly access: 'read' | 'write'
  readonly keys: KeyPositions
  readonly reply: Kind
  readonly args: (...args: Args) => readonly Input[]
}

const command =
  (access: 'read' | 'write', keys: KeyPositions) =>
  <Args extends readonly unknown[], Kind extends ReplyKind>(
    name: string,
    reply: Kind,
    args: (...args: Args) => readonly Input[],
  ): CommandSpec<Args, Kind> => ({ name, access, keys, reply, args })

const read = command('read', 'first')
const write = command('write', 'first')

type Fields = Readonly<Record<string, Input>> | ReadonlyMap<Input, Input>
type OneField = readonly [field: Input, value: Input]

export interface SetOptions {
  /** Time to live: seconds or milliseconds from now. */
  readonly ex?: number
  readonly px?: number
  /** When to expire: seconds or milliseconds since 1970, or a date. */
  readonly exAt?: number | Date
  readonly pxAt?: number | Date
  readonly keepTtl?: boolean
  /** Only if the key is not there, or only if it is. */
  readonly nx?: boolean
  readonly xx?: boolean
  /** Only if the key holds this value. */
  readonly ifEqual?: Input
}

export interface ExpireOptions {
  /** Only if it has no expiry yet, only if it has one, only to a later one, only to an earlier one. */
  readonly nx?: boolean
  readonly xx?: boolean
  readonly gt?: boolean
  readonly lt?: boolean
}

export interface ZaddOptions {
  readonly nx?: boolean
  readonly xx?: boolean
  readonly gt?: boolean
  readonly lt?: boolean
  /** Count the members whose score changed, too. */
  readonly ch?: boolean
}

export interface ZrangeOptions {
  /** Bounds are scores, such as 1, '(1', '-inf', or members, such as '[a', '(b', '-', '+'. Without: ranks. */
  readonly by?: 'score' | 'member'
  readonly rev?: boolean
  readonly limit?: { readonly offset: number; readonly count: number }
}

export interface ScanOptions {
  /** A pattern such as `user:*`. */
  readonly match?: string
  /** About how many are looked at a call; a hint. */
  readonly count?: number
  readonly signal?: AbortSignal
}

export const commands = {
  // --- The node ---
  /** PONG, or the message. */
  ping: command('read', 'none')('PING', 'text', (message?: Input) =>
    message === undefined ? [] : [message],
  ),
  echo: command('read', 'none')('ECHO', 'text', (message: Input) => [message]),
  /** Keys in all shards. */
  dbsize: command('read', 'none')('DBSIZE', 'integer', () => []),
  randomkey: command('read', 'none')('RANDOMKEY', 'value', () => []),

  // --- Keys ---
  /** How many of them there were. */
  del: command('write', 'all')('DEL', 'integer', (...keys: Input[]) => keys),
  /** How many of them there are. */
  exists: command('read', 'all')('EXISTS', 'integer', (...keys: Input[]) => keys),
  /** string, hash, list, set, zset or none. */
  type: read('TYPE', 'text', (key: Input) => [key]),
  /** True if the key is there and its expiry was set. */
  expire: write('EXPIRE', 'boolean', (key: Input, seconds: number, options: ExpireOptions = {}) => [
    key,
    seconds,
    ...flags(options),
  ]),
  pexpire: write('PEXPIRE', 'boolean', (key: Input, ms: number, options: ExpireOptions = {}) => [
    key,
    ms,
    ...flags(options),
  ]),
  expireat: write('EXPIREAT', 'boolean', (key: Input, at: number | Date, options: ExpireOptions = {}) => [
    key,
    seconds(at),
    ...flags(options),
  ]),
  pexpireat: write('PEXPIREAT', 'boolean', (key: Input, at: number | Date, options: ExpireOptions = {}) => [
    key,
    milliseconds(at),
    ...flags(options),
  ]),
  /** Seconds; -1: it never expires, -2: no such key. */
  ttl: read('TTL', 'integer', (key: Input) => [key]),
  pttl: read('PTTL', 'integer', (key: Input) => [key]),
  persist: write('PERSIST', 'boolean', (key: Input) => [key]),
  /** Both keys in one slot. */
  rename: command('write', 'pair')('RENAME', 'done', (key: Input, newKey: Input) => [key, newKey]),
  copy: command('write', 'pair')(
    'COPY',
    'boolean',
    (source: Input, destination: Input, options: { readonly replace?: boolean } = {}) => [
      source,
      destination,
      ...flags(options),
    ],
  ),

  // --- Strings ---
  get: read('GET', 'value', (key: Input) => [key]),
  /** False: nx, xx or ifEqual stood against it. */
  set: write('SET', 'boolean', (key: Input, value: Input, options: SetOptions = {}) => [
    key,
    value,
    ...setOptions(options),
  ]),
  /** Sets and answers what was there before. */
  setGet: write('SET', 'value', (key: Input, value: Input, options: SetOptions = {}) => [
    key,
    value,
    ...setOptions(options),
    'GET',
  ]),
  getdel: write('GETDEL', 'value', (key: Input) => [key]),
  mget: command('read', 'all')('MGET', 'values', (...keys: Input[]) => keys),
  /** Atomic among keys of one hash tag only. */
  mset: command('write', 'alternate')('MSET', 'done', (values: Fields) => pairs(values)),
  append: write('APPEND', 'integer', (key: Input, value: Input) => [key, value]),
  strlen: read('STRLEN', 'integer', (key: Input) => [key]),
  incr: write('INCR', 'integer', (key: Input) => [key]),
  incrby: write('INCRBY', 'integer', (key: Input, amount: number | bigint) => [key, amount]),
  decr: write('DECR', 'integer', (key: Input) => [key]),
  decrby: write('DECRBY', 'integer', (key: Input, amount: number | bigint) => [key, amount]),

  // --- Hashes ---
  /** How many fields are new. */
  hset: write('HSET', 'integer', (key: Input, ...fields: readonly [Fields] | OneField) => [
    key,
    ...(fields.length === 2 ? fields : pairs(fields[0])),
  ]),
  /** One field with a time to live of its own, in seconds. */
  hsetex: write('HSET', 'integer', (key: Input, field: Input, value: Input, seconds: number) => [
    key,
    field,
    value,
    seconds,
  ]),
  hsetnx: write('HSETNX', 'boolean', (key: Input, field: Input, value: Input) => [key, field, value]),
  hget: read('HGET', 'value', (key: Input, field: Input) => [key, field]),
  hmget: read('HMGET', 'values', (key: Input, ...fields: Input[]) => [key, ...fields]),
  hgetall: read('HGETALL', 'record', (key: Input) => [key]),
  hdel: write('HDEL', 'integer', (key: Input, field: Input, ...more: Input[]) => [key, field, ...more]),
  hkeys: read('HKEYS', 'list', (key: Input) => [key]),
  hvals: read('HVALS', 'list', (key: Input) => [key]),
  hlen: read('HLEN', 'integer', (key: Input) => [key]),
  hexists: read('HEXISTS', 'boolean', (key: Input, field: Input) => [key, field]),
  hincrby: write('HINCRBY', 'integer', (key: Input, field: Input, amount: number | bigint) => [
    key,
    field,
    amount,
  ]),

  // --- Lists ---
  /** The new length. */
  lpush: write('LPUSH', 'integer', (key: Input, ...elements: Input[]) => [key, ...elements]),
  rpush: write('RPUSH', 'integer', (key: Input, ...elements: Input[]) => [key, ...elements]),
  lpop: write('LPOP', 'value', (key: Input) => [key]),
  rpop: write('RPOP', 'value', (key: Input) => [key]),
  lpopCount: write('LPOP', 'maybeList', (key: Input, count: number) => [key, count]),
  rpopCount: write('RPOP', 'maybeList', (key: Input, count: number) => [key, count]),
  llen: read('LLEN', 'integer', (key: Input) => [key]),
  /** Both ends included; -1 is the last. */
  lrange: read('LRANGE', 'list', (key: Input, start: number, stop: number) => [key, start, stop]),
  lindex: read('LINDEX', 'value', (key: Input, index: number) => [key, index]),
  lset: write('LSET', 'done', (key: Input, index: number, element: Input) => [key, index, element]),
  ltrim: write('LTRIM', 'done', (key: Input, start: number, stop: number) => [key, start, stop]),
  lrem: write('LREM', 'integer', (key: Input, count: number, element: Input) => [key, count, element]),

  // --- Sets ---
  sadd: write('SADD', 'integer', (key: Input, ...members: Input[]) => [key, ...members]),
  srem: write('SREM', 'integer', (key: Input, ...members: Input[]) => [key, ...members]),
  smembers: read('SMEMBERS', 'list', (key: Input) => [key]),
  sismember: read('SISMEMBER', 'boolean', (key: Input, member: Input) => [key, member]),
  scard: read('SCARD', 'integer', (key: Input) => [key]),

  // --- Sorted sets ---
  /** How many members are new. */
  zadd: write(
    'ZADD',
    'integer',
    (
      key: Input,
      scores: Readonly<Record<string, number>> | ReadonlyMap<Input, number>,
      options: ZaddOptions = {},
    ) => [key, ...flags(options), ...scorePairs(scores)],
  ),
  zrem: write('ZREM', 'integer', (key: Input, ...members: Input[]) => [key, ...members]),
  zscore: read('ZSCORE', 'score', (key: Input, member: Input) => [key, member]),
  zrange: read('ZRANGE', 'list', (key: Input, start: Input, stop: Input, options: ZrangeOptions = {}) => [
    key,
    bound(start),
    bound(stop),
    ...rangeOptions(options),
  ]),
  zrangeWithScores: read(
    'ZRANGE',
    'scored',
    (key: Input, start: Input, stop: Input, options: ZrangeOptions = {}) => [
      key,
      bound(start),
      bound(stop),
      ...rangeOptions(options),
      'WITHSCORES',
    ],
  ),
  zcard: read('ZCARD', 'integer', (key: Input) => [key]),
  zincrby: write('ZINCRBY', 'score', (key: Input, amount: number, member: Input) => [
    key,
    bound(amount),
    member,
  ]),
  /** How many stand before it; null: it is no member. */
  zrank: read('ZRANK', 'rank', (key: Input, member: Input) => [key, member]),
} as const

// --- By name, for `run` -----------------------------------------------------------------------------------------------

export interface CommandFacts {
  readonly access: 'read' | 'write'
  readonly keys: KeyPositions
}

const factsByName = new Map<string, CommandFacts>([
  ...Object.values(commands).map(({ name, access, keys }) => [name, { access, keys }] as const),
  ['SCAN', { access: 'read', keys: 'none' }],
  ...['HSCAN', 'SSCAN', 'ZSCAN'].map(name => [name, { access: 'read', keys: 'first' }] as const),
])

/** A command that this client does not know is taken for a write to its first argument: right for any, if not the fastest. */
export function factsOf(name: string): CommandFacts {
  return factsByName.get(name) ?? { access: 'write', keys: 'first' }
}

// --- Arguments --------------------------------------------------------------------------------------------------------

function pairs(fields: Fields): Input[] {
  return [...(fields instanceof Map ? fields : Object.entries(fields))].flat() as Input[]
}

function scorePairs(scores: Readonly<Record<string, number>> | ReadonlyMap<Input, number>): Input[] {
  const entries: Iterable<readonly [Input, number]> = scores instanceof Map ? scores : Object.entries(scores)
  return [...entries].flatMap(([member, score]) => [bound(score), member])
}

/** A number that may be infinite. */
function bound(value: Input): Input {
  if (value === Number.POSITIVE_INFINITY) return '+inf'
  return value === Number.NEGATIVE_INFINITY ? '-inf' : value
}

/** `{ nx: true }` → NX */
function flags(
  options: Readonly<Record<string, boolean | undefined>> | ExpireOptions | ZaddOptions,
): string[] {
  return Object.entries(options)
    .filter(([, isSet]) => isSet === true)
    .map(([name]) => name.toUpperCase())
}

function setOptions({
  ex,
  px,
  exAt,
  pxAt,
  keepTtl = false,
  nx = false,
  xx = false,
  ifEqual,
}: SetOptions): Input[] {
  return [
    ...(ex === undefined ? [] : ['EX', ex]),
    ...(px === undefined ? [] : ['PX', px]),
    ...(exAt === undefined ? [] : ['EXAT', seconds(exAt)]),
    ...(pxAt === undefined ? [] : ['PXAT', milliseconds(pxAt)]),
    ...(keepTtl ? ['KEEPTTL'] : []),
    ...(nx ? ['NX'] : []),
    ...(xx ? ['XX'] : []),
    ...(ifEqual === undefined ? [] : ['IFEQ', ifEqual]),
  ]
}

function rangeOptions({ by, rev = false, limit }: ZrangeOptions): Input[] {
  return [
    ...(by === undefined ? [] : [by === 'score' ? 'BYSCORE' : 'BYLEX']),
    ...(rev ? ['REV'] : []),
    ...(limit === undefined ? [] : ['LIMIT', limit.offset, limit.count]),
  ]
}

function seconds(at: number | Date): number {
  return at instanceof Date ? Math.ceil(at.getTime() / 1000) : at
}

function milliseconds(at: number | Date): number {
  return at instanceof Date ? at.getTime() : at
}
