import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Detector, defaultSettings } from '../../src/gossip/detector.ts'
import { type MemberRecord, noLoad } from '../../src/gossip/member.ts'
import { membersMax } from '../../src/gossip/view.ts'
import { Prng } from '../../src/lib/prng.ts'
import { Network, registration } from './network.ts'

const settings = { heartbeatIntervalMs: 1000, gossipPeerCount: 2, suspectAfterMs: 3000, deadAfterMs: 6000 }

function detector(count: number, now = 0): Detector {
  const made = new Detector({ ...registration(0), incarnation: 1 }, settings, new Prng(1), now)
  for (let i = 1; i < count; i++) made.register(registration(i))
  made.update({ state: 'alive' })
  return made
}

function report(index: number, changed: Partial<MemberRecord> = {}): MemberRecord {
  return {
    ...registration(index),
    load: noLoad,
    leads: [],
    incarnation: 1,
    heartbeat: 1,
    state: 'alive',
    ...changed,
  }
}

describe('Detector', () => {
  it('raises its heartbeat and names the wanted number of distinct members an interval', () => {
    const mine = detector(10)
    for (let second = 0; second < 3; second++) {
      const { probe } = mine.tick(second * 1000)
      assert.equal(new Set(probe).size, 2)
      assert.ok(!probe.includes('node0'))
      assert.equal(mine.payload()[0]!.heartbeat, second + 1)
    }
  })

  it('beats once an interval however often it ticks, and forgives a timer that is early', () => {
    const often = detector(10)
    let beats = 0
    for (let now = 0; now < 100_000; now += 100) beats += often.tick(now).probe.length > 0 ? 1 : 0
    assert.ok(beats === 100 || beats === 101, `${beats} beats in 100 intervals`)
    const jittery = detector(10)
    for (let second = 0; second < 20; second++) {
      assert.ok(jittery.tick(second * 1000 + (second % 2 === 0 ? 90 : -90) + 90).probe.length > 0)
    }
  })

  it('names each member about as often as any other', () => {
    const mine = detector(11)
    const counts = new Map<string, number>()
    for (let second = 0; second < 2000; second++) {
      for (let i = 1; i < 11; i++) mine.noteCall(`node${i}`, true)
      for (const nodeId of mine.tick(second * 1000).probe) counts.set(nodeId, (counts.get(nodeId) ?? 0) + 1)
    }
    assert.equal(counts.size, 10)
    for (const [nodeId, count] of counts) assert.ok(count > 330 && count < 470, `${nodeId}: ${count} of 400`)
  })

  it('suspects a silent member, then finds it dead, since then', () => {
    const mine = detector(2)
    mine.receive([report(1)], 0)
    assert.deepEqual(mine.tick(1000).changes, [])
    assert.deepEqual(mine.tick(2000).changes, [])
    assert.deepEqual(mine.tick(3000).changes, [
      { kind: 'state', nodeId: 'node1', from: 'alive', to: 'suspect' },
    ])
    for (const now of [4000, 5000]) assert.deepEqual(mine.tick(now).changes, [])
    assert.equal(mine.downSince('node1'), null)
    assert.deepEqual(mine.tick(6000).changes, [
      { kind: 'state', nodeId: 'node1', from: 'suspect', to: 'dead' },
    ])
    mine.tick(7000)
    assert.equal(mine.downSince('node1'), 6000)
    mine.receive([report(1, { heartbeat: 2 })], 7500)
    assert.equal(mine.downSince('node1'), null)
    assert.equal(mine.view.member('node1')!.state, 'alive')
  })

  it('takes a heartbeat heard from others for a sign of life, and its repetition not', () => {
    const mine = detector(3)
    for (let second = 0; second < 20; second++) {
      mine.receive(
        [report(1, { heartbeat: second }), report(2, { heartbeat: Math.min(second, 5) })],
        second * 1000,
      )
      mine.tick(second * 1000)
    }
    assert.equal(mine.view.member('node1')!.state, 'alive')
    assert.equal(mine.view.member('node2')!.state, 'dead')
  })

  it('does not take a message from the past for a sign of life', () => {
    const mine = detector(2)
    mine.receive([report(1, { heartbeat: 9 })], 0)
    for (let second = 1; second <= 3; second++) {
      mine.receive([report(1, { heartbeat: 3 })], second * 1000)
      mine.tick(second * 1000)
    }
    assert.equal(mine.view.member('node1')!.state, 'suspect')
  })

  it('marks nobody for a call that failed, and counts it', () => {
    const mine = detector(2)
    mine.receive([report(1)], 0)
    for (let i = 0; i < 50; i++) mine.noteCall('node1', false)
    assert.deepEqual(mine.tick(1000).changes, [])
    assert.equal(mine.failedCallsOf('node1'), 50)
    mine.noteCall('node1', true)
    assert.equal(mine.failedCallsOf('node1'), 0)
    mine.noteCall('stranger', false)
    assert.equal(mine.failedCallsOf('stranger'), 0)
  })

  it('probes the dead too, one an interval, and more where few live', () => {
    const mine = detector(10)
    let now = 0
    for (; now <= 6000; now += 1000) {
      mine.receive(
        [1, 2, 3].map(i => report(i, { heartbeat: now })),
        now,
      )
      mine.tick(now)
    }
    const isUp = (nodeId: string) => ['node1', 'node2', 'node3'].includes(nodeId)
    mine.receive(
      [1, 2, 3].map(i => report(i, { heartbeat: now })),
      now,
    )
    const { probe } = mine.tick(now)
    assert.equal(probe.filter(isUp).length, 2)
    assert.equal(probe.filter(nodeId => !isUp(nodeId)).length, 1)
    for (; now <= 20_000; now += 1000) mine.tick(now)
    assert.equal(mine.tick(now).probe.length, 3)
  })

  it('probes neither those who left nor anybody once it has left itself', () => {
    const mine = detector(2)
    mine.receive([report(1, { state: 'left' })], 0)
    assert.deepEqual(mine.tick(0), { probe: [], changes: [] })
    for (let second = 1; second < 20; second++) mine.tick(second * 1000)
    assert.equal(mine.view.member('node1')!.state, 'left')
    const leaver = detector(3)
    leaver.update({ state: 'left' })
    assert.deepEqual(leaver.tick(0).probe, [])
  })

  it('declares nobody dead after a pause of its own, and everybody gets a fresh grace', () => {
    const mine = detector(5)
    mine.receive(
      [1, 2, 3, 4].map(i => report(i)),
      0,
    )
    mine.tick(0)
    mine.tick(1000)
    mine.tick(2000)
    assert.deepEqual(mine.tick(62_000).changes, [])
    assert.deepEqual(mine.tick(64_000).changes, [])
    // Who is silent from then on is judged as ever.
    mine.tick(65_000)
    assert.equal(mine.tick(66_000).changes.length, 4)
  })

  it('counts a shorter gap of its own as its own, too', () => {
    const mine = detector(2)
    mine.receive([report(1)], 0)
    mine.tick(0)
    assert.deepEqual(mine.tick(2900).changes, [])
    assert.deepEqual(mine.tick(4100).changes, [])
    assert.equal(mine.tick(5000).changes.length, 1)
  })

  it('starts the clock of a member when it is registered', () => {
    const mine = detector(1)
    for (let second = 0; second <= 60; second++) mine.tick(second * 1000)
    mine.register(registration(1))
    assert.deepEqual(mine.tick(61_000).changes, [])
    assert.equal(mine.unregister('node1').length, 1)
    assert.equal(mine.tick(70_000).changes.length, 0)
  })

  it('answers strangers without adding them', () => {
    const mine = detector(2)
    assert.deepEqual(mine.receive([report(9), report(1)], 0), [
      { kind: 'ignored', nodeId: 'node9', why: 'unregistered' },
      { kind: 'state', nodeId: 'node1', from: 'joining', to: 'alive' },
    ])
    assert.deepEqual(
      mine.payload().map(each => each.nodeId),
      ['node0', 'node1'],
    )
  })

  it('reads a thousand records of a message and says that there were more', () => {
    const mine = detector(2)
    const many = Array.from({ length: membersMax + 5 }, () => report(1))
    assert.deepEqual(mine.receive(many, 0).at(-1), { kind: 'ignored', nodeId: 'node1', why: 'too-many' })
  })

  it('refuses settings that cannot work', () => {
    const make = (changed: object) =>
      new Detector({ ...registration(0), incarnation: 1 }, { ...settings, ...changed }, new Prng(1), 0)
    assert.throws(() => make({ gossipPeerCount: 0 }), /peer count/)
    assert.throws(() => make({ suspectAfterMs: 1000 }), /suspect after/)
    assert.throws(() => make({ deadAfterMs: 2000 }), /dead after/)
  })
})

/** Rounds in which news reaches everybody, with room for the unlucky: c × log₂ n. */
const rounds = (count: number) => 2 + Math.ceil(Math.log2(count))

for (const count of [3, 10, 100]) {
  describe(`a cluster of ${count} that gossips`, () => {
    const all = Array.from({ length: count }, (_, i) => i)

    it('agrees that all are alive within O(log n) rounds of its start', () => {
      const network = new Network(count, 7 * count)
      const taken = network.roundsUntil(() => network.agreeOn('alive'), rounds(count))
      assert.ok(taken !== -1, `not within ${rounds(count)} rounds`)
    })

    it('believes nobody dead at a loss of 20 % of all messages', () => {
      const network = new Network(count, 11 * count)
      network.loss = 0.2
      for (let round = 0; round < (count === 100 ? 120 : 2000); round++) network.round()
      assert.deepEqual(network.deaths(), [])
      // Requests and answers are lost on their own: a third of the calls fail.
      assert.ok(network.failedCalls / network.calls > 0.3 && network.failedCalls / network.calls < 0.42)
      const taken = network.roundsUntil(() => network.agreeOn('alive'), rounds(count))
      assert.ok(taken !== -1)
    })

    it('finds a member that stopped dead, and alive again when it resumes', () => {
      const network = new Network(count, 13 * count)
      network.roundsUntil(() => network.agreeOn('alive'), rounds(count))
      network.stop(1)
      const deadAfter = defaultSettings().deadAfterMs / network.interval
      const found = network.roundsUntil(() => network.agreeOn('dead', [1]), deadAfter + rounds(count))
      assert.ok(found >= deadAfter - rounds(count), `dead after ${found} rounds`)
      assert.ok(network.deaths().every(({ change }) => change.nodeId === 'node1'))
      network.resume(1)
      const back = network.roundsUntil(() => network.agreeOn('alive'), rounds(count))
      assert.ok(back !== -1, 'back in time')
      assert.ok(
        network.deaths().every(({ change }) => change.nodeId === 'node1'),
        'who slept for long declares nobody dead',
      )
    })

    it('heals a partition within O(log n) rounds, at 20 % loss', () => {
      const network = new Network(count, 17 * count)
      network.loss = 0.2
      network.roundsUntil(() => network.agreeOn('alive'), 3 * rounds(count))
      const side = (index: number) => index < count / 2
      network.connects = (from, to) => side(from) === side(to)
      for (let round = 0; round < 30; round++) network.round()
      for (const by of all) {
        for (const of of all) {
          const state = network.nodes[by]!.view.member(`node${of}`)!.state
          assert.equal(state, side(by) === side(of) ? 'alive' : 'dead', `node${of} as seen by node${by}`)
        }
      }
      const before = network.deaths().length
      network.connects = () => true
      const taken = network.roundsUntil(() => network.agreeOn('alive'), 2 * rounds(count))
      assert.ok(taken !== -1, `not within ${2 * rounds(count)} rounds`)
      assert.equal(network.deaths().length, before, 'healing makes nobody dead')
    })

    it('is not infected by the view of one that was cut off and believes all others dead', () => {
      const network = new Network(count, 19 * count)
      network.roundsUntil(() => network.agreeOn('alive'), rounds(count))
      network.connects = (from, to) => from !== 0 && to !== 0
      for (let round = 0; round < 30; round++) network.round()
      const before = network.deaths().length
      network.connects = () => true
      assert.ok(network.roundsUntil(() => network.agreeOn('alive'), rounds(count)) !== -1)
      assert.equal(network.deaths().length, before)
    })
  })
}
