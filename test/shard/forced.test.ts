import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Configuration, noConfState } from '../../src/shard/configuration.ts'
import { forceConfiguration } from '../../src/shard/forced.ts'

/** Replica i is on node n<i>; this directory is n1's. */
function configuration(voters: number[], more: Partial<Configuration['confState']> = {}): Configuration {
  const confState = { ...noConfState, voters, ...more }
  const ids = [...new Set([...voters, ...confState.votersOutgoing, ...confState.learners])]
  return {
    group: 3,
    index: 40,
    operation: 7,
    members: ids.map(replica => ({ replica, node: `n${replica}` })),
    confState,
  }
}

function verdict(of: Configuration, lost: readonly number[], wins = false) {
  const survivor = { replica: 1, configuration: of, applied: { index: 50, term: 2 }, lastIndex: 60 }
  return forceConfiguration(survivor, new Set(lost.map(id => `n${id}`)), wins, 99)
}

describe('a group some of whose nodes are lost for good', () => {
  it('is left alone while a majority of its voters is left', () => {
    assert.equal(verdict(configuration([1, 2, 3]), [3]).kind, 'healthy')
    assert.equal(verdict(configuration([2, 3, 4], { learners: [1] }), [4]).kind, 'healthy')
  })

  it('gets the replica that is left as its only voter, behind all that is in its log', () => {
    const found = verdict(configuration([1, 2, 3]), [2, 3])
    assert.ok(found.kind === 'forced')
    assert.deepEqual(found.lost, ['n2', 'n3'])
    assert.deepEqual(found.configuration, {
      group: 3,
      index: 61,
      operation: 7,
      members: [{ replica: 1, node: 'n1' }],
      confState: { ...noConfState, voters: [1] },
      forced: { at: 99, applied: { index: 50, term: 2 } },
    })
  })

  it('may get a learner, when no voter is left', () => {
    assert.equal(verdict(configuration([2, 3, 4], { learners: [1] }), [2, 3, 4]).kind, 'forced')
  })

  it('needs both halves of a joint configuration', () => {
    assert.equal(verdict(configuration([1, 2, 3], { votersOutgoing: [1, 4, 5] }), [4, 5]).kind, 'others')
    assert.equal(verdict(configuration([1, 2, 3], { votersOutgoing: [1, 2, 5] }), [5]).kind, 'healthy')
  })

  it('is not decided here while voters are left elsewhere, unless this node is to win', () => {
    const five = configuration([1, 2, 3, 4, 5])
    assert.deepEqual(verdict(five, [3, 4, 5]), { kind: 'others', nodes: ['n2'] })
    assert.equal(verdict(five, [3, 4, 5], true).kind, 'forced')
  })
})
