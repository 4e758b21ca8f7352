import assert from 'node:assert/strict'
import { it } from 'node:test'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { deferred } from '../../src/lib/deferred.ts'
import type { Disk, File } from '../../src/log/ports.ts'

export function commit(file: File, position: number, chunks: readonly Uint8Array[]): Promise<void> {
  const { promise, resolve, reject } = deferred<void>()
  file.commit(position, chunks, error => (error === null ? resolve() : reject(error)))
  return promise
}

/** What every Disk does. Call inside `describe`; `makeDisk` gives an empty one. */
export function diskContract(makeDisk: () => Disk): void {
  const text = (file: File, position = 0, length = 1000) => toUtf8(file.read(position, length))

  it('reads back what was written, and fewer bytes only at the end', () => {
    const file = makeDisk().open('a', { create: true })
    file.write(0, fromUtf8('hello world'))
    assert.equal(text(file), 'hello world')
    assert.equal(text(file, 6, 3), 'wor')
    assert.equal(text(file, 11), '')
    assert.equal(text(file, 99), '')
    file.write(6, fromUtf8('there'))
    assert.equal(text(file), 'hello there')
    assert.equal(file.size(), 11)
    file.close()
  })

  it('reads a gap as zeroes', () => {
    const file = makeDisk().open('a', { create: true })
    file.write(10_000, fromUtf8('x'))
    assert.equal(file.size(), 10_001)
    assert.ok(file.read(0, 10_000).every(byte => byte === 0))
    file.close()
  })

  it('gives each read bytes of its own', () => {
    const file = makeDisk().open('a', { create: true })
    file.write(0, fromUtf8('abc'))
    const first = file.read(0, 3)
    file.write(0, fromUtf8('xyz'))
    assert.equal(toUtf8(first), 'abc')
    file.close()
  })

  it('shows one file through two handles', () => {
    const disk = makeDisk()
    const writer = disk.open('a', { create: true })
    const reader = disk.open('a')
    writer.write(0, fromUtf8('abc'))
    assert.equal(text(reader), 'abc')
    writer.close()
    reader.close()
  })

  it('cuts and grows with truncate; what grows back is zero', () => {
    const file = makeDisk().open('a', { create: true })
    file.write(0, fromUtf8('hello world'))
    file.truncate(5)
    assert.equal(text(file), 'hello')
    file.truncate(8)
    assert.equal(text(file), 'hello\0\0\0')
    file.close()
  })

  it('commits many chunks in order at a position', async () => {
    const file = makeDisk().open('a', { create: true })
    const chunks = Array.from({ length: 3000 }, (_, i) => fromUtf8(i % 7 === 0 ? '' : `${i},`))
    await commit(file, 3, chunks)
    assert.equal(text(file, 3, 100_000), chunks.map(toUtf8).join(''))
    file.close()
  })

  it('commits nothing too', async () => {
    const file = makeDisk().open('a', { create: true })
    await commit(file, 0, [])
    assert.equal(file.size(), 0)
    file.close()
  })

  it('calls done of a commit later, never inside the call', async () => {
    const file = makeDisk().open('a', { create: true })
    let returned = false
    const { promise, resolve } = deferred<boolean>()
    file.commit(0, [fromUtf8('x')], () => resolve(returned))
    returned = true
    assert.equal(await promise, true)
    file.close()
  })

  it('allows one commit at a time, and no close meanwhile', async () => {
    const file = makeDisk().open('a', { create: true })
    const first = commit(file, 0, [fromUtf8('x')])
    assert.throws(() => file.commit(0, [fromUtf8('y')], () => {}), /under way/)
    assert.throws(() => file.close(), /under way/)
    await first
    file.close()
    assert.throws(() => file.read(0, 1), /after close/)
  })

  it('throws ENOENT for a file that is not there', () => {
    const disk = makeDisk()
    assert.throws(() => disk.open('a'), { code: 'ENOENT' })
    assert.throws(() => disk.open('none/a', { create: true }), { code: 'ENOENT' })
    assert.throws(() => disk.unlink('a'), { code: 'ENOENT' })
    assert.throws(() => disk.rename('a', 'b'), { code: 'ENOENT' })
    assert.throws(() => disk.syncDirectory('none'), { code: 'ENOENT' })
  })

  it('lists names in order; a missing directory is empty', () => {
    const disk = makeDisk()
    disk.makeDirectory('x/y')
    for (const name of ['c', 'a', 'b']) disk.open(`x/${name}`, { create: true }).close()
    assert.deepEqual(disk.list('x'), ['a', 'b', 'c', 'y'])
    assert.deepEqual(disk.list('x/y'), [])
    assert.deepEqual(disk.list('none'), [])
    assert.deepEqual([disk.exists('x/a'), disk.exists('x'), disk.exists('x/z')], [true, true, false])
  })

  it('renames over an existing file and unlinks', () => {
    const disk = makeDisk()
    for (const name of ['a', 'b']) {
      const file = disk.open(name, { create: true })
      file.write(0, fromUtf8(name))
      file.close()
    }
    disk.rename('a', 'b')
    assert.deepEqual(disk.list(''), ['b'])
    const file = disk.open('b')
    assert.equal(text(file), 'a')
    disk.unlink('b')
    assert.equal(text(file), 'a', 'an open file outlives its name')
    file.close()
    assert.equal(disk.exists('b'), false)
  })

  it('removes a tree, also one that is not there', () => {
    const disk = makeDisk()
    disk.makeDirectory('x/y')
    disk.open('x/y/a', { create: true }).close()
    disk.removeTree('x')
    disk.removeTree('x')
    assert.deepEqual(disk.list(''), [])
  })

  it('syncs files and directories and knows its free space', () => {
    const disk = makeDisk()
    const file = disk.open('a', { create: true })
    file.write(0, fromUtf8('x'))
    file.sync()
    disk.syncDirectory('')
    assert.ok(disk.freeBytes() > 0)
    file.close()
  })
}
