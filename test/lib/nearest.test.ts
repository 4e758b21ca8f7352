import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { nearest } from '../../src/lib/nearest.ts'

describe('the nearest word', () => {
  it('is the one with the fewest slips, three at most', () => {
    const known = ['gossip_peer_count', 'v_node_count', 'port']
    assert.equal(nearest('gosip_peer_count', known), 'gossip_peer_count')
    assert.equal(nearest('vnodecount', known), 'v_node_count')
    assert.equal(nearest('prot', known), 'port')
    assert.equal(nearest('something', known), null)
  })

  it('has one slip in three letters at most, and letters that changed places are one', () => {
    const known = ['zone', 'file', 'help', 'seed']
    assert.equal(nearest('hlep', known), 'help')
    assert.equal(nearest('nope', known), null)
    assert.equal(nearest('peer', known), null)
  })

  it('shares something with the word', () => {
    assert.equal(nearest('ab', ['xy']), null)
    assert.equal(nearest('a', ['b']), null)
    assert.equal(nearest('', ['b']), null)
  })

  it('is none for a text that is no word', () => {
    assert.equal(nearest('a'.repeat(100_000), ['a'.repeat(99_999)]), null)
  })
})
