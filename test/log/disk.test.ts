import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import fc from 'fast-check'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { FileDisk } from '../../src/log/file-disk.ts'
import { type CrashFate, type SectorFate, SimDisk } from '../lib/sim-disk.ts'
import { commit, diskContract } from './disk-contract.ts'

const roots: string[] = []
after(() => {
  for (const root of roots) rmSync(root, { recursive: true })
})

describe('the real disk', () => {
  diskContract(() => {
    const root = mkdtempSync(join(tmpdir(), 'disk-'))
    roots.push(root)
    return new FileDisk(root)
  })
})

const makeSim = () => new SimDisk({ schedule: setImmediate })

/** All unsynced names and sizes survive; sectors meet `sector`. */
const fate = (sector: SectorFate, changes: Partial<CrashFate> = {}): CrashFate => ({
  random: new Prng(1),
  names: (_, pending) => pending,
  sector: () => sector,
  size: (_, __, last) => last,
  ...changes,
})

describe('the simulated disk', () => {
  diskContract(makeSim)
})

describe('a crash of the simulated disk', () => {
  const written = (unsynced: string) => {
    const disk = makeSim()
    const file = disk.open('a', { create: true })
    file.write(0, fromUtf8('synced!'))
    file.sync()
    disk.syncDirectory('')
    file.write(0, fromUtf8(unsynced))
    return disk
  }
  const content = (disk: SimDisk) => toUtf8(disk.open('a').read(0, 5000))

  it('keeps, loses, tears or garbles what was not synced, and only that', () => {
    for (const [kind, pattern] of [
      ['kept', /^changed$/],
      ['lost', /^synced!$/],
      ['torn', /^(c|ch|cha|chan|chang|change)?(synced!|ynced!|nced!|ced!|ed!|d!|!)$/],
    ] as const) {
      const disk = written('changed')
      disk.crashWith(fate(kind))
      assert.match(content(disk), pattern)
    }
    const disk = written('CHA')
    disk.crashWith(fate('garbled'))
    assert.notEqual(content(disk), 'synced!')
    assert.equal(toUtf8(disk.open('a').read(3, 4)), 'ced!', 'bytes that were not being written stay')
  })

  it('leaves synced bytes alone', () => {
    const disk = written('changed')
    disk.open('a').sync()
    disk.crashWith(fate('garbled'))
    assert.equal(content(disk), 'changed')
  })

  it('decides each sector on its own', () => {
    const disk = makeSim()
    const file = disk.open('a', { create: true })
    file.write(0, new Uint8Array(2048).fill(7))
    assert.deepEqual(
      disk.unsynced().map(at => at.sector),
      [0, 1, 2, 3],
    )
    disk.crashWith(fate('kept', { sector: (_, sector) => (sector % 2 === 0 ? 'kept' : 'lost') }))
    const after = disk.open('a')
    assert.deepEqual(
      [0, 512, 1024, 1536].map(position => after.read(position, 1)[0]),
      [7, 0, 7, 0],
    )
  })

  it('may lose growth and undo a cut that were not synced', () => {
    const disk = written('longer than before')
    disk.crashWith(fate('kept', { size: (_, synced) => synced }))
    assert.equal(content(disk), 'longer ')
    const cut = written('changed')
    cut.open('a').sync()
    cut.open('a').truncate(2)
    cut.crashWith(fate('lost', { size: (_, synced) => synced }))
    assert.equal(content(cut), 'changed')
  })

  it('keeps a prefix of the unsynced names of a directory', () => {
    for (let kept = 0; kept <= 4; kept++) {
      const disk = makeSim()
      disk.open('a', { create: true })
      disk.open('b', { create: true })
      disk.rename('a', 'c')
      disk.unlink('b')
      disk.crashWith(fate('kept', { names: () => kept }))
      assert.deepEqual(disk.list(''), [[], ['a'], ['a', 'b'], ['b', 'c'], ['c']][kept])
    }
  })

  it('keeps synced names', () => {
    const disk = makeSim()
    disk.makeDirectory('x')
    disk.syncDirectory('')
    disk.open('x/a', { create: true })
    disk.syncDirectory('x')
    disk.rename('x/a', 'x/b')
    disk.crashWith(fate('kept', { names: () => 0 }))
    assert.deepEqual(disk.list('x'), ['a'])
  })

  it('ends every open file, and a commit under way never completes', async () => {
    const disk = makeSim()
    const file = disk.open('a', { create: true })
    let completed = false
    file.commit(0, [fromUtf8('x')], () => {
      completed = true
    })
    disk.crash(new Prng(1))
    assert.throws(() => file.read(0, 1), /after the crash/)
    await new Promise(resolve => setImmediate(resolve))
    assert.equal(completed, false)
  })

  it('is the same for the same seed', () => {
    fc.assert(
      fc.property(fc.integer(), seed => {
        const disk = written('x'.repeat(3000))
        const copy = disk.clone()
        disk.crash(new Prng(seed))
        copy.crash(new Prng(seed))
        assert.deepEqual(disk.list(''), copy.list(''))
        assert.equal(content(disk), content(copy))
      }),
      { numRuns: 50 },
    )
  })

  it('puts at risk what a failed sync dropped, even when a later sync succeeds', () => {
    const disk = written('changed')
    disk.failOnce('sync')
    const file = disk.open('a')
    assert.throws(() => file.sync(), { code: 'EIO' })
    file.sync()
    disk.crashWith(fate('lost'))
    assert.equal(content(disk), 'synced!')
  })
})

describe('faults of the simulated disk', () => {
  it('fail once where told', async () => {
    const disk = makeSim()
    const file = disk.open('a', { create: true })
    disk.failOnce('write', 'b')
    disk.failOnce('write', 'a')
    assert.throws(() => file.write(0, fromUtf8('x')), { code: 'EIO' })
    file.write(0, fromUtf8('x'))
    disk.failOnce('read')
    assert.throws(() => file.read(0, 1), { code: 'EIO' })
    disk.failOnce('sync')
    await assert.rejects(commit(file, 0, [fromUtf8('y')]), { code: 'EIO' })
    await commit(file, 0, [fromUtf8('z')])
  })

  it('include a full disk, which still overwrites in place', async () => {
    const disk = new SimDisk({ schedule: setImmediate, capacityBytes: 1000 })
    const file = disk.open('a', { create: true })
    file.write(0, new Uint8Array(900))
    assert.equal(disk.freeBytes(), 100)
    await assert.rejects(commit(file, 900, [new Uint8Array(101)]), { code: 'ENOSPC' })
    await commit(file, 0, [new Uint8Array(900).fill(1)])
    file.truncate(0)
    assert.equal(disk.freeBytes(), 1000)
  })

  it('include a device that hangs', async () => {
    const disk = makeSim()
    const file = disk.open('a', { create: true })
    disk.stall()
    let completed = false
    const done = commit(file, 0, [fromUtf8('x')]).then(() => {
      completed = true
    })
    for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve))
    assert.equal(completed, false)
    disk.unstall()
    await done
  })
})
