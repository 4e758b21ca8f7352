import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { prepareOperation } from '../../src/commands/envelope.ts'
import type { DescribedGroup } from '../../src/commands/group-describe.ts'
import { readMembership } from '../../src/commands/groups.ts'
import { StateMachine } from '../../src/commands/machine.ts'
import { commands, parseCall } from '../../src/commands/table.ts'
import { isError } from '../../src/errors.ts'
import type { Membership } from '../../src/keyspace/groups.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { Prng } from '../../src/lib/prng.ts'
import { plain, Shard } from './shard.ts'

/**
 * Consumers that keep to the protocol, some of them dead, paused or doubled, against one group, on one moving clock with
 * sweeps on time and late. What is asked of every history:
 *
 * - in one generation commits of a partition are taken from one consumer only;
 * - of consumers that the group counts as members no two read a partition at a time;
 * - committed offsets never go back but by a reset; generations never go back at all;
 * - once those who are alive have acknowledged, every partition that somebody reads is owned once, evenly, nobody
 *   starving;
 * - another machine that is given the same entries has the same rows.
 */
const timeoutMs = 10_000
const streamSizes = [5, 3]
const groupName = 'g'

class World extends Shard {
  readonly strategy: string
  readonly consumers: Consumer[] = []
  /** partition and generation → who committed. */
  readonly committers = new Map<string, Consumer>()
  private offsets = new Map<string, number>()
  private generation = 0

  constructor(strategy: string) {
    super()
    this.strategy = strategy
  }

  /** null = refused with one of `codes`. */
  ask(codes: readonly string[], name: string, ...args: string[]): Membership | null | true {
    const { command, args: parsed } = parseCall(
      name,
      args.map(arg => Buffer.from(arg)),
    )
    const operation = prepareOperation(command, parsed, { wallMs: this.nowMs, random: new Prng(1) })
    const applied = this.applyOperations([operation])
    if (applied.kind === 'refused') {
      assert.ok(codes.includes(applied.error.code), applied.error.message)
      return null
    }
    const [reply] = applied.replies
    if (reply?.kind !== 'list') return true
    const told = readMembership(plain(reply) as [string, string][])
    assert.ok(told.generation >= this.generation, 'a generation went back')
    this.generation = told.generation
    return told
  }

  /** The due sweep of a shard that has a leader. */
  advance(ms: number): void {
    const until = this.nowMs + ms
    for (;;) {
      const due = this.machine.nextExpiry()
      if (due === null || due > until) break
      this.nowMs = Math.max(this.nowMs, due)
      this.sweep()
    }
    this.nowMs = until
  }

  get group(): DescribedGroup | null {
    try {
      return JSON.parse(this.call('GROUP.DESCRIBE', groupName) as string)
    } catch (error) {
      if (isError(error, 'NO_SUCH_GROUP')) return null
      throw error
    }
  }

  check(isReset: boolean): void {
    const { group } = this
    const owned = new Map<string, string>()
    for (const { member, assigned, revoked, awaited } of group?.members ?? []) {
      for (const { stream, partitions } of [...assigned, ...revoked])
        for (const partition of partitions) {
          assert.equal(owned.get(`${stream}/${partition}`), undefined, 'two members have a partition')
          owned.set(`${stream}/${partition}`, member)
        }
      for (const { stream, partitions } of awaited)
        for (const partition of partitions)
          assert.ok(
            group!.members.some(
              other =>
                other.member !== member &&
                other.revoked.some(held => held.stream === stream && held.partitions.includes(partition)),
            ),
            'a partition is awaited from nobody',
          )
    }
    const readers = new Map<string, Consumer>()
    for (const consumer of this.consumers) {
      if (!consumer.isCountedIn(group)) continue
      for (const partition of consumer.reading) {
        assert.equal(readers.get(partition), undefined, `two read ${partition}`)
        assert.equal(owned.get(partition), consumer.id, `${consumer.id} reads what it does not have`)
        readers.set(partition, consumer)
      }
    }
    const offsets = new Map(group?.offsets.map(row => [`${row.stream}/${row.partition}`, row.offset]))
    if (!isReset)
      for (const [partition, offset] of this.offsets)
        assert.ok((offsets.get(partition) ?? -1) >= offset, `the offset of ${partition} went back`)
    this.offsets = offsets
  }
}

const gone = ['NO_SUCH_MEMBER', 'NO_SUCH_GROUP']
const over = [...gone, 'STALE_GENERATION']

/** A client as S1's node is: it hears of generations from answers, which may get lost, and acts when it comes to it. */
class Consumer {
  readonly world: World
  readonly id: string
  readonly reads: readonly number[]
  /** 0 = it is not a member, or does not think so. */
  adopted = 0
  joinedAt = 0
  reading = new Set<string>()
  private told: Membership | null = null

  constructor(world: World, id: string, reads: readonly number[]) {
    this.world = world
    this.id = id
    this.reads = reads
  }

  /** What it may have, had, or is about to have, as far as it was told. */
  get known(): string[] {
    const told = [...(this.told?.assigned ?? []), ...(this.told?.revoked ?? [])]
    return [...this.reading, ...told.map(({ stream, partition }) => `${stream}/${partition}`)]
  }

  /** The group has it for a member in this life of it. */
  isCountedIn(group: DescribedGroup | null): boolean {
    const member = group?.members.find(({ member }) => member === this.id)
    if (member === undefined || this.adopted === 0) return false
    return this.world.consumers.findLast(({ id, joinedAt }) => id === this.id && joinedAt > 0) === this
  }

  private hear(told: Membership | null | true, isLost: boolean): void {
    if (told === null || told === true) {
      this.forget()
      return
    }
    if (!isLost) this.told = told
  }

  forget(): void {
    this.adopted = 0
    this.reading.clear()
    this.told = null
  }

  join(): void {
    const streams = this.reads.flatMap(stream => [`${stream}`, `${streamSizes[stream]}`])
    this.forget()
    const told = this.world.ask(
      [],
      'GROUP.JOIN',
      groupName,
      this.id,
      `${timeoutMs}`,
      this.world.strategy,
      ...streams,
    ) as Membership
    this.adopted = told.generation
    this.joinedAt = this.world.entries.length
    this.told = told
    this.adopt()
  }

  beat(isLost: boolean): void {
    if (this.adopted === 0) return
    this.hear(this.world.ask(over, 'GROUP.HEARTBEAT', groupName, this.id, `${this.adopted}`), isLost)
  }

  /** Stops what is revoked, starts what is new. */
  adopt(): void {
    if (this.told === null) return
    this.adopted = this.told.generation
    this.reading = new Set(this.told.assigned.map(({ stream, partition }) => `${stream}/${partition}`))
    this.told = null
  }

  leave(): void {
    if (this.adopted !== 0) this.world.ask(over, 'GROUP.LEAVE', groupName, this.id, `${this.adopted}`)
    this.forget()
  }

  /** What it reads by what it believes; or, as a broken one would, anything under any generation. */
  commit(partition: string, offset: number, generation = this.adopted): void {
    if (this.adopted === 0) return
    const [stream, number] = partition.split('/') as [string, string]
    const { world } = this
    const wasCounted = this.isCountedIn(world.group)
    const taken = world.ask(
      over,
      'GROUP.COMMIT',
      groupName,
      this.id,
      `${generation}`,
      stream,
      number,
      `${offset}`,
    )
    if (taken === null) {
      assert.ok(
        !wasCounted || generation !== this.adopted || !this.reading.has(partition),
        'a member that reads a partition under its generation was refused',
      )
      return
    }
    const at = `${partition}@${generation}`
    const other = world.committers.get(at)
    assert.ok(other === undefined || other === this, `two committed ${at}`)
    world.committers.set(at, this)
  }
}

const kinds = [
  ['join', 10],
  ['beat', 16],
  ['adopt', 12],
  ['round', 6],
  ['lost beat', 2],
  ['commit', 12],
  ['wild commit', 16],
  ['leave', 2],
  ['crash', 2],
  ['double', 2],
  ['wake', 4],
  ['wait', 8],
  ['outage', 1],
  ['reset', 1],
  ['delete', 1],
] as const

interface Step {
  readonly kind: (typeof kinds)[number][0]
  readonly who: number
  readonly value: number
}

const steps = fc.array(
  fc.record({
    kind: fc.oneof(...kinds.map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind) }))),
    who: fc.nat(4),
    value: fc.nat(9_999),
  }),
  { maxLength: 300, size: 'max' },
)

/** The streams that each of the five reads. */
const interests = fc.oneof(
  fc.constant([
    [0, 1],
    [0, 1],
    [0, 1],
    [0, 1],
    [0, 1],
  ]),
  fc.tuple(...Array.from({ length: 5 }, () => fc.constantFrom([0], [1], [0, 1]))),
)

function partitionOf(value: number): string {
  const stream = value % streamSizes.length
  return `${stream}/${Math.floor(value / 7) % streamSizes[stream]!}`
}

function take(world: World, alive: Consumer[], step: Step): boolean {
  const { who, value } = step
  const consumer = alive[who]!
  switch (step.kind) {
    case 'join':
      if (consumer.adopted === 0) consumer.join()
      return false
    case 'beat':
      consumer.beat(false)
      return false
    case 'round':
      // Everybody does what it should, and reads on.
      for (const each of [...alive, ...alive]) {
        each.beat(false)
        each.adopt()
        for (const partition of each.reading) each.commit(partition, value)
      }
      return false
    case 'wake': {
      // One that was taken for dead goes on where it stood.
      const before = world.consumers.filter(({ id }) => id === consumer.id)
      const old = before[value % before.length]!
      for (const partition of [...old.reading]) old.commit(partition, value)
      old.beat(value % 3 === 0)
      return false
    }
    case 'lost beat':
      consumer.beat(true)
      return false
    case 'adopt':
      consumer.adopt()
      return false
    case 'leave':
      consumer.leave()
      return false
    case 'commit': {
      const mine = [...consumer.reading]
      if (mine.length > 0) consumer.commit(mine[value % mine.length]!, value)
      return false
    }
    case 'wild commit': {
      const known = [...consumer.known, partitionOf(value)]
      const newest = world.group?.generation ?? 0
      const generation = value % 2 === 0 ? newest : consumer.adopted + (value % 5) - 2
      consumer.commit(known[value % known.length]!, value, Math.max(1, generation))
      return false
    }
    case 'crash':
    case 'double': {
      // The old one stays in the world: paused, it may wake and act on what it believed. A double comes back at once.
      const next = new Consumer(world, consumer.id, consumer.reads)
      world.consumers.push(next)
      alive[who] = next
      if (step.kind === 'double') {
        const mine = [...consumer.reading]
        next.join()
        if (mine.length > 0) consumer.commit(mine[value % mine.length]!, value)
        consumer.beat(false)
      }
      return false
    }
    case 'wait':
      world.advance(Math.floor(value / 4))
      return false
    case 'outage':
      world.nowMs += 10 * value
      return false
    case 'reset': {
      const [stream, partition] = partitionOf(value).split('/') as [string, string]
      world.ask([], 'GROUP.RESET', groupName, 'FORCE', stream, partition, `${value % 100}`)
      return true
    }
    case 'delete':
      if (value % 3 > 0) return false
      world.ask([], 'GROUP.DELETE', groupName, 'FORCE')
      return true
  }
}

function settle(world: World, alive: readonly Consumer[]): void {
  world.advance(3 * timeoutMs)
  for (const consumer of alive) consumer.forget()
  for (const consumer of alive) if (consumer !== alive[0]) consumer.join()
  for (let round = 0; round < 4; round++) {
    world.advance(timeoutMs / 4)
    for (const consumer of alive) {
      consumer.beat(false)
      consumer.adopt()
      world.check(false)
    }
  }
  const group = world.group!
  assert.equal(group.state, 'stable')
  const loads = new Map<string, number>(group.members.map(({ member }) => [member, 0]))
  const owned: string[] = []
  for (const { member, assigned, reads } of group.members)
    for (const { stream, partitions } of assigned) {
      assert.ok(reads.some(read => read.stream === stream))
      owned.push(...partitions.map(partition => `${stream}/${partition}`))
      loads.set(member, loads.get(member)! + partitions.length)
    }
  const wanted = streamSizes.flatMap((size, stream) =>
    group.members.some(({ reads }) => reads.some(read => read.stream === stream))
      ? Array.from({ length: size }, (_, partition) => `${stream}/${partition}`)
      : [],
  )
  assert.deepEqual(owned.sort(), wanted.sort())
  const isUniform = new Set(alive.slice(1).map(({ reads }) => reads.join())).size === 1
  if (world.strategy === 'sticky' && isUniform)
    assert.ok(Math.max(...loads.values()) - Math.min(...loads.values()) <= 1)
  for (const consumer of alive.slice(1)) {
    for (const partition of consumer.reading) consumer.commit(partition, 20_000)
    assert.equal(consumer.reading.size, loads.get(consumer.id))
  }
  world.check(false)
}

describe('any history of a consumer group', () => {
  for (const strategy of ['range', 'sticky'])
    it(`holds by ${strategy}: one owner, offsets that only grow, all read in the end, replicas alike`, () =>
      fc.assert(
        fc.property(interests, steps, (reads, history) => {
          const world = new World(strategy)
          const alive = reads.map((streams, i) => new Consumer(world, `m${i}`, streams))
          world.consumers.push(...alive)
          for (const step of history) world.check(take(world, alive, step))
          settle(world, alive)
          const rows = new MemoryRows()
          const twin = new StateMachine(rows, commands)
          for (const [i, entry] of world.entries.entries()) twin.apply(i + 1, entry)
          assert.deepEqual([...rows.range('', '\u00ff')], [...world.rows.range('', '\u00ff')])
        }),
        { numRuns: 25 },
      ))
})
