import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { WallClocks } from '../../src/node/wall-clocks.ts'

const yearMs = 365 * 86_400_000

function made() {
  const time = { now: 1_000, wall: 1_700_000_000_000 }
  const clocks = new WallClocks('node1', {
    now: () => time.now,
    wall: () => time.wall,
    after: () => () => {},
  })
  const pass = (ms: number) => {
    time.now += ms
    time.wall += ms
  }
  return { time, clocks, pass }
}

describe('the median of wall clocks', () => {
  it('is that of three, whatever the one that leads thinks', () => {
    const { time, clocks } = made()
    clocks.hear('node2', time.wall + 20)
    clocks.hear('node3', time.wall - 30)
    assert.equal(clocks.medianWallMs(['node1', 'node2', 'node3']), time.wall)
    assert.equal(clocks.offMs('node2'), 20)
  })

  it('stays where it was when the own clock steps by years, before anybody was heard again', () => {
    const { time, clocks, pass } = made()
    clocks.hear('node2', time.wall)
    clocks.hear('node3', time.wall)
    const trueMs = time.wall
    pass(300)
    time.wall += yearMs
    assert.equal(clocks.medianWallMs(['node1', 'node2', 'node3']), trueMs + 300)
    assert.equal(clocks.offMs('node1'), yearMs)
    assert.equal(clocks.offMs('node2'), 0)
  })

  it('goes on with time while nobody is heard', () => {
    const { time, clocks, pass } = made()
    clocks.hear('node2', time.wall + 100)
    clocks.hear('node3', time.wall + 100)
    pass(5_000)
    assert.equal(clocks.medianWallMs(['node2', 'node3']), time.wall + 100)
  })

  it('is not known before a majority of those asked for was heard', () => {
    const { time, clocks } = made()
    clocks.hear('node4', time.wall)
    assert.equal(clocks.medianWallMs(['node1', 'node2', 'node3']), Number.NaN)
    clocks.hear('node2', time.wall)
    assert.equal(clocks.medianWallMs(['node1', 'node2', 'node3']), time.wall)
  })

  it('is that of all who were heard, where of those asked for only two are there and one is years behind', () => {
    const { time, clocks } = made()
    const trueMs = time.wall
    for (const node of ['node2', 'node4', 'node5']) clocks.hear(node, trueMs)
    time.wall -= yearMs
    assert.equal(clocks.medianWallMs(['node1', 'node2', 'node3']), trueMs)
  })
})
