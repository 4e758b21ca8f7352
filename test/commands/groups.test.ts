import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { DescribedGroup } from '../../src/commands/group-describe.ts'
import { readMembership } from '../../src/commands/groups.ts'
import type { Partition } from '../../src/keyspace/group-rows.ts'
import { limits } from '../../src/keyspace/limits.ts'
import { plain, refusal, Shard } from './shard.ts'

const second = 1_000
const timeoutMs = 30 * second
const orders = 7

interface Told {
  readonly generation: number
  readonly assigned: string
  readonly revoked: string
}

/** A shard with a group `billing` of members who read stream 7. */
class Fixture extends Shard {
  /** The partitions as text: `0 1 2`, of other streams `9/0`. */
  private told(name: string, ...args: string[]): Told {
    const applied = this.applyOperations([this.operation(name, ...args)])
    if (applied.kind === 'refused') throw applied.error
    const { generation, assigned, revoked } = readMembership(plain(applied.replies[0]!) as [string, string][])
    const text = (partitions: readonly Partition[]) =>
      partitions
        .map(({ stream, partition }) => (stream === orders ? `${partition}` : `${stream}/${partition}`))
        .join(' ')
    return { generation, assigned: text(assigned), revoked: text(revoked) }
  }

  join(member: string, { strategy = 'sticky', reads = [[orders, 4]], timeout = timeoutMs } = {}): Told {
    return this.told('GROUP.JOIN', 'billing', member, `${timeout}`, strategy, ...reads.flat().map(String))
  }

  beat(member: string, generation: number): Told {
    return this.told('GROUP.HEARTBEAT', 'billing', member, `${generation}`)
  }

  commit(member: string, generation: number, partition: number, offset: number) {
    return this.call(
      'GROUP.COMMIT',
      'billing',
      member,
      `${generation}`,
      `${orders}`,
      `${partition}`,
      `${offset}`,
    )
  }

  reset(...args: string[]) {
    return this.call('GROUP.RESET', 'billing', ...args)
  }

  get offsets() {
    return this.call('GROUP.OFFSETS', 'billing')
  }

  get group(): DescribedGroup {
    return JSON.parse(this.call('GROUP.DESCRIBE', 'billing') as string)
  }

  get members(): string {
    return this.group.members.map(({ member }) => member).join(' ')
  }

  /** As the leader does: time goes on, and what is due then is swept on time. */
  wait(ms: number): void {
    const until = this.nowMs + ms
    for (;;) {
      const due = this.machine.nextExpiry()
      if (due === null || due > until) break
      this.nowMs = Math.max(this.nowMs, due)
      this.sweep()
    }
    this.nowMs = until
  }
}

describe('a member of a consumer group', () => {
  it('has all partitions while it is alone', () =>
    assert.deepEqual(new Fixture().join('a'), { generation: 1, assigned: '0 1 2 3', revoked: '' }))

  it('keeps what stays its own, and gives up the rest before another has it', () => {
    const shard = new Fixture()
    shard.join('a')
    assert.deepEqual(shard.join('b'), { generation: 2, assigned: '', revoked: '' })
    assert.deepEqual(shard.beat('a', 1), { generation: 2, assigned: '0 1', revoked: '2 3' })
    assert.deepEqual(shard.beat('b', 2).assigned, '')
    assert.equal(shard.group.state, 'moving')
    assert.deepEqual(shard.beat('a', 2), { generation: 2, assigned: '0 1', revoked: '' })
    assert.deepEqual(shard.beat('b', 2), { generation: 2, assigned: '2 3', revoked: '' })
    assert.equal(shard.group.state, 'stable')
  })

  it('commits all the while: under its old generation what it gives up, under either what it keeps', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    shard.beat('a', 1)
    for (const [generation, partition] of [
      [1, 0],
      [2, 0],
      [1, 3],
    ] as const)
      assert.equal(shard.commit('a', generation, partition, 10 * generation), true)
    assert.throws(() => shard.commit('a', 2, 3, 20), /is this member's from generation 1 to 1/)
    shard.beat('a', 2)
    assert.throws(() => shard.commit('a', 2, 3, 20), /partition 3 of stream 7 is not this member's/)
    assert.deepEqual(shard.offsets, [
      ['7 0', '20'],
      ['7 3', '10'],
    ])
  })

  it('leaves its partitions to the others at once', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    shard.beat('a', 2)
    assert.equal(shard.call('GROUP.LEAVE', 'billing', 'a', '2'), true)
    assert.deepEqual(shard.beat('b', 2), { generation: 3, assigned: '0 1 2 3', revoked: '' })
    assert.equal(shard.call('GROUP.LEAVE', 'billing', 'a', '2'), false)
    assert.throws(() => shard.beat('a', 2), refusal('NO_SUCH_MEMBER'))
    assert.throws(() => shard.commit('a', 2, 0, 1), refusal('NO_SUCH_MEMBER'))
  })

  it('is taken out when it is silent for its timeout, and no sooner', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b', { timeout: 60 * second })
    shard.wait(20 * second)
    shard.beat('a', 1)
    shard.wait(timeoutMs - 1)
    assert.equal(shard.members, 'a b')
    shard.wait(1)
    assert.equal(shard.members, 'b')
    assert.equal(shard.beat('b', 2).assigned, '0 1 2 3')
    assert.throws(() => shard.commit('a', 1, 0, 5), refusal('NO_SUCH_MEMBER'))
  })

  it('is taken out when it acknowledges a revocation to nobody’s profit for five minutes', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    for (let waited = 0; waited < limits.groupRevokeMs; waited += 10 * second) {
      assert.equal(shard.beat('a', 1).revoked, '2 3')
      assert.equal(shard.beat('b', 2).assigned, '')
      shard.wait(10 * second)
    }
    assert.equal(shard.members, 'b')
    assert.equal(shard.beat('b', 2).assigned, '0 1 2 3')
  })

  it('is given time to be heard when the shard could not hear it', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    // No leader for an hour: the sweep is an hour late.
    shard.nowMs += 3_600 * second
    shard.sweep()
    assert.equal(shard.members, 'a b')
    shard.nowMs += 5 * second
    shard.beat('a', 1)
    shard.wait(5 * second)
    assert.equal(shard.members, 'a')
    // And once only: late sweeps alone keep nobody.
    shard.join('b')
    shard.nowMs += 3_600 * second
    shard.sweep()
    shard.nowMs += 3_600 * second
    shard.sweep()
    assert.equal(shard.members, '')
  })

  it('begins anew when it joins again: what is sent under its name from before is old', () => {
    const shard = new Fixture()
    shard.join('a')
    assert.deepEqual(shard.join('a'), { generation: 2, assigned: '0 1 2 3', revoked: '' })
    assert.throws(() => shard.commit('a', 1, 0, 5), refusal('STALE_GENERATION'))
    assert.throws(() => shard.beat('a', 1), refusal('STALE_GENERATION'))
    assert.throws(() => shard.call('GROUP.LEAVE', 'billing', 'a', '1'), refusal('STALE_GENERATION'))
    assert.equal(shard.commit('a', 2, 0, 5), true)
  })

  it('gives up what it held when it joins again', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    assert.equal(shard.join('a').assigned, '0 1')
    assert.equal(shard.beat('b', 3).assigned, '2 3')
  })

  it('keeps a revoked partition that comes back to it before it was given up', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    assert.equal(shard.beat('a', 1).revoked, '2 3')
    shard.call('GROUP.LEAVE', 'billing', 'b')
    assert.deepEqual(shard.beat('a', 2), { generation: 3, assigned: '0 1 2 3', revoked: '' })
    assert.equal(shard.commit('a', 2, 3, 5), true)
  })

  it('acknowledges an older revocation while newer generations are made', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    shard.beat('a', 1)
    shard.join('c', { reads: [[9, 1]] })
    shard.beat('a', 2)
    assert.equal(shard.beat('b', 2).assigned, '2 3')
  })

  it('that says a generation that never was is refused', () => {
    const shard = new Fixture()
    shard.join('a')
    assert.throws(() => shard.beat('a', 2), {
      ...refusal('STALE_GENERATION'),
      message: /generation 2 of member "a" is not current in group "billing", 1 is: it never was/,
    })
    assert.throws(() => shard.commit('a', 2, 0, 1), refusal('STALE_GENERATION'))
  })

  it('reads what it asks for, of several streams', () => {
    const shard = new Fixture()
    shard.join('a', {
      reads: [
        [orders, 2],
        [9, 2],
      ],
      strategy: 'range',
    })
    shard.join('b', { reads: [[9, 2]], strategy: 'range' })
    assert.deepEqual(shard.beat('a', 1), { generation: 2, assigned: '0 1 9/0', revoked: '9/1' })
    shard.beat('a', 2)
    assert.equal(shard.beat('b', 2).assigned, '9/1')
    // It reads the second stream no more.
    assert.equal(shard.join('a', { reads: [[orders, 2]], strategy: 'range' }).assigned, '0 1')
    assert.equal(shard.beat('b', 3).assigned, '9/0 9/1')
  })
})

describe('a commit', () => {
  it('never takes an offset back, and says nothing of it', () => {
    const shard = new Fixture()
    shard.join('a')
    for (const offset of [5, 9, 7, 0]) shard.commit('a', 1, 0, offset)
    assert.deepEqual(shard.offsets, [['7 0', '9']])
  })

  it('is all or nothing', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    shard.beat('a', 2)
    const before = shard.dump()
    assert.throws(
      () => shard.call('GROUP.COMMIT', 'billing', 'a', '2', '7', '0', '5', '7', '3', '5'),
      refusal('STALE_GENERATION'),
    )
    assert.deepEqual({ ...shard.dump(), cclock: '' }, { ...before, cclock: '' })
  })

  it('is refused in a group or of a member that is not there', () => {
    const shard = new Fixture()
    assert.throws(() => shard.commit('a', 1, 0, 1), refusal('NO_SUCH_GROUP'))
    shard.join('b')
    assert.throws(() => shard.commit('a', 1, 0, 1), {
      ...refusal('NO_SUCH_MEMBER'),
      message: '"a" is not, or not any more, a member of group "billing": join again',
    })
  })
})

describe('a reset', () => {
  it('sets offsets where it likes, and forgets them', () => {
    const shard = new Fixture()
    shard.reset('7', '0', '50', '7', '1', '3')
    shard.reset('7', '0', '20', '7', '1', 'none')
    assert.deepEqual(shard.offsets, [['7 0', '20']])
    assert.equal(shard.group.state, 'empty')
    assert.deepEqual(
      shard.group.offsets.map(({ offset, generation }) => [offset, generation]),
      [[20, 2]],
    )
  })

  it('is refused while a member has the partition, and forced by taking such members out', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('b')
    shard.beat('a', 2)
    shard.commit('a', 2, 0, 50)
    assert.throws(() => shard.reset('7', '0', '20'), refusal('GROUP_ACTIVE'))
    shard.reset('force', '7', '0', '20')
    assert.deepEqual(shard.offsets, [['7 0', '20']])
    assert.equal(shard.members, 'b')
    assert.throws(() => shard.commit('a', 2, 0, 60), refusal('NO_SUCH_MEMBER'))
  })
})

describe('a consumer group', () => {
  it('keeps its offsets for 30 days without members, then goes', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.commit('a', 1, 0, 5)
    shard.call('GROUP.LEAVE', 'billing', 'a')
    assert.equal(shard.group.expiresAtMs, shard.nowMs + limits.groupEmptyMs)
    shard.wait(limits.groupEmptyMs - 1)
    assert.deepEqual(shard.offsets, [['7 0', '5']])
    shard.wait(1)
    assert.throws(() => shard.group, refusal('NO_SUCH_GROUP'))
    shard.sweep()
    const left = Object.keys(shard.dump()).filter(row => row[0] !== 'c')
    assert.deepEqual(left, [])
  })

  it('never uses a generation twice, though it was deleted between', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.join('a')
    assert.throws(() => shard.call('GROUP.DELETE', 'billing'), refusal('GROUP_ACTIVE'))
    assert.equal(shard.call('GROUP.DELETE', 'billing', 'FORCE'), true)
    assert.equal(shard.call('GROUP.DELETE', 'billing'), false)
    assert.equal(shard.join('a').generation, 3)
    assert.throws(() => shard.commit('a', 2, 0, 5), refusal('STALE_GENERATION'))
    assert.deepEqual(shard.offsets, [])
  })

  it('takes its strategy from whom it is empty for, and refuses another', () => {
    const shard = new Fixture()
    shard.join('a', { strategy: 'range' })
    assert.throws(() => shard.join('b', { strategy: 'sticky' }), refusal('GROUP_STRATEGY'))
    shard.call('GROUP.LEAVE', 'billing', 'a')
    shard.join('b', { strategy: 'sticky' })
    assert.equal(shard.group.strategy, 'sticky')
  })

  it('is listed by name, and with a stream by who reads it or has an offset of it', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.call('GROUP.RESET', 'audit', '9', '0', '1')
    shard.call('GROUP.JOIN', 'x', 'm', '30000', 'range', '9', '1')
    assert.deepEqual(shard.call('GROUP.LIST'), [
      ['audit', '0 1'],
      ['billing', '1 1'],
      ['x', '1 1'],
    ])
    assert.deepEqual(shard.call('GROUP.LIST', '9'), [
      ['audit', '0 1'],
      ['x', '1 1'],
    ])
  })

  it('is described with members, what they have, and offsets', () => {
    const shard = new Fixture()
    shard.join('a')
    shard.commit('a', 1, 2, 5)
    shard.join('b')
    const now = shard.nowMs
    const common = { joinedMs: now, lastHeartbeatMs: now, timeoutMs, reads: [{ stream: 7, partitions: 4 }] }
    assert.deepEqual(shard.group, {
      generation: 2,
      strategy: 'sticky',
      state: 'moving',
      expiresAtMs: null,
      members: [
        {
          member: 'a',
          generation: 1,
          ...common,
          assigned: [{ stream: 7, partitions: [0, 1] }],
          revoked: [{ stream: 7, partitions: [2, 3] }],
          awaited: [],
        },
        {
          member: 'b',
          generation: 2,
          ...common,
          assigned: [],
          revoked: [],
          awaited: [{ stream: 7, partitions: [2, 3] }],
        },
      ],
      offsets: [{ stream: 7, partition: 2, offset: 5, generation: 1, committedMs: now }],
    })
  })

  it('is no key, and shares its name with one', () => {
    const shard = new Fixture()
    shard.call('SET', 'billing', 'x')
    shard.join('a')
    assert.equal(shard.call('DEL', 'billing'), 1)
    assert.equal(shard.call('DBSIZE'), 0)
    assert.equal(shard.members, 'a')
  })
})

describe('limits of groups', () => {
  it('are 256 members a group', () => {
    const shard = new Fixture()
    for (let member = 0; member < limits.groupMembersMax; member++) shard.join(`m${member}`)
    assert.throws(() => shard.join('one more'), refusal('GROUP_FULL'))
    assert.equal(shard.join('m7').assigned, '')
  })

  it('are 4,096 partitions that a group reads', () => {
    const shard = new Fixture()
    shard.join('a', { reads: [[orders, 4_000]] })
    const before = shard.dump()
    assert.throws(() => shard.join('b', { reads: [[9, 97]] }), refusal('GROUP_FULL'))
    assert.deepEqual({ ...shard.dump(), cclock: '' }, { ...before, cclock: '' })
    shard.join('b', { reads: [[9, 96]] })
  })

  it('are 1,000 groups a shard', () => {
    const shard = new Fixture()
    for (let group = 0; group < limits.groupsMax; group++)
      shard.call('GROUP.RESET', `g${group}`, '1', '0', '0')
    assert.throws(() => shard.join('a'), refusal('GROUP_FULL'))
    shard.call('GROUP.DELETE', 'g0')
    shard.join('a')
  })
})

describe('the door for calls of groups', () => {
  const refused: [code: string, ...call: string[]][] = [
    ['EMPTY_KEY', 'GROUP.JOIN', '', 'm', '30000', 'range', '1', '1'],
    ['EMPTY_KEY', 'GROUP.JOIN', 'g', '', '30000', 'range', '1', '1'],
    ['TOO_LARGE', 'GROUP.JOIN', 'g'.repeat(256), 'm', '30000', 'range', '1', '1'],
    ['TOO_LARGE', 'GROUP.HEARTBEAT', 'g', 'm'.repeat(256), '1'],
    ['INVALID_ARGUMENT', 'GROUP.DESCRIBE', 'a\u0000b'],
    ['INVALID_ARGUMENT', 'GROUP.DESCRIBE', 'a\u007f'],
    ['INVALID_ARGUMENT', 'GROUP.JOIN', 'g', 'm', '999', 'range', '1', '1'],
    ['INVALID_ARGUMENT', 'GROUP.JOIN', 'g', 'm', '3600001', 'range', '1', '1'],
    ['INVALID_ARGUMENT', 'GROUP.JOIN', 'g', 'm', '30000', 'fair', '1', '1'],
    ['INVALID_ARGUMENT', 'GROUP.JOIN', 'g', 'm', '30000', 'range', '-1', '1'],
    ['INVALID_ARGUMENT', 'GROUP.JOIN', 'g', 'm', '30000', 'range', '1', '0'],
    ['INVALID_ARGUMENT', 'GROUP.JOIN', 'g', 'm', '30000', 'range', '1', '4097'],
    ['INVALID_ARGUMENT', 'GROUP.JOIN', 'g', 'm', '30000', 'range', '1', '1', '1', '2'],
    ['WRONG_ARITY', 'GROUP.JOIN', 'g', 'm', '30000', 'range', '1', '1', '2'],
    ['INVALID_ARGUMENT', 'GROUP.HEARTBEAT', 'g', 'm', '0'],
    ['INVALID_ARGUMENT', 'GROUP.COMMIT', 'g', 'm', '1', '1', '0', '-1'],
    ['INVALID_ARGUMENT', 'GROUP.COMMIT', 'g', 'm', '1', '1', '0', '9007199254740992'],
    ['INVALID_ARGUMENT', 'GROUP.COMMIT', 'g', 'm', '1', '1', '0', '1', '1', '0', '2'],
    ['WRONG_ARITY', 'GROUP.COMMIT', 'g', 'm', '1', '1', '0', '1', '1'],
    ['WRONG_ARITY', 'GROUP.RESET', 'g', 'FORCE', '1', '0'],
    ['SYNTAX', 'GROUP.DELETE', 'g', 'NOW'],
    ['INVALID_ARGUMENT', 'GROUP.LIST', 'orders'],
  ]
  for (const [code, name, ...args] of refused)
    it(`refuses ${name} ${args
      .join(' ')
      .slice(0, 40)
      .replaceAll(/[^ -~]/g, '?')} with ${code}`, () => {
      const shard = new Shard()
      assert.throws(() => shard.call(name!, ...args), refusal(code))
      assert.equal(shard.rows.size, 0)
    })
})
