import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { silentLogger } from '../../src/lib/logger.ts'
import { DiskSpace } from '../../src/storage/disk-space.ts'
import { SimDisk } from '../lib/sim-disk.ts'
import { ProcessClock, World } from '../sim/world.ts'

const mebibyte = 2 ** 20
const reserveBytes = 8 * mebibyte

/** A disk of which `freeBytes` are free before the reserve is filled. */
function make(freeBytes: number) {
  const world = new World(1)
  const clock = new ProcessClock(world)
  const disk = new SimDisk({ schedule: run => clock.soon(0.2, run), capacityBytes: freeBytes })
  const open = () => new DiskSpace({ disk, clock, log: silentLogger, reserveBytes })
  const run = (ms: number, isDone?: () => boolean) => world.run(world.nowMs + ms, isDone)
  return { disk, open, run }
}

describe('the room on a disk', () => {
  it('has a reserve, filled after the start, that counts as room', async () => {
    const { disk, open, run } = make(30 * mebibyte)
    const space = open()
    assert.equal(space.state, 'ok')
    assert.equal(space.reservedBytes, 0)
    assert.ok(await run(60_000, () => space.reservedBytes === reserveBytes))
    await run(1_000)
    assert.equal(disk.open('reserve').size(), reserveBytes)
    assert.equal(space.state, 'ok')
    assert.equal(space.freeBytes, 22 * mebibyte)
    space.close()
    assert.equal(open().reservedBytes, reserveBytes, 'the next start has it already')
  })

  it('goes from ok over nearly full to full, where the reserve is given up, and back by itself', async () => {
    const { disk, open, run } = make(40 * mebibyte)
    const space = open()
    await run(60_000)
    const seen: string[] = []
    for (const leftMebibytes of [9, 7, 3, 1]) {
      disk.fill(leftMebibytes * mebibyte)
      await run(1_000)
      seen.push(`${space.state} ${disk.exists('reserve')}`)
    }
    assert.deepEqual(seen, ['ok true', 'nearly_full true', 'nearly_full true', 'full false'])
    assert.ok(disk.freeBytes() >= reserveBytes, 'what was held is there for those who need it')
    const back: string[] = []
    for (const leftMebibytes of [11, 12, 17, 18]) {
      disk.fill(leftMebibytes * mebibyte)
      await run(1_000)
      back.push(space.state)
    }
    assert.deepEqual(back, ['full', 'nearly_full', 'nearly_full', 'ok'])
    disk.capacityBytes = 100 * mebibyte
    assert.ok(await run(120_000, () => space.reservedBytes === reserveBytes), 'the reserve is made again')
  })

  it('is full while writes find none, whatever the file system counts', async () => {
    const { open, run } = make(60 * mebibyte)
    const space = open()
    await run(60_000)
    space.refused()
    assert.equal(space.state, 'full')
    assert.equal(space.reservedBytes, 0)
    await run(1_000)
    assert.equal(space.state, 'full')
    assert.ok(await run(5_000, () => space.state === 'ok'))
  })

  it('is full from the first look on when it starts so', () => {
    const { open } = make(1 * mebibyte)
    assert.equal(open().state, 'full')
  })

  it('goes on without a reserve that can not be made', async () => {
    const { disk, open, run } = make(60 * mebibyte)
    disk.fault = (operation, path) =>
      operation === 'open' && path === 'reserve' ? Object.assign(new Error('no'), { code: 'EDQUOT' }) : null
    const space = open()
    await run(30_000)
    assert.equal(space.state, 'ok')
    assert.equal(space.reservedBytes, 0)
  })
})
