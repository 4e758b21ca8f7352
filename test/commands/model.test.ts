import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { StateMachine } from '../../src/commands/machine.ts'
import { commands } from '../../src/commands/table.ts'
import { isError } from '../../src/errors.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { decodeHeader, prefixes } from '../../src/keyspace/rows.ts'
import { type Plain, plain, Shard, sessionId } from './shard.ts'

/**
 * Random calls against a shard and against a Map that does what the calls' descriptions say, on one moving clock. The
 * Map drops what expired the moment it expires; the shard keeps it until the sweep, which comes at random times.
 */
type Fields = Map<string, { value: string; expiresAt: number }>
type Value =
  | { readonly type: 'string'; readonly text: string }
  | { readonly type: 'hash'; readonly fields: Fields }
  | { readonly type: 'list'; readonly elements: string[] }
  | { readonly type: 'set'; readonly members: Set<string> }
  | { readonly type: 'zset'; readonly scores: Map<string, number> }
type ValueOf<Type extends Value['type']> = Extract<Value, { type: Type }>

interface Entry {
  expiresAt: number
  value: Value
}

const never = Number.POSITIVE_INFINITY

function isEmpty(value: Value): boolean {
  switch (value.type) {
    case 'string':
      return false
    case 'hash':
      return value.fields.size === 0
    case 'list':
      return value.elements.length === 0
    case 'set':
      return value.members.size === 0
    case 'zset':
      return value.scores.size === 0
  }
}

class Model {
  nowMs: number
  readonly keys = new Map<string, Entry>()

  constructor(nowMs: number) {
    this.nowMs = nowMs
  }

  private expire(): void {
    for (const [key, { value, expiresAt }] of this.keys) {
      if (value.type === 'hash')
        for (const [field, { expiresAt }] of value.fields)
          if (expiresAt <= this.nowMs) value.fields.delete(field)
      if (expiresAt <= this.nowMs || isEmpty(value)) this.keys.delete(key)
    }
  }

  private typed<Type extends Value['type']>(key: string, type: Type): ValueOf<Type> | undefined {
    const value = this.keys.get(key)?.value
    if (value !== undefined && value.type !== type) throw 'WRONG_TYPE'
    return value as ValueOf<Type> | undefined
  }

  private string(key: string): string | undefined {
    return this.typed(key, 'string')?.text
  }

  /** The value, made and stored where it is missing; an empty one goes when the call is over. */
  private made<Kind extends Value>(key: string, empty: Kind): Kind {
    const found = this.typed(key, empty.type) as Kind | undefined
    if (found === undefined) this.keys.set(key, { value: empty, expiresAt: never })
    return found ?? empty
  }

  private hash(key: string): Fields | undefined {
    return this.typed(key, 'hash')?.fields
  }

  /** The reply, or the code of the refusal. */
  call(name: string, args: string[]): Plain {
    this.expire()
    try {
      return this.run(name, args)
    } catch (code) {
      if (typeof code !== 'string') throw code
      return code
    } finally {
      this.expire()
    }
  }

  private run(name: string, [key, ...args]: string[]): Plain {
    const k = key!
    const [first, second, third] = args
    const entry = this.keys.get(k)
    switch (name) {
      case 'GET':
        return this.string(k) ?? null
      case 'SET': {
        const options = args.slice(1)
        const old = options.includes('GET') ? this.string(k) : undefined
        const isMet =
          (!options.includes('NX') || entry === undefined) && (!options.includes('XX') || entry !== undefined)
        const px = options.indexOf('PX')
        const kept = options.includes('KEEPTTL') ? (entry?.expiresAt ?? never) : never
        const expiresAt = px === -1 ? kept : this.nowMs + Number(options[px + 1])
        if (isMet) this.keys.set(k, { value: text(first!), expiresAt })
        return options.includes('GET') ? (old ?? null) : isMet
      }
      case 'INCRBY': {
        const old = this.string(k) ?? '0'
        if (!/^(0|-?[1-9][0-9]*)$/.test(old)) throw 'NOT_INTEGER'
        const sum = Number(old) + Number(first)
        this.keys.set(k, { value: text(`${sum}`), expiresAt: entry?.expiresAt ?? never })
        return sum
      }
      case 'MSET':
        this.keys.set(k, { value: text(first!), expiresAt: never })
        this.keys.set(second!, { value: text(third!), expiresAt: never })
        return true
      case 'MGET':
        return [k, ...args].map(name => {
          const value = this.keys.get(name)?.value
          return value?.type === 'string' ? value.text : null
        })
      case 'DEL':
        return [k, ...args].filter(name => this.keys.delete(name)).length
      case 'EXISTS':
        return [k, ...args].filter(name => this.keys.has(name)).length
      case 'TYPE':
        return entry?.value.type ?? 'none'
      case 'PEXPIRE': {
        const expiresAt = this.nowMs + Number(first)
        if (entry === undefined) return 0
        if (second === 'NX' && entry.expiresAt !== never) return 0
        if (second === 'XX' && entry.expiresAt === never) return 0
        if (second === 'GT' && expiresAt <= entry.expiresAt) return 0
        if (second === 'LT' && expiresAt >= entry.expiresAt) return 0
        entry.expiresAt = expiresAt
        return 1
      }
      case 'PERSIST': {
        if (entry === undefined || entry.expiresAt === never) return 0
        entry.expiresAt = never
        return 1
      }
      case 'PTTL':
        if (entry === undefined) return -2
        return entry.expiresAt === never ? -1 : entry.expiresAt - this.nowMs
      case 'HSET': {
        const hash = this.made(k, { type: 'hash', fields: new Map() }).fields
        let created = 0
        for (let i = 0; i + 1 < args.length; i += 2) {
          if (!hash.has(args[i]!)) created++
          const expiresAt = args.length === 3 ? this.nowMs + Number(third) * 1000 : never
          hash.set(args[i]!, { value: args[i + 1]!, expiresAt })
        }
        return created
      }
      case 'HGET': {
        const hash = this.hash(k)
        if (args.length === 1) return hash?.get(first!)?.value ?? null
        return args.map((field): [string, string | null] => [field, hash?.get(field)?.value ?? null])
      }
      case 'HDEL': {
        const hash = this.hash(k)
        if (args.length === 0) return this.keys.delete(k) ? 1 : 0
        return args.filter(field => hash?.delete(field)).length
      }
      case 'HGETALL':
        return this.fields(k).map(([field, { value }]): [string, string] => [field, value])
      case 'HKEYS':
        return this.fields(k).map(([field]): [string, null] => [field, null])
      case 'HLEN':
        return this.hash(k)?.size ?? 0
      case 'APPEND': {
        const text = (this.string(k) ?? '') + first!
        this.keys.set(k, { value: { type: 'string', text }, expiresAt: entry?.expiresAt ?? never })
        return text.length
      }
      case 'STRLEN':
        return (this.string(k) ?? '').length
      case 'GETDEL': {
        const text = this.string(k)
        if (text !== undefined) this.keys.delete(k)
        return text ?? null
      }
      case 'RENAME':
        if (entry === undefined) throw 'NO_SUCH_KEY'
        this.keys.delete(k)
        this.keys.set(first!, entry)
        return true
      case 'COPY':
        if (entry === undefined || (this.keys.has(first!) && second !== 'REPLACE')) return 0
        this.keys.set(first!, structuredClone(entry))
        return 1
      case 'HMGET':
        return [...args].map(field => this.hash(k)?.get(field)?.value ?? null)
      case 'HVALS':
        this.hash(k)
        return this.fields(k).map(([, { value }]) => value)
      case 'HEXISTS':
        return this.hash(k)?.has(first!) ? 1 : 0
      case 'HSETNX': {
        const fields = this.made(k, { type: 'hash', fields: new Map() }).fields
        if (fields.has(first!)) return 0
        fields.set(first!, { value: second!, expiresAt: never })
        return 1
      }
      case 'HINCRBY': {
        const old = this.hash(k)?.get(first!)
        if (old !== undefined && !/^(0|-?[1-9][0-9]*)$/.test(old.value)) throw 'HASH_VALUE_NOT_INTEGER'
        const sum = Number(old?.value ?? 0) + Number(second)
        const fields = this.made(k, { type: 'hash', fields: new Map() }).fields
        fields.set(first!, { value: `${sum}`, expiresAt: old?.expiresAt ?? never })
        return sum
      }
      case 'LPUSH':
        return this.made(k, { type: 'list', elements: [] as string[] }).elements.unshift(
          ...[...args].reverse(),
        )
      case 'RPUSH':
        return this.made(k, { type: 'list', elements: [] as string[] }).elements.push(...args)
      case 'LPOP':
      case 'RPOP': {
        const list = this.typed(k, 'list')?.elements
        if (list === undefined) return null
        const take = () => (name === 'LPOP' ? list.shift()! : list.pop()!)
        if (first === undefined) return take()
        return Array.from({ length: Math.min(Number(first), list.length) }, take)
      }
      case 'LLEN':
        return this.typed(k, 'list')?.elements.length ?? 0
      case 'LRANGE':
        return this.window(k, first!, second!)
      case 'LTRIM': {
        const kept = this.window(k, first!, second!)
        this.typed(k, 'list')?.elements.splice(0, Number.POSITIVE_INFINITY, ...kept)
        return true
      }
      case 'LINDEX':
        return this.typed(k, 'list')?.elements.at(Number(first)) ?? null
      case 'LSET': {
        const list = this.typed(k, 'list')?.elements
        const at = Number(first) < 0 ? Number(first) + (list?.length ?? 0) : Number(first)
        if (list === undefined) throw 'NO_SUCH_KEY'
        if (list[at] === undefined) throw 'INDEX_OUT_OF_RANGE'
        list[at] = second!
        return true
      }
      case 'LREM': {
        const list = this.typed(k, 'list')?.elements ?? []
        const count = Number(first)
        let removed = 0
        const from = count < 0 ? list.length - 1 : 0
        for (let i = from; i >= 0 && i < list.length && (count === 0 || removed < Math.abs(count)); ) {
          const isEqual = list[i] === second
          if (isEqual) list.splice(i, 1)
          if (isEqual) removed++
          if (count < 0) i--
          else if (!isEqual) i++
        }
        return removed
      }
      case 'SADD': {
        const { members } = this.made(k, { type: 'set', members: new Set() })
        const before = members.size
        for (const member of args) members.add(member)
        return members.size - before
      }
      case 'SREM': {
        const set = this.typed(k, 'set')
        return args.filter(member => set?.members.delete(member)).length
      }
      case 'SMEMBERS':
        return [...(this.typed(k, 'set')?.members ?? [])]
          .sort()
          .map((member): [string, null] => [member, null])
      case 'SISMEMBER':
        return this.typed(k, 'set')?.members.has(first!) ? 1 : 0
      case 'SCARD':
        return this.typed(k, 'set')?.members.size ?? 0
      case 'ZADD': {
        const [rule, ...rest] = args as [string, ...string[]]
        const pairs = rest[0] === 'CH' ? rest.slice(1) : rest
        let changed = 0
        this.typed(k, 'zset')
        for (let i = 0; i < pairs.length; i += 2) {
          const [score, member] = [Number(pairs[i]), pairs[i + 1]!]
          const old = this.typed(k, 'zset')?.scores.get(member)
          if (old === undefined ? rule === 'XX' : rule === 'NX' || old === score) continue
          if (old !== undefined && ((rule === 'GT' && score < old) || (rule === 'LT' && score > old)))
            continue
          this.made(k, { type: 'zset', scores: new Map() }).scores.set(member, score)
          changed++
        }
        return changed
      }
      case 'ZINCRBY': {
        const { scores } = this.made(k, { type: 'zset', scores: new Map() })
        scores.set(second!, (scores.get(second!) ?? 0) + Number(first))
        return `${scores.get(second!)}`
      }
      case 'ZREM': {
        const set = this.typed(k, 'zset')
        return args.filter(member => set?.scores.delete(member)).length
      }
      case 'ZSCORE': {
        const score = this.typed(k, 'zset')?.scores.get(first!)
        return score === undefined ? null : `${score}`
      }
      case 'ZCARD':
        return this.typed(k, 'zset')?.scores.size ?? 0
      case 'ZRANK': {
        const rank = this.ranked(k).findIndex(([member]) => member === first)
        return rank === -1 ? null : rank
      }
      case 'ZRANGE': {
        const options = args.slice(2)
        const isReversed = options.includes('REV')
        const at = (bound: string) => Number(bound.replace('(', ''))
        let found = this.ranked(k)
        if (options.includes('BYSCORE')) {
          const [low, high] = isReversed ? [second!, first!] : [first!, second!]
          found = found.filter(([, score]) => (low.startsWith('(') ? score > at(low) : score >= at(low)))
          found = found.filter(([, score]) => (high.startsWith('(') ? score < at(high) : score <= at(high)))
          if (isReversed) found.reverse()
          if (options.includes('LIMIT')) found = found.slice(1, 3)
        } else {
          if (isReversed) found.reverse()
          found = cut(found, first!, second!)
        }
        return found.map(([member, score]): [string, string] => [member, `${score}`])
      }
      default:
        throw new Error(name)
    }
  }

  private window(key: string, start: string, stop: string): string[] {
    return cut(this.typed(key, 'list')?.elements ?? [], start, stop)
  }

  private ranked(key: string): [member: string, score: number][] {
    const scores = [...(this.typed(key, 'zset')?.scores ?? [])]
    return scores.sort(([a, x], [b, y]) => x - y || (a < b ? -1 : 1))
  }

  private fields(key: string) {
    return [...(this.hash(key) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
  }
}

const text = (text: string): Value => ({ type: 'string', text })

/** From `start` to `stop`, both included, either from the end where it is below 0. */
function cut<Item>(items: readonly Item[], start: string, stop: string): Item[] {
  const at = (index: number) => (index < 0 ? items.length + index : index)
  return items.filter((_, i) => i >= at(Number(start)) && i <= at(Number(stop)))
}

/** In one slot, so that they can be renamed to each other. */
const names = ['{k}a', '{k}b', '{k}c', '{k}l', '{k}s', '{k}z']
const key = fc.constantFrom(...names.slice(0, 3))
/** Mostly one of its own, so that it lives long enough to grow. */
const mostly = (name: string) =>
  fc.oneof({ weight: 1, arbitrary: key }, { weight: 3, arbitrary: fc.constant(name) })
const listKey = mostly('{k}l')
const setKey = mostly('{k}s')
const sortedKey = mostly('{k}z')
const field = fc.constantFrom('f', 'g', '')
const value = fc.constantFrom('1', '-7', 'x', '')
const ms = fc.constantFrom('-1', '1', '500', '1000', '2000')
const option = fc.constantFrom(
  [],
  ['NX'],
  ['XX'],
  ['GET'],
  ['KEEPTTL'],
  ['PX', '1000'],
  ['XX', 'GET', 'PX', '500'],
)
const pexpireOption = fc.constantFrom([], ['NX'], ['XX'], ['GT'], ['LT'])
/** Long ones, so that a sorted set of a few has a tree of several levels. */
const member = fc.constantFrom('', 'a', 'b', ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map(n => `${n}`.repeat(500)))
const score = fc.constantFrom('-1', '0', '0.5', '1', '7')
const index = fc.constantFrom('0', '1', '2', '-1', '-2', '-9', '9')
const bound = fc.tuple(fc.constantFrom('', '('), score).map(parts => parts.join(''))
const rangeOption = fc.constantFrom([], ['REV'])
const limitOption = fc.constantFrom([], ['LIMIT', '1', '2'])
const moreOfStrings = fc.oneof(
  fc.tuple(fc.constantFrom('STRLEN', 'GETDEL'), key).map(args => [...args]),
  fc.tuple(key, value).map(args => ['APPEND', ...args]),
  fc.tuple(key, key).map(args => ['RENAME', ...args]),
  fc
    .tuple(key, key, fc.constantFrom([], ['REPLACE']))
    .filter(([from, to]) => from !== to)
    .map(([from, to, options]) => ['COPY', from, to, ...options]),
  fc.tuple(key, field, field).map(args => ['HMGET', ...args]),
  fc.tuple(key, field).map(args => ['HEXISTS', ...args]),
  fc.tuple(key, field, value).map(args => ['HSETNX', ...args]),
  fc.tuple(key, field, index).map(args => ['HINCRBY', ...args]),
  key.map(k => ['HVALS', k]),
)
const ofLists = fc.oneof(
  fc.tuple(fc.constantFrom('LPUSH', 'RPUSH'), listKey, fc.array(value, { minLength: 1, maxLength: 4 })),
  fc.tuple(fc.constantFrom('LPOP', 'RPOP'), listKey, fc.constantFrom([], ['0'], ['1'], ['3'])),
  fc.tuple(fc.constantFrom('LRANGE', 'LTRIM'), listKey, fc.tuple(index, index)),
  fc.tuple(fc.constant('LINDEX'), listKey, fc.tuple(index)),
  fc.tuple(fc.constantFrom('LSET', 'LREM'), listKey, fc.tuple(index, value)),
)
const ofSets = fc.tuple(
  fc.constantFrom('SADD', 'SADD', 'SREM'),
  setKey,
  fc.array(member, { minLength: 1, maxLength: 4 }),
)
const pairs = fc.array(fc.tuple(score, member), { minLength: 1, maxLength: 6 }).map(pairs => pairs.flat())
const zadd = fc
  .tuple(sortedKey, fc.constantFrom('CH', 'CH', 'NX', 'XX', 'GT', 'LT'), pairs)
  .map(([k, rule, pairs]) => ['ZADD', k, rule, ...(rule === 'CH' ? [] : ['CH']), ...pairs])
const ofSortedSets = fc.oneof(
  { weight: 4, arbitrary: zadd },
  fc.tuple(sortedKey, score, member).map(args => ['ZINCRBY', ...args]),
  fc
    .tuple(sortedKey, fc.array(member, { minLength: 1, maxLength: 6 }))
    .map(([k, members]) => ['ZREM', k, ...members]),
  fc.tuple(fc.constantFrom('ZRANK', 'ZSCORE'), sortedKey, member).map(args => [...args]),
  fc
    .tuple(sortedKey, index, index, rangeOption)
    .map(([k, start, stop, option]) => ['ZRANGE', k, start, stop, ...option, 'WITHSCORES']),
  fc
    .tuple(sortedKey, bound, bound, rangeOption, limitOption)
    .map(([k, low, high, option, limit]) => [
      'ZRANGE',
      k,
      low,
      high,
      'BYSCORE',
      ...option,
      ...limit,
      'WITHSCORES',
    ]),
)
const flat = ([name, key, args]: [string, string, string[]]) => [name, key, ...args]
const call = fc.oneof(
  { weight: 4, arbitrary: moreOfStrings },
  { weight: 5, arbitrary: ofLists.map(args => flat(args as [string, string, string[]])) },
  { weight: 3, arbitrary: ofSets.map(flat) },
  { weight: 5, arbitrary: ofSortedSets },
  fc.tuple(key, value, option).map(([k, v, options]) => ['SET', k, v, ...options]),
  fc.tuple(key, value, key, value).map(pairs => ['MSET', ...pairs]),
  fc.tuple(key, fc.integer({ min: -9, max: 9 })).map(([k, by]) => ['INCRBY', k, `${by}`]),
  fc.tuple(fc.constantFrom('DEL', 'EXISTS', 'MGET'), key, key).map(args => [...args]),
  fc.tuple(key, ms, pexpireOption).map(([k, ms, options]) => ['PEXPIRE', k, ms, ...options]),
  fc
    .tuple(fc.constantFrom('GET', 'TYPE', 'PERSIST', 'PTTL', 'HGETALL', 'HKEYS', 'HLEN'), key)
    .map(args => [...args]),
  fc
    .tuple(key, field, value, fc.constantFrom([], ['1'], ['2']))
    .map(([k, f, v, ttl]) => ['HSET', k, f, v, ...ttl]),
  fc.tuple(key, field, value, field, value).map(args => ['HSET', ...args]),
  fc.tuple(fc.constantFrom('HDEL', 'HGET'), key, field, field).map(args => [...args]),
  fc.tuple(fc.constantFrom('HDEL', 'HGET'), key, field).map(args => [...args]),
  key.map(k => ['HDEL', k]),
)
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('call' as const), call }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('go' as const), ms: fc.constantFrom(1, 499, 500, 1000) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('sweep' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('repeat' as const), back: fc.nat(5) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('look' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

/** Calls that show all that a key of that type holds. */
function contents(key: string, type: Value['type'] | undefined): string[][] {
  switch (type) {
    case undefined:
    case 'string':
      return [['GET', key]]
    case 'hash':
      return [
        ['HLEN', key],
        ['HGETALL', key],
      ]
    case 'list':
      return [
        ['LLEN', key],
        ['LRANGE', key, '0', '-1'],
      ]
    case 'set':
      return [
        ['SCARD', key],
        ['SMEMBERS', key],
      ]
    case 'zset':
      return [
        ['ZCARD', key],
        ['ZRANGE', key, '0', '-1', 'WITHSCORES'],
      ]
  }
}

class Run {
  readonly shard = new Shard()
  readonly model = new Model(this.shard.nowMs)
  private readonly id = sessionId(this.shard.nowMs)
  private readonly written: { call: string[]; reply: Plain }[] = []

  take(step: Step): void {
    switch (step.kind) {
      case 'go':
        this.shard.nowMs += step.ms
        this.model.nowMs = this.shard.nowMs
        return
      case 'sweep':
        this.shard.sweep()
        return
      case 'repeat':
        this.repeat(step.back)
        return
      case 'look':
        for (const key of names)
          for (const call of [
            ['TYPE', key],
            ['PTTL', key],
            ...contents(key, this.model.keys.get(key)?.value.type),
          ])
            assert.deepEqual(
              this.read(call[0]!, call.slice(1)),
              this.model.call(call[0]!, call.slice(1)),
              `${call}`,
            )
        return
      case 'call': {
        const [name, ...args] = step.call as [string, ...string[]]
        const isWrite = commands.get(name)!.access === 'write'
        const reply = isWrite ? this.write(step.call, this.written.length + 1) : this.read(name, args)
        if (isWrite) this.written.push({ call: step.call, reply })
        assert.deepEqual(reply, this.model.call(name, args), step.call.join(' '))
      }
    }
  }

  private write([name, ...args]: string[], sequence: number): Plain {
    const session = { id: this.id, sequence, ackedBelow: 1 }
    const applied = this.shard.applyOperations([this.shard.operation(name!, ...args)], session)
    return applied.kind === 'refused' ? applied.error.code : plain(applied.replies[0]!)
  }

  private read(name: string, args: string[]): Plain {
    try {
      return this.shard.call(name, ...args)
    } catch (error) {
      if (!isError(error)) throw error
      return error.code
    }
  }

  private repeat(back: number): void {
    const sequence = this.written.length - back
    const first = this.written[sequence - 1]
    if (first === undefined) return
    const before = { ...this.shard.dump(), cclock: '' }
    assert.deepEqual(this.write(first.call, sequence), first.reply)
    assert.deepEqual({ ...this.shard.dump(), cclock: '' }, before)
  }

  /** What the rows of a hash say of themselves is so. */
  checkCounts(): void {
    const end = '\u00ff'.repeat(20)
    const count = (prefix: string) => [...this.shard.rows.range(prefix, prefix + end)].length
    let keys = 0
    for (const [, bytes] of this.shard.rows.range(prefixes.header, prefixes.header + end)) {
      keys++
      const header = decodeHeader(bytes)
      if (header.type === 'string') continue
      const fields = count(prefixes.field + header.generation)
      if (header.type === 'hash') {
        assert.equal(header.fields, fields)
        assert.equal(header.expiringFields, count(prefixes.fieldDue + header.generation))
      } else if (header.type === 'list')
        assert.equal(header.tail - header.head, count(prefixes.element + header.generation))
      else assert.equal(header.members, fields)
    }
    assert.equal(this.shard.call('DBSIZE'), keys)
  }

  /** Sweeps until the machine says that there is nothing to sweep. */
  settle(): void {
    for (let sweeps = 0; (this.shard.machine.nextExpiry() ?? never) <= this.shard.nowMs; sweeps++) {
      assert.ok(this.shard.sweep() > 0)
      assert.ok(sweeps < 100, 'sweeps without end')
    }
  }
}

const steps = fc.array(step, { maxLength: 60, size: 'max' })

function taken(steps: readonly Step[]): Run {
  const run = new Run()
  for (const step of steps) run.take(step)
  return run
}

describe('a shard under random calls', () => {
  it('answers as a Map would that forgets at the millisecond; sweeps and repeated writes are invisible', () =>
    fc.assert(
      fc.property(steps, steps => {
        const run = taken(steps)
        run.checkCounts()
        run.settle()
        run.checkCounts()
        run.model.call('TYPE', names.slice(0, 1))
        assert.equal(run.shard.call('DBSIZE'), run.model.keys.size)
      }),
      { numRuns: 1500 },
    ))

  it('leaves no row behind when all keys are deleted and the hour of its sessions is over', () =>
    fc.assert(
      fc.property(steps, steps => {
        const run = taken(steps)
        run.shard.call('DEL', ...names)
        run.shard.nowMs += 3_600_000 + 1_000_000
        run.settle()
        const left = Object.keys(run.shard.dump()).filter(row => row[0] !== prefixes.clock)
        assert.deepEqual([left, run.shard.machine.nextExpiry()], [[], null])
      }),
      { numRuns: 400 },
    ))

  it('has the same rows on every replica, also on one that restarts between entries', () =>
    fc.assert(
      fc.property(steps, steps => {
        const { shard } = taken(steps)
        const rows = new MemoryRows()
        const restarting = new MemoryRows()
        const machine = new StateMachine(rows, commands)
        for (const [i, entry] of shard.entries.entries()) {
          const answer = machine.apply(i + 1, entry)
          assert.deepEqual(new StateMachine(restarting, commands).apply(i + 1, entry), answer)
        }
        const all = (rows: MemoryRows) => [...rows.range('', '\u00ff')]
        assert.deepEqual(all(rows), all(shard.rows))
        assert.deepEqual(all(restarting), all(shard.rows))
      }),
      { numRuns: 400 },
    ))
})
