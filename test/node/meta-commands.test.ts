import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import { RegisterReader } from '../../src/node/meta-commands.ts'
import { groupNaming, isOut, metaGroup } from '../../src/node/meta-register.ts'
import { foundRequest, joinRequest, MetaShard, settings } from './cluster-register.ts'

const refusal = (code: string) => ({ name: 'RoundhouseError', code })
const fresh = (...nodes: readonly string[]) => nodes.map(node => ({ node, replica: null }))
const alone = (replica: number) => ({
  birth: { replica, node: 'node1' },
  voters: [{ replica, node: 'node1' }],
  learners: [],
  index: 1,
  operation: null,
  former: [],
  unfit: [],
})

describe('META.FOUND', () => {
  it('registers the founder as a member with the only replica of every shard', () => {
    const { register } = new MetaShard().found({ settings: { ...settings, shardCount: 2 } })
    assert.deepEqual(register, {
      clusterId: 'c1',
      settings: { ...settings, shardCount: 2 },
      epoch: 1,
      isPaused: false,
      level: 1,
      nextReplica: 4,
      nextOperation: 1,
      movesDone: 0,
      nextStream: 1,
      streams: new Map(),
      nodes: [{ ...joinRequest('node1'), metaReplica: 1, state: 'member' }],
      shards: new Map([
        [0, alone(2)],
        [1, alone(3)],
        [metaGroup, alone(1)],
      ]),
    })
  })

  it('changes nothing when the cluster is founded already', () => {
    const meta = new MetaShard().found()
    const before = meta.register
    meta.run('META.FOUND', foundRequest({ clusterId: 'c2', firstReplica: 500 }))
    assert.equal(meta.register, before)
  })

  it('comes before everything else', () => {
    const meta = new MetaShard()
    for (const [command, request] of [
      ['META.JOIN', joinRequest('node2')],
      ['META.STATE', { nodeId: 'node2', state: 'member' }],
      ['META.OPEN', { group: 0, replaces: 0, voters: [], learners: [] }],
      ['META.CLOSE', { group: 0, operation: 1, voters: [], learners: [], index: 1 }],
      ['META.PAUSE', { isPaused: true }],
    ] as const)
      assert.throws(() => meta.run(command, request), refusal('NOT_READY'))
    assert.equal(meta.known, null)
  })
})

describe('META.JOIN', () => {
  it('registers a joiner and gives it a meta replica', () => {
    const meta = new MetaShard().found()
    const node = meta.join('node2')
    assert.deepEqual(node, { ...joinRequest('node2'), state: 'joining', metaReplica: 10 })
    assert.deepEqual(meta.register.nodes[1], node)
    assert.equal(meta.register.nextReplica, 11)
  })

  it('gives the same store the same replica, however often it asks, and changes nothing', () => {
    const meta = new MetaShard().found()
    const node = meta.join('node2')
    const before = meta.register
    assert.deepEqual(meta.join('node2'), node)
    assert.equal(meta.register, before)
  })

  it('takes the new addresses of a member, and leaves its state alone', () => {
    const meta = new MetaShard().found().admit('node2')
    const moved = meta.join('node2', { peerAddress: 'elsewhere:1' })
    assert.deepEqual([moved.peerAddress, moved.state, moved.metaReplica], ['elsewhere:1', 'member', 10])
    assert.deepEqual(meta.register.nodes[1], moved)
  })

  it('refuses a known node with another store: its volume was lost', () => {
    const meta = new MetaShard().found().admit('node2')
    const before = meta.register
    assert.throws(() => meta.join('node2', { storeId: 'another' }), refusal('STORE_MISMATCH'))
    assert.equal(meta.register, before)
  })

  it('refuses it while the node leaves, too', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.run('META.STATE', { nodeId: 'node2', state: 'leaving' })
    assert.throws(() => meta.join('node2', { storeId: 'another' }), refusal('STORE_MISMATCH'))
  })

  it('lets no store back in that was let go', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.run('META.STATE', { nodeId: 'node2', state: 'left' })
    assert.throws(() => meta.join('node2'), refusal('NOT_MEMBER'))
  })

  it('lets the name of a node that was let go in again, with a new store under a new replica', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.run('META.STATE', { nodeId: 'node2', state: 'left' })
    const again = meta.join('node2', { storeId: 'another' })
    assert.deepEqual([again.state, again.storeId, again.metaReplica], ['joining', 'another', 11])
    assert.equal(meta.register.nodes.length, 2)
  })
})

describe('META.STATE', () => {
  it('never takes a node back to an earlier state', () => {
    const order = ['joining', 'member', 'leaving', 'left'] as const
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...order), { maxLength: 8 }), asked => {
        const meta = new MetaShard().found()
        meta.join('node2')
        let highest = 0
        for (const state of asked) {
          highest = Math.max(highest, order.indexOf(state))
          const answer = meta.run<{ state: string }>('META.STATE', { nodeId: 'node2', state })
          assert.equal(answer.state, order[highest])
          assert.equal(meta.register.nodes[1]!.state, order[highest])
        }
      }),
    )
  })

  it('refuses a node that nobody knows', () => {
    const meta = new MetaShard().found()
    assert.throws(
      () => meta.run('META.STATE', { nodeId: 'node9', state: 'leaving' }),
      refusal('UNKNOWN_NODE'),
    )
  })
})

describe('META.OPEN', () => {
  it('gives ids to the new replicas and notes the operation', () => {
    const meta = new MetaShard().found().admit('node2', 'node3')
    const operation = meta.open({
      group: 0,
      replaces: 0,
      voters: [{ node: 'node1', replica: 2 }, ...fresh('node2')],
      learners: fresh('node3'),
    })
    assert.deepEqual(operation, {
      id: 1,
      voters: [
        { node: 'node1', replica: 2 },
        { node: 'node2', replica: 12 },
      ],
      learners: [{ node: 'node3', replica: 13 }],
    })
    const { shards, nextReplica, nextOperation } = meta.register
    assert.deepEqual(shards.get(0), { ...alone(2), operation })
    assert.deepEqual([nextReplica, nextOperation], [14, 2])
  })

  it('opens one at a time: of two plans made at once the second opens nothing', () => {
    const meta = new MetaShard().found().admit('node2', 'node3')
    assert.notEqual(meta.open({ group: 0, replaces: 0, voters: fresh('node2'), learners: [] }), null)
    const before = meta.register
    assert.equal(meta.open({ group: 0, replaces: 0, voters: fresh('node3'), learners: [] }), null)
    assert.equal(meta.register, before)
  })

  it('opens nothing in place of an operation that is not there any more', () => {
    const meta = new MetaShard().found().admit('node2', 'node3')
    const first = meta.open({ group: 0, replaces: 0, voters: fresh('node2'), learners: [] })!
    meta.close(0)
    assert.equal(meta.open({ group: 0, replaces: first.id, voters: fresh('node3'), learners: [] }), null)
  })

  it('opens nothing on a group that is none', () => {
    const meta = new MetaShard().found()
    assert.equal(meta.open({ group: 99, replaces: 0, voters: fresh('node1'), learners: [] }), null)
  })

  it('opens nothing with a node that was let go meanwhile, or that nobody knows', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.run('META.STATE', { nodeId: 'node2', state: 'left' })
    const before = meta.register
    assert.equal(meta.open({ group: 0, replaces: 0, voters: fresh('node2'), learners: [] }), null)
    assert.equal(meta.open({ group: 0, replaces: 0, voters: fresh('node1'), learners: fresh('x') }), null)
    assert.equal(meta.register, before)
  })

  it('remembers whom the operations that it replaces meant to bring in, until the close', () => {
    const meta = new MetaShard().found().admit('node2', 'node3')
    const voter = { node: 'node1', replica: 2 }
    const first = meta.open({ group: 0, replaces: 0, voters: [voter], learners: fresh('node2') })!
    const second = meta.open({ group: 0, replaces: first.id, voters: [voter], learners: fresh('node3') })!
    meta.open({ group: 0, replaces: second.id, voters: [voter], learners: [] })
    const former = [voter, { node: 'node2', replica: 12 }, voter, { node: 'node3', replica: 13 }]
    assert.deepEqual(meta.register.shards.get(0)!.former, former)
    meta.close(0)
    assert.deepEqual(meta.register.shards.get(0)!.former, [])
  })
})

describe('META.CLOSE', () => {
  it('notes the configuration that the group has reached, and counts the moves', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.open({ group: 0, replaces: 0, voters: [{ node: 'node1', replica: 2 }], learners: fresh('node2') })
    meta.close(0, 17)
    const { shards, movesDone } = meta.register
    assert.deepEqual(shards.get(0), {
      ...alone(2),
      learners: [{ node: 'node2', replica: 11 }],
      index: 17,
    })
    assert.equal(movesDone, 1)
  })

  it('counts no move for the meta shard', () => {
    const meta = new MetaShard().found().admit('node2')
    const [voters, learners] = [[{ node: 'node1', replica: 1 }], [{ node: 'node2', replica: 10 }]]
    meta.open({ group: metaGroup, replaces: 0, voters, learners })
    meta.close(metaGroup)
    assert.equal(meta.register.movesDone, 0)
  })

  it('closes nothing but the operation that it names', () => {
    const meta = new MetaShard().found().admit('node2')
    const first = meta.open({ group: 0, replaces: 0, voters: fresh('node2'), learners: [] })!
    meta.open({ group: 0, replaces: first.id, voters: fresh('node1'), learners: [] })
    const before = meta.register
    meta.run('META.CLOSE', { group: 0, operation: first.id, voters: [], learners: [], index: 9 })
    assert.equal(meta.register, before)
  })
})

describe('the birth of a group', () => {
  it('is told by its record for ever, whoever its replicas are', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.open({ group: 0, replaces: 0, voters: fresh('node2'), learners: [] })
    meta.close(0)
    const { birth, voters } = meta.register.shards.get(0)!
    assert.deepEqual([birth, voters], [{ replica: 2, node: 'node1' }, [{ replica: 11, node: 'node2' }]])
  })
})

describe('META.PAUSE', () => {
  it('pauses and resumes, and changes nothing when asked for what is', () => {
    const meta = new MetaShard().found()
    meta.run('META.PAUSE', { isPaused: true })
    const { isPaused, epoch } = meta.register
    assert.deepEqual([isPaused, epoch], [true, 2])
    meta.run('META.PAUSE', { isPaused: true })
    assert.equal(meta.register.epoch, 2)
    meta.run('META.PAUSE', { isPaused: false })
    assert.equal(meta.register.isPaused, false)
  })
})

describe('a replica', () => {
  const voter = { node: 'node1', replica: 2 }

  it('is in its group while a record or an operation names it', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.open({ group: 0, replaces: 0, voters: [voter], learners: fresh('node2') })
    assert.equal(isOut(meta.register, 0, 2), false, 'the record names it')
    assert.equal(isOut(meta.register, 0, 11), false, 'the operation names it')
    assert.equal(isOut(meta.register, 1, 2), true, 'it is not of that group')
    const { register } = meta
    const groups = [1, 2, 11, register.nextReplica].map(replica => groupNaming(register, replica))
    assert.deepEqual(groups, [metaGroup, 0, 0, null])
  })

  it('of an operation that was replaced is out only after the next close', () => {
    const meta = new MetaShard().found().admit('node2')
    const first = meta.open({ group: 0, replaces: 0, voters: [voter], learners: fresh('node2') })!
    meta.open({ group: 0, replaces: first.id, voters: [voter], learners: [] })
    assert.equal(isOut(meta.register, 0, 11), false, 'the shard may have taken it in')
    meta.close(0)
    assert.equal(isOut(meta.register, 0, 11), true)
  })

  it('that was moved away is out after the close', () => {
    const meta = new MetaShard().found().admit('node2')
    meta.open({ group: 0, replaces: 0, voters: fresh('node2'), learners: [] })
    assert.equal(isOut(meta.register, 0, 2), false)
    meta.close(0)
    assert.equal(isOut(meta.register, 0, 2), true)
  })

  it('whose id this register has not given out is not called out: the register is behind', () => {
    const meta = new MetaShard().found()
    assert.equal(isOut(meta.register, 0, meta.register.nextReplica), false)
    assert.equal(isOut(meta.register, 0, 1_000_000), false)
  })

  it('of a group that the register does not know is not called out', () => {
    assert.equal(isOut(new MetaShard().found().register, 99, 2), false)
  })
})

describe('a replica id', () => {
  it('is never given twice, whatever is asked in whatever order', () => {
    const node = fc.constantFrom('node1', 'node2', 'node3', 'node4')
    const asked = fc.oneof(
      fc.record({ kind: fc.constant('join' as const), node, store: fc.nat(2) }),
      fc.record({ kind: fc.constant('left' as const), node }),
      fc.record({ kind: fc.constant('open' as const), group: fc.nat(2), nodes: fc.uniqueArray(node) }),
      fc.record({ kind: fc.constant('close' as const), group: fc.nat(2) }),
    )
    fc.assert(
      fc.property(fc.array(asked, { maxLength: 30 }), requests => {
        const meta = new MetaShard().found({ settings: { ...settings, shardCount: 4 } })
        const given = new Map<number, string>(
          [...meta.register.shards].flatMap(([group, { voters }]) =>
            voters.map(({ replica, node: on }) => [replica, `${group} ${on}`] as const),
          ),
        )
        const note = (replica: number, owner: string) => {
          assert.ok((given.get(replica) ?? owner) === owner, `${replica}: ${given.get(replica)} and ${owner}`)
          given.set(replica, owner)
        }
        for (const request of requests) {
          if (request.kind === 'join') {
            const join = joinRequest(request.node, { storeId: `${request.node}-${request.store}` })
            if (request.node !== 'node1') meta.apply('META.JOIN', join)
          } else if (request.kind === 'left') {
            if (request.node !== 'node1') meta.apply('META.STATE', { nodeId: request.node, state: 'left' })
          } else if (request.kind === 'open') {
            const { group, nodes } = request
            const replaces = meta.register.shards.get(group)!.operation?.id ?? 0
            const operation = meta.open({ group, replaces, voters: fresh(...nodes), learners: [] })
            for (const { replica, node: on } of operation?.voters ?? []) note(replica, `${group} ${on}`)
          } else if (meta.register.shards.get(request.group)!.operation !== null) {
            meta.close(request.group)
          }
          for (const { nodeId, storeId, metaReplica } of meta.register.nodes)
            if (nodeId !== 'node1') note(metaReplica, `${metaGroup} ${nodeId} ${storeId}`)
          assert.ok(Math.max(...given.keys()) < meta.register.nextReplica)
        }
      }),
      { numRuns: 200 },
    )
  })
})

describe('the reader of the register', () => {
  it('answers null before the founding', () => {
    assert.equal(
      new RegisterReader().read(() => undefined),
      null,
    )
  })

  it('answers the very same register while nothing changed', () => {
    const meta = new MetaShard().found()
    assert.equal(meta.register, meta.register)
  })

  it('answers a new one after each change, and keeps the records whose bytes are the same', () => {
    const rows = new Map<string, Uint8Array>()
    const reader = new RegisterReader()
    const put = (key: string, row: unknown) => rows.set(key, fromUtf8(JSON.stringify(row)))
    const read = () => reader.read(key => rows.get(Buffer.from(key).toString()))!
    const cluster = { clusterId: 'c1', settings: { ...settings, shardCount: 2 }, epoch: 1 }
    put('cluster', cluster)
    put('shard:0', alone(2))
    put('shard:1', alone(3))
    const first = read()
    put('cluster', { ...cluster, epoch: 2 })
    put('shard:1', alone(7))
    const second = read()
    assert.equal(second.shards.get(0), first.shards.get(0))
    assert.deepEqual(second.shards.get(1), alone(7))
    assert.deepEqual(first.shards.get(1), alone(3), 'what was read before stays as it was')
  })
})

describe('META.UNFIT', () => {
  const unfitOf = (meta: MetaShard, group: number) => meta.register.shards.get(group)!.unfit

  it('marks a member of the group once, and one that the group does not know never', () => {
    const meta = new MetaShard().found()
    const { replica } = meta.register.shards.get(0)!.voters[0]!
    meta.run('META.UNFIT', { group: 0, replica })
    const before = meta.register
    meta.run('META.UNFIT', { group: 0, replica })
    assert.deepEqual(meta.run('META.UNFIT', { group: 0, replica: 999 }), { metaReplica: null })
    assert.equal(meta.register, before)
    assert.deepEqual(unfitOf(meta, 0), [replica])
  })

  it('gives a node another replica of the meta shard, the same however often it asks', () => {
    const meta = new MetaShard().found().admit('node2')
    const { metaReplica: old } = meta.register.nodes[0]!
    const answer = meta.run<{ metaReplica: number }>('META.UNFIT', { group: metaGroup, replica: old })
    assert.notEqual(answer.metaReplica, old)
    assert.deepEqual(meta.run('META.UNFIT', { group: metaGroup, replica: old }), answer)
    assert.equal(meta.register.nodes[0]!.metaReplica, answer.metaReplica)
  })

  it('is forgotten when the operation closes that left the replica out', () => {
    const meta = new MetaShard().found().admit('node2')
    const old = meta.register.shards.get(0)!.voters[0]!
    meta.run('META.UNFIT', { group: 0, replica: old.replica })
    const { operation } = meta.run<{
      operation: { id: number; voters: { replica: number; node: string }[] }
    }>('META.OPEN', { group: 0, replaces: 0, voters: fresh('node1'), learners: [] })
    meta.run('META.CLOSE', { group: 0, operation: operation.id, voters: [old], learners: [], index: 2 })
    assert.deepEqual(unfitOf(meta, 0), [old.replica])
    const again = meta.run<{ operation: typeof operation }>('META.OPEN', {
      group: 0,
      replaces: 0,
      voters: fresh('node1'),
      learners: [],
    }).operation
    const { voters } = again
    meta.run('META.CLOSE', { group: 0, operation: again.id, voters, learners: [], index: 3 })
    assert.deepEqual(unfitOf(meta, 0), [])
  })
})

describe('META.REPLACE', () => {
  it('gives up what a node holds and takes the next store that comes under its name, never the lost one', () => {
    const meta = new MetaShard().found()
    const old = meta.register.nodes[0]!
    meta.run('META.REPLACE', { nodeId: 'node1' })
    for (const { voters, unfit } of meta.register.shards.values())
      assert.deepEqual(
        unfit,
        voters.map(({ replica }) => replica),
      )
    assert.throws(() => meta.join('node1'), refusal('STORE_MISMATCH'))
    const back = meta.join('node1', { storeId: 'another' })
    assert.deepEqual([back.state, back.storeId], ['member', 'another'])
    assert.notEqual(back.metaReplica, old.metaReplica)
    assert.throws(() => meta.join('node1', { storeId: 'a third' }), refusal('STORE_MISMATCH'))
  })

  it('changes nothing the second time, and refuses who is not there', () => {
    const meta = new MetaShard().found()
    meta.run('META.REPLACE', { nodeId: 'node1' })
    const before = meta.register
    meta.run('META.REPLACE', { nodeId: 'node1' })
    assert.equal(meta.register, before)
    assert.throws(() => meta.run('META.REPLACE', { nodeId: 'node9' }), refusal('UNKNOWN_NODE'))
  })
})

describe('a request that is none', () => {
  const commands = ['FOUND', 'JOIN', 'STATE', 'OPEN', 'CLOSE', 'REPORT', 'UNFIT', 'REPLACE', 'PAUSE']
  const fields = [
    'group',
    'replica',
    'nodeId',
    'state',
    'voters',
    'learners',
    'index',
    'operation',
    'expected',
  ]

  it('is refused by every replica alike and changes nothing, whatever it is', () => {
    const meta = new MetaShard().found().admit('node2')
    const before = meta.register
    const garbage = fc.oneof(
      fc.jsonValue(),
      fc.dictionary(fc.constantFrom(...fields), fc.oneof(fc.jsonValue(), fc.array(fc.jsonValue()))),
    )
    fc.assert(
      fc.property(fc.constantFrom(...commands), garbage, (command, request) => {
        const applied = meta.apply(`META.${command}`, request)
        if (command === 'FOUND' && applied.kind === 'replies') return
        if (applied.kind === 'refused')
          assert.ok(['INVALID_ARGUMENT', 'UNKNOWN_NODE'].includes(applied.error.code), applied.error.code)
      }),
      { numRuns: 3_000 },
    )
    assert.deepEqual(meta.register, before)
  })
})
