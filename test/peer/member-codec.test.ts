import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { MemberRecord } from '../../src/gossip/member.ts'
import { readMember, writeMember } from '../../src/peer/member-codec.ts'

const plain: MemberRecord = {
  nodeId: 'node1',
  storeId: 'store',
  peerAddress: 'node1:8400',
  clientAddress: 'node1:8401',
  zone: 'a',
  incarnation: 3,
  heartbeat: 70,
  state: 'alive',
  load: { replicas: 5, leaders: 2, storedBytes: 100, freeBytes: 1e12, operationsPerSecond: 2.5 },
  leads: [
    { shard: 0, term: 4 },
    { shard: 9, term: 1 },
  ],
}

describe('a member on the wire', () => {
  it('is what it was', () => {
    for (const record of [
      plain,
      { ...plain, disk: 'full', isStopping: true } as const,
      { ...plain, leads: [] },
    ])
      assert.deepEqual(readMember(writeMember(record)), record)
  })

  it('loses broken hints alone', () => {
    const written = { ...writeMember(plain), hints: '{"load":[1],"leads":7,"disk":"gone","stops":1}' }
    assert.deepEqual(readMember(written), {
      ...plain,
      load: { replicas: 0, leaders: 0, storedBytes: 0, freeBytes: 0, operationsPerSecond: 0 },
      leads: [],
    })
  })
})
