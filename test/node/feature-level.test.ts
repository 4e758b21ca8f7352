import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { commonLevel } from '../../src/node/feature-level.ts'
import { joinRequest, MetaShard } from './cluster-register.ts'

const refusal = (code: string) => ({ name: 'RoundhouseError', code })
/** A cluster of these members, by the level that each supports. */
function clusterOf(...levels: readonly number[]): MetaShard {
  const [first, ...others] = levels
  const founder = { ...joinRequest('node1', { level: first! }), metaReplica: 1 }
  const meta = new MetaShard().found({ node: founder })
  for (const [i, level] of others.entries()) meta.join(`node${i + 2}`, { level })
  return meta
}

describe('the feature level', () => {
  it('is that of the founder at first', () => {
    assert.equal(clusterOf(3).register.level, 3)
    assert.equal(new MetaShard().found().register.level, 1)
  })

  it('rises to what all members support, once all are registered so', () => {
    const meta = clusterOf(1, 2, 3)
    meta.run('META.LEVEL', {})
    assert.equal(meta.register.level, 1)
    meta.join('node1', { level: 2 })
    meta.run('META.LEVEL', {})
    assert.equal(meta.register.level, 2)
  })

  it('does not wait for a node that has left, and does for one that leaves', () => {
    const meta = clusterOf(1, 2)
    meta.join('node1', { level: 2 })
    meta.join('old', { level: 1 })
    meta.run('META.STATE', { nodeId: 'old', state: 'leaving' })
    meta.run('META.LEVEL', {})
    assert.equal(meta.register.level, 1)
    meta.run('META.STATE', { nodeId: 'old', state: 'left' })
    meta.run('META.LEVEL', {})
    assert.equal(meta.register.level, 2)
  })

  it('never falls: an older release is refused, as a joiner and as a member that comes back', () => {
    const meta = clusterOf(2, 2)
    const { epoch } = meta.register
    for (const [nodeId, level] of [
      ['node2', { level: 1 }],
      ['node2', {}],
      ['node3', { level: 1 }],
    ] as const)
      assert.throws(() => meta.join(nodeId, level), refusal('RELEASE_TOO_OLD'))
    meta.run('META.LEVEL', {})
    assert.deepEqual([meta.register.level, meta.register.epoch], [2, epoch])
  })

  it('may be lowered by a member as long as it has not risen: then it does not rise', () => {
    const meta = clusterOf(1, 2)
    meta.join('node1', { level: 2 })
    meta.join('node2', { level: 1 })
    meta.run('META.LEVEL', {})
    assert.equal(meta.register.level, 1)
  })

  it('of nobody is that of the first release', () => {
    assert.equal(commonLevel([]), 1)
    assert.equal(commonLevel([{ state: 'member' }]), 1)
  })
})
