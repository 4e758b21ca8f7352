import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { consumeVerb } from '../../src/cli/consume.ts'
import { groupsVerb } from '../../src/cli/groups.ts'
import { produceVerb } from '../../src/cli/produce.ts'
import { streamVerbs } from '../../src/cli/streams.ts'
import { parseCall } from '../../src/commands/table.ts'
import type { Call, CallResult } from '../../src/node/ports.ts'
import { Shard } from '../commands/shard.ts'
import { type Harness, startServer, until } from '../wire/grpc/harness.ts'
import { type FakeShell, fakeShell } from './fake-cluster.ts'

const verbs = [...streamVerbs, groupsVerb, produceVerb, consumeVerb]

/** Runs the calls of groups on a shard's own machine, without Raft. */
function answerFrom(shard: Shard) {
  return async ({ command: name, args }: Call): Promise<CallResult> => {
    shard.nowMs = Math.max(shard.nowMs, Date.now())
    const { command } = parseCall(name, args)
    if (command.access === 'read') {
      const result = shard.read(name, [...args], null)
      if (result.kind === 'refused') throw result.error
      if (result.kind === 'reply') return { reply: result.reply, revision: result.revision, lagMs: 0 }
      throw new Error(result.kind)
    }
    const applied = shard.applyOperations([shard.operation(name, ...args)])
    if (applied.kind === 'refused') throw applied.error
    return { reply: applied.replies[0]!, revision: applied.revision, lagMs: 0 }
  }
}

describe('consumer groups in the shell', () => {
  let h: Harness
  const shard = new Shard()
  before(async () => {
    h = await startServer()
    h.service.onExecute = answerFrom(shard)
    await run('stream create orders --partitions 4')
    for (const partition of [0, 1, 2, 3])
      await run(`produce orders --partition ${partition}`, `a${partition}\n`)
  })
  after(() => h.close())

  function begin(line: string, input = ''): { shell: FakeShell; exit: Promise<number> } {
    const stdin = Readable.from(input === '' ? [] : [Buffer.from(input)])
    const shell = fakeShell({ ROUNDHOUSE_NODE: h.address }, false, stdin)
    return { shell, exit: runCli(line.split(' '), shell, verbs) }
  }

  async function run(line: string, input = '') {
    const { shell, exit } = begin(line, input)
    return { exit: await exit, out: shell.stdout.text(), err: shell.stderr.text() }
  }

  const linesOf = (shell: FakeShell) => shell.stdout.text().split('\n').filter(Boolean).sort().join(' ')
  const groupsOf = async (line: string) => JSON.parse((await run(`${line} -o json`)).out)

  it('are nobody at first', async () =>
    assert.match((await run('stream groups orders')).out, /^nobody reads orders in a group/))

  it('read each record once, and go on where they stood', async () => {
    const first = begin('consume orders --group billing')
    assert.equal(await first.exit, 0, first.shell.stderr.text())
    assert.equal(linesOf(first.shell), 'a0 a1 a2 a3')
    await run('produce orders --partition 2', 'b2\n')
    const [group] = await groupsOf('stream groups orders')
    assert.deepEqual([group.group, group.state, group.lag], ['billing', 'empty', 1])
    assert.deepEqual(
      group.partitions.map((each: { committed: number; end: number }) => [each.committed, each.end]),
      [
        [1, 1],
        [1, 1],
        [1, 2],
        [1, 1],
      ],
    )
    const second = begin('consume orders --group billing')
    assert.equal(await second.exit, 0)
    assert.equal(linesOf(second.shell), 'b2')
    assert.match(
      (await run('stream groups orders')).out,
      /^billing: empty, 0 members, generation 4, sticky, lag 0\n/,
    )
  })

  it('share the partitions, and take over what one who leaves had', async () => {
    const [one, two] = [
      begin('consume orders --group pair --follow'),
      begin('consume orders --group pair --follow'),
    ]
    await until('two members with partitions', async () => {
      const [group] = await groupsOf('stream groups orders --group pair').catch(() => [])
      return group?.state === 'stable' && group.members.length === 2
    })
    const [shared] = await groupsOf('stream groups orders --group pair')
    const owners: string[] = shared.partitions.map((each: { member: string }) => each.member)
    assert.deepEqual(
      [...new Set(owners)].map(owner => owners.filter(each => each === owner).length),
      [2, 2],
    )
    two.shell.controller.abort()
    assert.equal(await two.exit, 0, two.shell.stderr.text())
    await until(
      'one member',
      async () => (await groupsOf('stream groups orders --group pair'))[0].members.length === 1,
    )
    for (const partition of [0, 1, 2, 3])
      await run(`produce orders --partition ${partition}`, `c${partition}\n`)
    await until(
      'all records at the one that stayed',
      () => one.shell.stdout.text().match(/c\d/g)?.length === 4,
    )
    one.shell.controller.abort()
    assert.equal(await one.exit, 0, one.shell.stderr.text())
    // No record went to both, none to neither.
    const all = `${one.shell.stdout.text()}${two.shell.stdout.text()}`
    assert.equal(all.split('\n').filter(Boolean).sort().join(' '), 'a0 a1 a2 a3 b2 c0 c1 c2 c3')
    assert.equal((await groupsOf('stream groups orders --group pair'))[0].lag, 0)
  })

  it('follow more partitions than one connection has calls', async () => {
    await run('stream create wide --partitions 1024')
    const reader = begin('consume wide --group wide --follow --from earliest')
    try {
      await until('all are followed', () => h.service.streams.waiting === 1_024)
      await run('produce wide --partition 1023', 'last\n')
      await until('it came', () => reader.shell.stdout.text() === 'last\n')
    } finally {
      reader.shell.controller.abort()
      assert.equal(await reader.exit, 0, reader.shell.stderr.text())
    }
  })

  it('are reset, and refuse it while somebody reads', async () => {
    const [reset] = await groupsOf('stream groups orders --group billing --reset earliest')
    assert.equal(reset.lag, 9)
    await run('stream groups orders --group billing --reset latest --partition 3')
    assert.equal((await groupsOf('stream groups orders --group billing'))[0].partitions[3].lag, 0)
    const reader = begin('consume orders --group billing --follow')
    await until(
      'a member',
      async () => (await groupsOf('stream groups orders --group billing'))[0].members.length === 1,
    )
    const refused = await run('stream groups orders --group billing --reset earliest')
    assert.equal(refused.exit, 1)
    assert.match(refused.err, /group "billing" has members that this would take by surprise/)
    reader.shell.controller.abort()
    await reader.exit
  })

  it('begin at one offset in all partitions, and wait for it where it is still to come', async () => {
    await run('stream create uneven --partitions 2')
    await run('produce uneven --partition 0', '0:0\n0:1\n0:2\n')
    await run('produce uneven --partition 1', '1:0\n')
    const short = 'partition 1: nothing from 2 on, its next record gets 1\n'
    const all = begin('consume uneven --group at-once --from 2')
    assert.equal(await all.exit, 0)
    assert.deepEqual([all.shell.stdout.text(), all.shell.stderr.text()], ['0:2\n', short])
    const { shell, exit } = begin('consume uneven --group waiting --from 2 --follow')
    await until('both wait', () => h.service.streams.waiting === 2)
    await run('produce uneven --partition 1', '1:1\n1:2\n')
    await until('it came', () => shell.stdout.text().includes('1:2'))
    shell.controller.abort()
    assert.equal(await exit, 0)
    assert.deepEqual([linesOf(shell), shell.stderr.text()], ['0:2 1:2', short])
  })

  it('read the stream that their offsets are of, and not another that was made under its name', async () => {
    const [before, after] = [await startServer(), await startServer()]
    try {
      const create = (node: Harness, name: string) =>
        node.service.streams.create({
          ...{ name, partitions: 1, ifMissing: false },
          ...{ retentionMs: null, retentionBytes: null },
        })
      await create(before, 'anew')
      await create(after, 'an id further')
      await create(after, 'anew')
      for (const { service } of [before, after]) service.onExecute = answerFrom(shard)
      const shell = fakeShell({ ROUNDHOUSE_NODE: `${before.address},${after.address}` })
      const exit = runCli('consume anew --group late --follow'.split(' '), shell, verbs)
      await until('it waits', () => before.service.streams.waiting === 1)
      await before.close()
      assert.equal(await exit, 1)
      assert.match(shell.stderr.text(), /error: ERR stream was made anew: anew is 2 now, 1 was read before/)
    } finally {
      await before.close()
      await after.close()
    }
  })

  it('name what can not be', async () => {
    for (const [line, exit, text] of [
      ['consume orders --group g --partition 1', 2, /the group says who reads which partition/],
      ['stream groups orders --reset earliest', 2, /--reset is for one group/],
      ['stream groups orders --group billing --reset soon', 2, /"soon" is not an integer/],
      ['stream groups orders --group nope', 1, /no such consumer group: "nope"/],
      ['consume nothing --group g', 1, /nothing/],
    ] as const) {
      const found = await run(line)
      assert.equal(found.exit, exit, `${line}: ${found.err}`)
      assert.match(found.err, text)
    }
  })
})
