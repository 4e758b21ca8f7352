import assert from 'node:assert/strict'
import { readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { BrokenInvariant } from '../../src/lib/assert.ts'
import { FileDisk } from '../../src/log/file-disk.ts'
import { heapMapper, type MapFile, memoryMapper } from '../../src/log/mapped-file.ts'

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')
const mmapExpected = process.platform === 'linux' || process.platform === 'darwin'

/** Lines of this process's address map that name `path`. */
const mapsOf = (path: string) =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter(line => line.endsWith(path))
/** Bytes of address space that this process uses. */
const addressSpace = () => Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * 4096

let root: string
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'roundhouse-mapped-'))
})
after(() => rm(root, { recursive: true }))

const mappers: Record<string, () => MapFile> = {
  heap: () => heapMapper(new FileDisk(root)),
  mapped: () => memoryMapper(root, heapMapper(new FileDisk(root))),
}

for (const [name, mapper] of Object.entries(mappers)) {
  describe(`a ${name} file`, () => {
    it('shows the bytes of the file', () => {
      const content = Buffer.from(Array.from({ length: 10_000 }, (_, i) => (i * 7) & 0xff))
      writeFileSync(join(root, 'a'), content)
      const file = mapper()('a')
      assert.equal(file.kind, mmapExpected ? name : 'heap')
      assert.equal(Buffer.compare(file.bytes, content), 0)
      file.close()
    })

    it('shows an empty file as no bytes', () => {
      writeFileSync(join(root, 'empty'), '')
      const file = mapper()('empty')
      assert.equal(file.bytes.byteLength, 0)
      file.close()
    })

    it('throws for a missing file', () => {
      assert.throws(() => mapper()('missing'), { code: 'ENOENT' })
    })

    it('outlives the unlinking of its file', () => {
      writeFileSync(join(root, 'b'), 'content')
      const file = mapper()('b')
      unlinkSync(join(root, 'b'))
      assert.equal(Buffer.from(file.bytes).toString(), 'content')
      file.close()
    })

    it('gives no bytes once it is closed', () => {
      writeFileSync(join(root, 'c'), 'content')
      const file = mapper()('c')
      file.close()
      file.close()
      assert.throws(() => file.bytes, BrokenInvariant)
    })
  })
}

describe('a mapping', { skip: process.platform === 'linux' ? false : 'reads /proc' }, () => {
  const open = mappers.mapped!

  it('leaves old views readable, as zeros, when it is closed', () => {
    writeFileSync(join(root, 'd'), Buffer.alloc(9000, 7))
    const file = open()('d')
    const view = file.bytes.subarray(4000, 4010)
    assert.equal(view[0], 7)
    file.close()
    assert.deepEqual([...view], Array(10).fill(0))
  })

  it('holds neither descriptor nor file after close', () => {
    writeFileSync(join(root, 'e'), Buffer.alloc(9000, 7))
    const file = open()('e')
    assert.equal(mapsOf('/e').length, 1)
    file.close()
    assert.equal(mapsOf('/e').length, 0)
  })

  it('gives its addresses back once nobody can see them, closed or forgotten', async () => {
    const bytes = 4 << 20
    writeFileSync(join(root, 'f'), Buffer.alloc(bytes, 7))
    const base = addressSpace()
    const rounds = 256
    for (let i = 0; i < rounds; i++) {
      const file = open()('f')
      assert.equal(file.bytes[bytes - 1], 7)
      if (i % 2 === 0) file.close()
    }
    const deadline = Date.now() + 10_000
    while (addressSpace() - base > (rounds * bytes) / 8) {
      assert.ok(Date.now() < deadline, 'the ranges were not unmapped')
      collect()
      await turn()
    }
    assert.equal(statSync(join(root, 'f')).size, bytes)
  })

  it('falls back to the heap where the kernel refuses to map', () => {
    const fallBack: MapFile = () => ({ kind: 'heap', bytes: Buffer.from('from the heap'), close() {} })
    // A directory opens and has a size, but has no pages.
    assert.equal(Buffer.from(memoryMapper(root, fallBack)('.').bytes).toString(), 'from the heap')
  })
})
