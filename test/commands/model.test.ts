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
interface Entry {
  expiresAt: number
  value: string | Map<string, { value: string; expiresAt: number }>
}

const never = Number.POSITIVE_INFINITY

class Model {
  nowMs: number
  readonly keys = new Map<string, Entry>()

  constructor(nowMs: number) {
    this.nowMs = nowMs
  }

  private expire(): void {
    for (const [key, { value, expiresAt }] of this.keys) {
      if (typeof value !== 'string')
        for (const [field, { expiresAt }] of value) if (expiresAt <= this.nowMs) value.delete(field)
      if (expiresAt <= this.nowMs || (typeof value !== 'string' && value.size === 0)) this.keys.delete(key)
    }
  }

  private string(key: string): string | undefined {
    const value = this.keys.get(key)?.value
    if (value instanceof Map) throw 'WRONG_TYPE'
    return value
  }

  private hash(key: string): Map<string, { value: string; expiresAt: number }> | undefined {
    const value = this.keys.get(key)?.value
    if (typeof value === 'string') throw 'WRONG_TYPE'
    return value
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
        if (isMet) this.keys.set(k, { value: first!, expiresAt })
        return options.includes('GET') ? (old ?? null) : isMet
      }
      case 'INCRBY': {
        const old = this.string(k) ?? '0'
        if (!/^(0|-?[1-9][0-9]*)$/.test(old)) throw 'NOT_INTEGER'
        const sum = Number(old) + Number(first)
        this.keys.set(k, { value: `${sum}`, expiresAt: entry?.expiresAt ?? never })
        return sum
      }
      case 'MSET':
        this.keys.set(k, { value: first!, expiresAt: never })
        this.keys.set(second!, { value: third!, expiresAt: never })
        return true
      case 'MGET':
        return [k, ...args].map(name => {
          const value = this.keys.get(name)?.value
          return typeof value === 'string' ? value : null
        })
      case 'DEL':
        return [k, ...args].filter(name => this.keys.delete(name)).length
      case 'EXISTS':
        return [k, ...args].filter(name => this.keys.has(name)).length
      case 'TYPE':
        return entry === undefined ? 'none' : typeof entry.value === 'string' ? 'string' : 'hash'
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
        const hash = this.hash(k) ?? new Map<string, { value: string; expiresAt: number }>()
        let created = 0
        for (let i = 0; i + 1 < args.length; i += 2) {
          if (!hash.has(args[i]!)) created++
          const expiresAt = args.length === 3 ? this.nowMs + Number(third) * 1000 : never
          hash.set(args[i]!, { value: args[i + 1]!, expiresAt })
        }
        this.keys.set(k, { value: hash, expiresAt: entry?.expiresAt ?? never })
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
      default:
        throw new Error(name)
    }
  }

  private fields(key: string) {
    return [...(this.hash(key) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
  }
}

const key = fc.constantFrom('a', 'b', 'c')
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
const call = fc.oneof(
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
        for (const name of ['GET', 'TYPE', 'PTTL', 'HLEN', 'HGETALL'])
          for (const key of ['a', 'b', 'c'])
            assert.deepEqual(this.read(name, [key]), this.model.call(name, [key]), `${name} ${key}`)
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
      if (header.type !== 'hash') continue
      assert.equal(header.fields, count(prefixes.field + header.generation))
      assert.equal(header.expiringFields, count(prefixes.fieldDue + header.generation))
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
        run.model.call('GET', ['a'])
        assert.equal(run.shard.call('DBSIZE'), run.model.keys.size)
      }),
      { numRuns: 4000 },
    ))

  it('leaves no row behind when all keys are deleted and the hour of its sessions is over', () =>
    fc.assert(
      fc.property(steps, steps => {
        const run = taken(steps)
        run.shard.call('DEL', 'a', 'b', 'c')
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
