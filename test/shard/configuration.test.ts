import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { emptyBytes, fromUtf8 } from '../../src/lib/bytes.ts'
import {
  birthConfiguration,
  blankConfiguration,
  bornAt,
  type ChangeContext,
  type Configuration,
  decodeChange,
  decodeConfiguration,
  encodeChange,
  encodeConfiguration,
  isJoint,
  nextConfiguration,
  noConfState,
  nodesOf,
} from '../../src/shard/configuration.ts'

const corrupt = { name: 'RoundhouseError', code: 'CORRUPT' }
const json = (value: unknown) => fromUtf8(JSON.stringify(value))

const current: Configuration = {
  group: 3,
  index: 10,
  operation: 4,
  members: [
    { replica: 1, node: 'a' },
    { replica: 2, node: 'b' },
  ],
  confState: { ...noConfState, voters: [1], learners: [2] },
}

const id = fc.nat(Number.MAX_SAFE_INTEGER)
const plain = { noNullPrototype: true } as const
const member = fc.record({ replica: id, node: fc.string() }, plain)
const ids = fc.array(id, { maxLength: 5 })
const confState = fc.record(
  {
    voters: ids,
    votersOutgoing: ids,
    learners: ids,
    learnersNext: ids,
    autoLeave: fc.boolean(),
  },
  plain,
)
const configuration = fc.record(
  {
    group: id,
    index: id,
    operation: id,
    members: fc.array(member),
    confState,
    quarantined: fc.string(),
  },
  { ...plain, requiredKeys: ['group', 'index', 'operation', 'members', 'confState'] },
)

describe('the bytes of a configuration', () => {
  it('come back as they went in', () => {
    fc.assert(
      fc.property(configuration, each => {
        assert.deepEqual(decodeConfiguration(encodeConfiguration(each as Configuration)), each)
      }),
    )
  })

  it('are refused when they are no JSON', () => {
    for (const bytes of [emptyBytes, fromUtf8('{'), Uint8Array.of(0xff, 0xfe)])
      assert.throws(() => decodeConfiguration(bytes), corrupt)
  })

  it('are refused when a field is missing or of another kind', () => {
    const { confState: state } = current
    for (const value of [
      null,
      7,
      [],
      {},
      { ...current, group: '3' },
      { ...current, group: undefined },
      { ...current, index: 1.5 },
      { ...current, operation: null },
      { ...current, operation: 2 ** 60 },
      { ...current, members: undefined },
      { ...current, members: {} },
      { ...current, members: [null] },
      { ...current, members: [{ replica: 1 }] },
      { ...current, members: [{ replica: '1', node: 'a' }] },
      { ...current, confState: null },
      { ...current, confState: [] },
      { ...current, confState: { ...state, voters: undefined } },
      { ...current, confState: { ...state, votersOutgoing: 1 } },
      { ...current, confState: { ...state, learners: ['2'] } },
      { ...current, confState: { ...state, learnersNext: [0.5] } },
    ])
      assert.throws(() => decodeConfiguration(json(value)), corrupt, JSON.stringify(value))
  })
})

describe('the bytes of a change', () => {
  const change: ChangeContext = { operation: 5, expectedIndex: 10, added: [{ replica: 3, node: 'c' }] }

  it('come back as they went in', () => {
    assert.deepEqual(decodeChange(encodeChange(change)), change)
  })

  it('are none where Raft leaves a joint configuration by itself', () => {
    assert.equal(decodeChange(emptyBytes), null)
  })

  it('are refused when a field is missing or of another kind', () => {
    for (const value of [
      {},
      7,
      [],
      { ...change, operation: '5' },
      { ...change, expectedIndex: undefined },
      { ...change, added: undefined },
      { ...change, added: [{ replica: 3 }] },
    ])
      assert.throws(() => decodeChange(json(value)), corrupt, JSON.stringify(value))
    assert.throws(() => decodeChange(fromUtf8('{')), corrupt)
  })

  it('are refused when they are null', () => {
    assert.throws(() => decodeChange(json(null)), corrupt)
  })
})

describe('the configuration after a change', () => {
  it('has the new index, the operation, and the node that was brought in', () => {
    const next = { ...noConfState, voters: [1], learners: [2, 3] }
    const context = { operation: 5, expectedIndex: 10, added: [{ replica: 3, node: 'c' }] }
    assert.deepEqual(nextConfiguration(current, 12, next, context), {
      group: 3,
      index: 12,
      operation: 5,
      members: [...current.members, { replica: 3, node: 'c' }],
      confState: next,
    })
  })

  it('forgets the nodes of replicas that nothing names any more', () => {
    const next = { ...noConfState, voters: [1] }
    const context = { operation: 5, expectedIndex: 10, added: [] }
    assert.deepEqual(nextConfiguration(current, 12, next, context).members, [{ replica: 1, node: 'a' }])
  })

  it('keeps the nodes of voters on their way out and of learners to be', () => {
    const next = { ...noConfState, voters: [2], votersOutgoing: [1], learnersNext: [1] }
    const { members } = nextConfiguration(current, 12, next, { operation: 5, expectedIndex: 10, added: [] })
    assert.deepEqual(members, current.members)
  })

  it('keeps the highest operation when a joint configuration is left without a context', () => {
    assert.equal(nextConfiguration(current, 12, current.confState, null).operation, 4)
  })

  it('names its members in the order of their ids, each once', () => {
    const next = { ...noConfState, voters: [2, 9], votersOutgoing: [1, 2], learners: [5], learnersNext: [1] }
    const { members } = nextConfiguration(current, 12, next, null)
    assert.deepEqual(
      members.map(each => each.replica),
      [1, 2, 5, 9],
    )
  })

  it('does not carry a quarantine over', () => {
    const next = nextConfiguration({ ...current, quarantined: 'rot' }, 12, current.confState, null)
    assert.equal('quarantined' in next, false)
  })
})

describe('a configuration', () => {
  it('is joint while voters are on their way out', () => {
    assert.equal(isJoint(current), false)
    assert.equal(
      isJoint({ ...current, confState: { ...noConfState, voters: [1], votersOutgoing: [2] } }),
      true,
    )
  })

  it('names nobody in a replica that has heard of nobody yet', () => {
    assert.deepEqual(blankConfiguration(7), {
      group: 7,
      index: 0,
      operation: 0,
      members: [],
      confState: noConfState,
    })
  })

  it('of a birth has the first replica as its only voter, at the index where the log begins', () => {
    const birth = birthConfiguration(7, { replica: 4, node: 'a' })
    assert.deepEqual(birth, {
      group: 7,
      index: 1,
      operation: 0,
      members: [{ replica: 4, node: 'a' }],
      confState: { ...noConfState, voters: [4] },
    })
    assert.deepEqual(bornAt(birth), { index: 1, term: 1 })
  })

  it('of a replica that has heard of nobody begins before the first entry', () => {
    assert.deepEqual(bornAt(blankConfiguration(7)), { index: 0, term: 0 })
  })

  it('tells the nodes of replicas, and nothing for those it does not name', () => {
    assert.deepEqual(nodesOf(current, [2, 1, 8]), ['b', 'a', ''])
  })
})
