import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Command } from '../../src/commands/command.ts'
import { commands } from '../../src/commands/table.ts'
import { draft, type Entry } from '../../src/raft/types.ts'
import { encodeConfiguration, noConfState } from '../../src/shard/configuration.ts'
import { firstSegment, LoneHost } from './lone-host.ts'

const data = new Uint8Array(300)
const entries = (term: number, from: number, to: number): Entry[] =>
  Array.from({ length: to - from }, (_, i) => ({ term, index: from + i, kind: 'normal', data }))
/** Replica 7 of group 3, alone or beside others. */
const configuration = (...others: readonly number[]) =>
  encodeConfiguration({
    group: 3,
    index: 1,
    operation: 0,
    members: [7, ...others].map(replica => ({ replica, node: replica === 7 ? 'n1' : `n${replica}` })),
    confState: { ...noConfState, voters: [7, ...others] },
  })
const hardState = (term: number, commit: number, vote = 7) => ({ term, vote, commit })
const born = { index: 1, term: 1 }

/** Replica 7 with the entries 2 to 10 of term 1, all committed but the last five. */
async function lived(): Promise<LoneHost> {
  const lone = new LoneHost()
  lone.open()
  await lone.write({
    replica: 7,
    hardState: hardState(1, 5),
    entries: entries(1, 2, 11),
    configuration: configuration(),
    reset: born,
  })
  return lone
}

const whyUnfit = (lone: LoneHost) => lone.host.unfit().get(7)?.why ?? null

/** Runs `write` and answers where in the first segment its frame begins. */
async function frameOf(lone: LoneHost, write: () => Promise<void>): Promise<number> {
  const before = lone.journalBytes()
  await write()
  const after = lone.journalBytes()
  const at = after.findIndex((byte, i) => byte !== before[i])
  assert.ok(at >= 0, 'nothing was written')
  return at
}

describe('a replica that starts again', () => {
  it('has what was acknowledged, and leads as the only voter', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    assert.equal((await lone.put(7, 'k', 'v')).ok, true)
    await lone.restart()
    assert.equal(whyUnfit(lone), null)
    await lone.led(7)
    assert.ok(await lone.run(1_000, () => lone.get(7, 'k') === 'v'))
  })

  it('has it also when a checkpoint took part of it over', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    await lone.put(7, 'a', '1')
    await lone.run(60_000, () => lone.host.counters.checkpoints > 0)
    await lone.put(7, 'b', '2')
    await lone.restart()
    const { checkpointed } = lone.life.state.open(7)
    assert.ok(checkpointed !== null && checkpointed.index < lone.life.journal.lastIndex(7))
    await lone.led(7)
    await lone.run(1_000)
    assert.deepEqual([lone.get(7, 'a'), lone.get(7, 'b')], ['1', '2'])
  })

  it('that was about to be founded and is not on disk is not there', async () => {
    const lone = new LoneHost()
    lone.start()
    void lone.host.found(3, 7)
    await lone.restart()
    assert.equal(lone.host.knows(7), false)
  })

  it('is quarantined when its commit index is past its last entry: it has lost what it promised', async () => {
    const lone = await lived()
    await lone.write({ replica: 7, hardState: hardState(1, 20) })
    await lone.restart()
    assert.equal(whyUnfit(lone), 'commit 20 is past its last entry 10')
    assert.equal(lone.host.replica(7), undefined)
  })

  it('is not when a checkpoint covers what is missing', async () => {
    const lone = await lived()
    await lone.write({ replica: 7, hardState: hardState(1, 20) })
    const meta = { index: 20, term: 1, configuration: configuration() }
    await lone.waitFor(lone.life.state.open(7).checkpoint(meta))
    await lone.restart()
    // It leads at once, with an entry behind those that the checkpoint covers.
    await lone.led(7)
    assert.deepEqual([whyUnfit(lone), lone.host.replica(7)?.appliedIndex], [null, 21])
  })

  it('is quarantined when its log begins after the end of its checkpoint', async () => {
    const lone = await lived()
    await lone.write({ replica: 7, hardState: hardState(2, 30), reset: { index: 30, term: 2 } })
    const meta = { index: 12, term: 1, configuration: configuration() }
    await lone.waitFor(lone.life.state.open(7).checkpoint(meta))
    await lone.restart()
    assert.equal(whyUnfit(lone), 'its log begins after 30, its checkpoint ends at 12')
  })

  it('is quarantined when nobody knows its configuration', async () => {
    const lone = new LoneHost()
    lone.open()
    await lone.write({ replica: 7, hardState: hardState(1, 0), entries: entries(1, 1, 3) })
    await lone.restart()
    assert.equal(whyUnfit(lone), 'nobody knows its configuration')
  })

  it('is quarantined when its configuration can not be read', async () => {
    const lone = await lived()
    await lone.write({ replica: 7, configuration: Uint8Array.of(1, 2, 3) })
    await lone.restart()
    assert.match(whyUnfit(lone) ?? '', /^corrupt data in configuration/)
  })

  it('is quarantined when a committed entry differs from what its checkpoint was made of', async () => {
    const lone = await lived()
    const meta = { index: 4, term: 9, configuration: configuration() }
    await lone.waitFor(lone.life.state.open(7).checkpoint(meta))
    await lone.restart()
    assert.equal(whyUnfit(lone), 'its log has another entry 4 than its checkpoint')
  })
})

describe('a replica whose process died between the two steps of a snapshot', () => {
  /** The state flip is durable, the reset of the journal is not: its log goes on to 10. */
  async function flipped(index: number, term: number): Promise<LoneHost> {
    const lone = await lived()
    const meta = { index, term, configuration: configuration(8) }
    await lone.waitFor(lone.life.state.open(7).checkpoint(meta))
    await lone.restart()
    return lone
  }

  it('goes on behind the snapshot when its log is shorter', async () => {
    const lone = await flipped(30, 3)
    assert.equal(whyUnfit(lone), null)
    const replica = lone.host.replica(7)!
    assert.deepEqual([replica.appliedIndex, replica.appliedTerm], [30, 3])
    assert.deepEqual(replica.configuration.confState.voters, [7, 8])
    const { journal } = lone.life
    assert.deepEqual([journal.firstIndex(7), journal.lastIndex(7), journal.term(7, 30)], [31, 30, 3])
  })

  it('goes on behind the snapshot when its log holds another, uncommitted, entry at that index', async () => {
    const lone = await flipped(8, 3)
    assert.equal(whyUnfit(lone), null)
    assert.deepEqual([lone.life.journal.firstIndex(7), lone.life.journal.lastIndex(7)], [9, 8])
  })

  it('finds the reset done at the next start', async () => {
    const lone = await flipped(30, 3)
    await lone.restart()
    assert.deepEqual([whyUnfit(lone), lone.host.replica(7)?.appliedIndex], [null, 30])
  })

  it('keeps its vote', async () => {
    const lone = await flipped(30, 1)
    const { hardState: kept } = lone.open().recovered.find(({ replica }) => replica === 7)!
    assert.deepEqual(kept, { term: 1, vote: 7, commit: 30 })
  })
})

describe('a replica whose log has rotted', () => {
  /** The frame with the entries 2 to 10 of replica 7, and a vote, is rotten; frames of replica 8 stand before and after it. */
  async function rotten(): Promise<LoneHost> {
    const lone = new LoneHost()
    lone.open()
    const record = { configuration: configuration(9), reset: born }
    await lone.write({ replica: 8, hardState: hardState(1, 1, 8), ...record })
    await lone.write({ replica: 7, hardState: hardState(1, 1), ...record })
    const at = await frameOf(lone, () =>
      lone.write({ replica: 7, hardState: hardState(5, 5, 9), entries: entries(1, 2, 11) }),
    )
    await lone.write({ replica: 8, hardState: hardState(1, 1, 8), entries: entries(1, 2, 4) })
    lone.kill()
    lone.disk.flipBit(firstSegment, at + 40)
    return lone
  }

  it('is quarantined, and the others of its node are not', async () => {
    const lone = await rotten()
    lone.start()
    await lone.run(100)
    assert.match(whyUnfit(lone) ?? '', /its log is damaged from entry 2 on$/)
    assert.notEqual(lone.host.replica(8), undefined)
  })

  /** The same where the record of whose replica 7 is rots as well; its checkpoint has it. */
  async function nameless(): Promise<LoneHost> {
    const lone = new LoneHost()
    lone.open()
    await lone.write({
      ...{ replica: 8, hardState: hardState(1, 1, 8), configuration: configuration(9), reset: born },
    })
    const record = { configuration: configuration(), reset: born, entries: entries(1, 2, 11) }
    const at = await frameOf(lone, () => lone.write({ replica: 7, hardState: hardState(5, 5, 9), ...record }))
    await lone.write({ replica: 8, hardState: hardState(1, 1, 8), entries: entries(1, 2, 4) })
    await lone.write({ replica: 7, hardState: hardState(5, 6, 9), entries: entries(5, 11, 12) })
    const meta = { index: 5, term: 1, configuration: configuration() }
    await lone.waitFor(lone.life.state.open(7).checkpoint(meta))
    lone.kill()
    lone.disk.flipBit(firstSegment, at + 40)
    return lone
  }

  it('is known by its checkpoint, when the record of whose it is has rotted as well', async () => {
    const lone = await nameless()
    lone.start()
    await lone.run(100)
    assert.equal(lone.host.unfit().get(7)?.group, 3)
    await staysOut(lone)
  })

  it('stays quarantined when the journal has turned its segments over and knows of no damage', async () => {
    const lone = await rotten()
    lone.start()
    await lone.run(100)
    await staysOut(lone)
    const found = lone.life.recovered.find(({ replica }) => replica === 7)
    assert.equal(found?.damaged, null, 'the journal itself still knows')
  })

  async function staysOut(lone: LoneHost): Promise<void> {
    const why = whyUnfit(lone)
    assert.notEqual(why, null)
    for (let i = 0, from = 4; i < 4; i++, from += 150) {
      await lone.write({ replica: 8, entries: entries(1, from, from + 150) })
      lone.life.journal.compact(8, from + 100, 1)
    }
    await lone.run(1_000)
    for (const _ of [1, 2, 3]) {
      await lone.restart()
      assert.equal(whyUnfit(lone), why)
    }
  }

  it('says nothing: no vote, no answer to a heartbeat, no acknowledgement', async () => {
    const lone = await rotten()
    const { host, sent } = lone.start()
    for (const kind of ['MsgVote', 'MsgPreVote', 'MsgHeartbeat', 'MsgApp'] as const)
      host.receive('n9', [{ group: 3, message: { ...draft(kind, 9, 9, 7), index: 50, logTerm: 8 } }])
    await lone.run(5_000)
    assert.deepEqual(
      sent.flatMap(({ frame }) => frame).filter(({ message }) => message.from === 7),
      [],
    )
  })

  it('is not made anew under its id', async () => {
    const lone = await rotten()
    const { host } = lone.start()
    await lone.waitFor(host.create(3, 7))
    assert.equal(host.replica(7), undefined)
    assert.equal(host.knows(7), true)
  })

  it('is gone for good once it is destroyed', async () => {
    const lone = await rotten()
    const { host } = lone.start()
    await lone.run(100)
    await lone.waitFor(host.destroy(7))
    assert.equal(host.knows(7), false)
    await lone.restart()
    assert.equal(lone.host.knows(7), false)
  })

  /** The entries 2 to 12, of which 10 has rotted, and a checkpoint up to `index`. */
  async function rottenAt10(index: number): Promise<LoneHost> {
    const lone = new LoneHost()
    lone.open()
    const record = { replica: 7, configuration: configuration(9), reset: born }
    await lone.write({ ...record, hardState: hardState(1, 1) })
    const at = await frameOf(lone, () => lone.write({ replica: 7, entries: entries(1, 2, 11) }))
    await lone.write({ replica: 7, hardState: hardState(1, 12), entries: entries(1, 11, 13) })
    const meta = { index, term: 1, configuration: configuration(9) }
    await lone.waitFor(lone.life.state.open(7).checkpoint(meta))
    lone.kill()
    // Its last bytes: who and what is in the frame can still be read.
    lone.disk.flipBit(firstSegment, at + 2_800)
    lone.start()
    await lone.run(100)
    const found = lone.life.recovered.find(({ replica }) => replica === 7)
    assert.deepEqual(found?.damaged, { from: 10, to: 11 })
    return lone
  }

  it('goes on when a checkpoint covers what was damaged', async () => {
    for (const index of [10, 11, 12]) {
      const lone = await rottenAt10(index)
      assert.deepEqual([whyUnfit(lone), lone.host.replica(7)?.appliedIndex], [null, index])
    }
  })

  it('is quarantined when its checkpoint ends one entry before', async () => {
    assert.equal(whyUnfit(await rottenAt10(9)), 'entries 10 to 10 of its log are damaged')
  })
})

describe('a replica that meets what it can not apply', () => {
  const unheardOf: Command = { ...commands.get('SET')!, name: 'UNHEARD-OF' }

  async function met(): Promise<LoneHost> {
    const lone = new LoneHost()
    const table = new Map([...commands, [unheardOf.name, unheardOf]])
    lone.table = table
    lone.start()
    await lone.found(3, 7)
    await lone.put(7, 'k', 'v')
    // Proposed as by a newer release; when it is committed, this one does not know it.
    lone.disk.stall()
    const told = lone.propose(7, unheardOf.name, 'k', 'new')
    await lone.run(10)
    table.delete(unheardOf.name)
    lone.disk.unstall()
    await lone.run(1_000)
    assert.deepEqual(
      told.map(each => each.ok || [each.isDefinite, (each.error as { code?: string }).code]),
      [[false, 'OUTCOME_UNKNOWN']],
    )
    return lone
  }

  it('falls silent, refuses callers, and shows nothing', async () => {
    const lone = await met()
    const replica = lone.host.replica(7)!
    assert.match(replica.halted ?? '', /^entry not understood/)
    assert.equal(replica.isLeader, false)
    const [refused] = lone.propose(7, 'SET', 'k', 'w')
    assert.ok(refused !== undefined && !refused.ok && refused.isDefinite)
    assert.equal(lone.get(7, 'k'), null)
  })

  it('goes on after an upgrade: it has lost nothing that it promised', async () => {
    const lone = await met()
    lone.table = new Map([...commands, [unheardOf.name, unheardOf]])
    await lone.restart()
    assert.equal(whyUnfit(lone), null)
    await lone.led(7)
    assert.ok(await lone.run(1_000, () => lone.get(7, 'k') === 'new'))
  })
})

describe('a host', () => {
  it('writes nothing any more of a replica that it destroys', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    await lone.put(7, 'k', 'v')
    // One batch hangs on the disk; the next one fills meanwhile and is the one to be dropped.
    lone.disk.stall()
    const first = lone.propose(7, 'SET', 'k', 'w')
    await lone.run(10)
    const second = lone.propose(7, 'SET', 'k', 'x')
    await lone.run(10)
    const destroyed = lone.host.destroy(7)
    await lone.run(10)
    lone.disk.unstall()
    await lone.waitFor(destroyed)
    assert.deepEqual(
      [...first, ...second].map(each => each.ok || each.isDefinite),
      [false, false],
    )
    await lone.run(1_000)
    assert.deepEqual([...lone.platter.tables.keys()], [])
    await lone.restart()
    assert.equal(lone.host.knows(7), false)
  })

  it('makes a replica once, however often it is asked at the same time', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.waitFor(Promise.all([lone.host.create(3, 7), lone.host.create(3, 7)]))
    assert.equal([...lone.host.all()].length, 1)
  })

  it('makes no replica because a message came', async () => {
    const lone = new LoneHost()
    lone.start()
    lone.host.receive('n2', [{ group: 3, message: draft('MsgHeartbeat', 1, 9, 7) }])
    await lone.run(1_000)
    assert.deepEqual([lone.host.knows(7), lone.life.sent], [false, []])
  })

  it('acknowledges nothing before the disk has it', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    await lone.put(7, 'k', 'v')
    lone.disk.stall()
    const told = lone.propose(7, 'SET', 'k', 'w')
    await lone.run(2_000)
    assert.deepEqual([told, lone.get(7, 'k')], [[], 'v'])
    lone.disk.unstall()
    await lone.run(100)
    assert.deepEqual([told.length, lone.get(7, 'k')], [1, 'w'])
  })

  it('writes many callers at once: what waits while a write is under way is the next one', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    await lone.put(7, 'k', 'v')
    await lone.run(1_000)
    const before = lone.disk.counts.commits
    const told = Array.from({ length: 500 }, (_, i) => lone.propose(7, 'SET', `k${i}`, 'v'))
    await lone.run(40, () => told.every(each => each.length > 0))
    assert.ok(told.every(each => each[0]?.ok))
    assert.ok(lone.disk.counts.commits - before <= 4, `${lone.disk.counts.commits - before} syncs`)
  })

  it('ends the node when a sync fails once, and acknowledges nothing of it', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    await lone.put(7, 'k', 'v')
    lone.disk.failOnce('sync')
    const told = lone.propose(7, 'SET', 'k', 'w')
    await lone.run(1_000)
    assert.equal(lone.life.fatal.length > 0, true)
    assert.deepEqual(told, [])
    assert.equal(lone.get(7, 'k'), 'v')
  })

  it('begins no write after it was stopped, and waits for the one under way', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    await lone.put(7, 'k', 'v')
    lone.disk.stall()
    const first = lone.propose(7, 'SET', 'k', 'w')
    await lone.run(10)
    const second = lone.propose(7, 'SET', 'k', 'x')
    let isStopped = false
    const stopped = lone.host.stop().then(() => {
      isStopped = true
    })
    const outcome = (told: typeof first) =>
      told.map(each => each.ok || [each.isDefinite, (each.error as { code?: string }).code])
    assert.deepEqual(outcome(first), [[false, 'OUTCOME_UNKNOWN']])
    assert.deepEqual(outcome(second), [[true, 'SHUTTING_DOWN']])
    assert.deepEqual(outcome(lone.propose(7, 'SET', 'k', 'y')), [[true, 'SHUTTING_DOWN']])
    await lone.run(100)
    assert.equal(isStopped, false)
    const lastIndex = lone.life.journal.lastIndex(7)
    lone.disk.unstall()
    await lone.waitFor(stopped)
    await lone.run(1_000)
    assert.equal(lone.life.journal.lastIndex(7), lastIndex)
    assert.deepEqual([first.length, second.length], [1, 1], 'settled once')
  })
})

describe('a node', () => {
  it('bounds what its groups together keep uncommitted, and takes more when that is committed', async () => {
    const lone = new LoneHost()
    lone.uncommittedBytesMax = 1_000
    lone.start()
    await lone.found(3, 7)
    await lone.found(4, 8)
    const value = 'v'.repeat(600)
    const told = await Promise.all([
      lone.put(7, 'a', value),
      lone.put(7, 'b', value),
      lone.put(8, 'c', value),
    ])
    const codes = told.map(settled => (settled.ok ? 'done' : (settled.error as { code?: string }).code))
    assert.deepEqual(codes, ['done', 'done', 'OVERLOADED'])
    assert.equal((await lone.put(8, 'c', value)).ok, true)
  })
})

describe('a sweep', () => {
  it('goes on at once while there is more to take than one entry may', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    const fields = Array.from({ length: 2_500 }, (_, i) => [`f${i}`, 'v']).flat()
    for (let at = 0; at < fields.length; at += 1_000) {
      const told = lone.propose(7, 'HSET', 'h', ...fields.slice(at, at + 1_000))
      await lone.run(1_000, () => told.length > 0)
      assert.equal(told[0]?.ok, true)
    }
    const rows = () => [...lone.host.replica(7)!.state.range('', '\u00ff'.repeat(8))].length
    assert.ok(rows() > 2_500, `${rows()} rows`)
    lone.propose(7, 'DEL', 'h')
    // Who calls it once each cleanup_interval calls it once here.
    await lone.run(100)
    lone.host.sweep()
    assert.ok(await lone.run(2_000, () => rows() < 20), `${rows()} rows are left`)
  })
})
