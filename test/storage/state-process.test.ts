import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { isError } from '../../src/errors.ts'
import { Keyspace } from '../../src/keyspace/keyspace.ts'
import { decodeKept, encodeRecord } from '../../src/keyspace/record.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { pack } from '../../src/lib/packed.ts'
import { Prng } from '../../src/lib/prng.ts'
import type { ReplicaState } from '../../src/shard/ports.ts'
import { LmdbStateStore } from '../../src/storage/lmdb-state.ts'
import { scrubState } from '../../src/storage/state-scrub.ts'
import { programArguments } from '../lib/program.ts'
import { fixedValue, rowAt, rowCount, rowKey } from './state-child.ts'

const root = mkdtempSync(join(tmpdir(), 'state-process-'))
const meta = (index: number) => ({ index, term: 1, configuration: fromUtf8('voters') })

interface Child {
  readonly process: ChildProcess
  readonly lines: unknown[]
  /** Resolves with the n-th line, or with undefined when the child ended before. */
  line(n: number): Promise<unknown>
  readonly ended: Promise<number | NodeJS.Signals | null>
}

function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Child {
  const entry = join(import.meta.dirname, 'state-child.ts')
  const child = spawn(process.execPath, [...programArguments(entry), ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, ...env },
  })
  const lines: unknown[] = []
  let wake = () => {}
  let over = false
  createInterface({ input: child.stdout }).on('line', text => {
    lines.push(JSON.parse(text))
    wake()
  })
  const ended = new Promise<number | NodeJS.Signals | null>(resolve =>
    child.once('close', (code, signal) => {
      over = true
      wake()
      resolve(signal ?? code)
    }),
  )
  const line = async (n: number) => {
    while (lines.length <= n && !over) {
      await new Promise<void>(resolve => {
        wake = resolve
      })
    }
    return lines[n]
  }
  return { process: child, lines, line, ended }
}

function assertStateAt(state: ReplicaState, index: number): void {
  const expected: string[] = []
  for (let row = 0; row < rowCount; row++) {
    const text = rowAt(index, row)
    if (text !== null) expected.push(`${rowKey(row)}=${text}`)
    assert.equal(state.get(rowKey(row)) === undefined ? null : toUtf8(state.get(rowKey(row))!), text)
  }
  const seen = [...state.range('', '\xff')].map(([key, value]) => `${key}=${toUtf8(value)}`)
  assert.deepEqual(seen, expected)
  assert.equal(state.rowCount, expected.length)
}

describe('LMDB state in a process that dies', () => {
  after(() => rmSync(root, { recursive: true }))

  it('has every acknowledged checkpoint, whole, after kill -9', async () => {
    const directory = join(root, 'killed')
    let acknowledged = 0
    for (const lines of [1, 20]) {
      const child = start(['write', directory])
      await child.line(lines)
      child.process.kill('SIGKILL')
      assert.equal(await child.ended, 'SIGKILL')
      acknowledged = Math.max(acknowledged, ...(child.lines as number[]))
      const store = new LmdbStateStore({ directory, replicasMax: 64 })
      const index = store.open(1).checkpointed!.index
      // The kill may come between the commit and the line that says so.
      assert.ok(index === acknowledged || index === acknowledged + 1, `${index} after ${acknowledged}`)
      assertStateAt(store.open(1), index)
      acknowledged = index
      await store.close()
      assert.deepEqual(await scrubState({ directory, replicas: [1], replicasMax: 64 }), [
        { replica: 1, trouble: null },
      ])
    }
  })

  it('has the old or the new rows of a snapshot whose install was killed, and no leftovers', async () => {
    const directory = join(root, 'installing')
    for (const lines of [0, 2]) {
      const child = start(['install', directory])
      await child.line(lines)
      child.process.kill('SIGKILL')
      await child.ended
      const store = new LmdbStateStore({ directory, replicasMax: 64 })
      const target = store.open(2)
      assert.ok(target.checkpointed !== null && target.checkpointed.index % 5 === 0)
      assertStateAt(target, target.checkpointed.index)
      await store.close()
      const found = await scrubState({ directory, replicas: [1, 2], replicasMax: 64 })
      assert.deepEqual(
        found.map(({ trouble }) => trouble),
        [null, null],
      )
      const { databaseNames, openEnvironment } = await import('../../src/storage/lmdb-env.ts')
      const environment = openEnvironment(join(directory, 'state'), 64)
      assert.equal(databaseNames(environment).length, 3)
      await environment.close()
    }
  })

  it('resumes a snapshot being received from what was synced', async () => {
    const directory = join(root, 'staging')
    const source = new LmdbStateStore({ directory: join(root, 'source'), snapshotPartBytes: 1_500_000 })
    for (let row = 0; row < 400; row++) source.open(1).put(rowKey(row), new Uint8Array(10_000).fill(row))
    await source.open(1).checkpoint(meta(1))
    const snapshot = await source.open(1).takeSnapshot()
    assert.ok(snapshot.manifest.parts.length >= 3)
    const first = new LmdbStateStore({ directory })
    const staged = first.open(9).stage(snapshot.manifest)
    for (let i = 0; i < 3; i++) {
      const { part, position, length } = staged.next()!
      staged.write(part, position, snapshot.read(part, position, length))
    }
    const bytes = staged.bytesStaged
    await first.close()
    const second = new LmdbStateStore({ directory })
    const resumed = second.open(9).stage(snapshot.manifest)
    assert.equal(resumed.bytesStaged, bytes)
    for (let next = resumed.next(); next !== null; next = resumed.next())
      resumed.write(next.part, next.position, snapshot.read(next.part, next.position, next.length))
    await resumed.verify()
    await resumed.install()
    assert.equal(second.open(9).rowCount, 400)
    assert.equal(second.open(9).get(rowKey(399))![0], 399 & 255)
    await second.close()
    await source.close()
  })
})

describe('LMDB state on a disk that refuses a sync', () => {
  let library: string | null = null
  const directory = mkdtempSync(join(tmpdir(), 'state-refused-'))
  before(() => {
    const code = join(directory, 'fail.c')
    writeFileSync(
      code,
      `#include <errno.h>
       #include <stdlib.h>
       #include <unistd.h>
       #include <sys/syscall.h>
       int fdatasync(int fd) {
         const char *flag = getenv("FAIL_SYNC_FLAG");
         if (flag && unlink(flag) == 0) { errno = EIO; return -1; }
         return syscall(SYS_fdatasync, fd);
       }`,
    )
    try {
      execFileSync('gcc', ['-shared', '-fPIC', '-o', join(directory, 'fail.so'), code], { stdio: 'ignore' })
      library = join(directory, 'fail.so')
    } catch {
      library = null
    }
  })
  after(() => rmSync(directory, { recursive: true }))

  it('takes the first refused commit as final, though the disk would work again', async t => {
    if (library === null) return t.skip('no C compiler here')
    const data = join(directory, 'data')
    const flag = join(directory, 'flag')
    const child = start(['fail', data, flag], { LD_PRELOAD: library, FAIL_SYNC_FLAG: flag })
    assert.equal(await child.ended, 0)
    assert.deepEqual(child.lines, [
      'first: done',
      'failing: STORAGE_FAILED',
      'same replica: STORAGE_FAILED',
      'other replica: STORAGE_FAILED',
      'snapshot: STORAGE_FAILED',
      'destroy: STORAGE_FAILED',
      'reads: 2',
      'failure: true',
    ])
    const store = new LmdbStateStore({ directory: data, replicasMax: 64 })
    assert.equal(store.open(1).checkpointed?.index, 1)
    assert.equal(toUtf8(store.open(1).get('a')!), '1')
    await store.close()
  })
})

describe('LMDB state whose file was damaged', () => {
  const directory = mkdtempSync(join(tmpdir(), 'state-damaged-'))
  const rows = 2_000
  let clean: Buffer
  before(async () => {
    const store = new LmdbStateStore({ directory: join(directory, 'clean'), replicasMax: 64 })
    for (const replica of [1, 2]) {
      const state = store.open(replica)
      for (let row = 0; row < rows; row++) state.put(rowKey(row), fromUtf8(fixedValue(row)))
      await state.checkpoint(meta(1))
    }
    await store.close()
    clean = readFileSync(join(directory, 'clean', 'state', 'data.mdb'))
  })
  after(() => rmSync(directory, { recursive: true }))

  const damagedCopy = (name: string, bits: readonly number[]) => {
    const copy = join(directory, name)
    cpSync(join(directory, 'clean'), copy, { recursive: true })
    const bytes = Buffer.from(clean)
    for (const bit of bits) bytes[bit >>> 3]! ^= 1 << (bit & 7)
    writeFileSync(join(copy, 'state', 'data.mdb'), bytes)
    return copy
  }

  it('names replica and row when a bit of a value or a key is flipped', async () => {
    for (const needle of ['value 777 ', 'row-0777', 'row-1200']) {
      // Every copy that LMDB may have of the row: both replicas, and pages of no use any more.
      const bits: number[] = []
      for (let at = clean.indexOf(needle); at >= 0; at = clean.indexOf(needle, at + 1)) bits.push(at * 8 + 35)
      const store = new LmdbStateStore({ directory: damagedCopy(`named ${needle}`, bits), replicasMax: 64 })
      const errors: string[] = []
      let values = 0
      for (let row = 0; row < rows; row++) {
        try {
          const value = store.open(1).get(rowKey(row))
          if (value === undefined) continue
          assert.equal(toUtf8(value), fixedValue(row))
          values++
        } catch (error) {
          assert.ok(isError(error, 'CORRUPT'), String(error))
          errors.push(error.message)
        }
      }
      assert.ok(values >= rows - 2 && values < rows)
      assert.throws(
        () => [...store.open(1).range('', '\xff')],
        error => isError(error, 'CORRUPT') && /replica 1's state: row "/.test(error.message),
      )
      if (needle.startsWith('value'))
        assert.match(errors.join(), /^corrupt data in replica 1's state: row "row-0777"$/)
      await assert.rejects(store.open(1).takeSnapshot(), error => isError(error, 'CORRUPT'))
      // The replica is given up; its neighbour and the environment go on.
      await store.destroy(1)
      assert.deepEqual(store.replicas(), [2])
      store.open(3).put('new', fromUtf8('row'))
      await store.open(3).checkpoint(meta(1))
      await store.close()
      const again = new LmdbStateStore({ directory: join(directory, `named ${needle}`), replicasMax: 64 })
      assert.deepEqual(again.replicas(), [2, 3])
      await again.close()
    }
  })

  it('never gives a wrong value, whatever bits are flipped; a scrub finds what reads do not', async () => {
    const random = new Prng(20)
    for (let round = 0; round < 4; round++) {
      // LMDB's two first pages say where all others are, with checks of their own; here it is about the others.
      const bits = Array.from(
        { length: 12 },
        () => 2 * 4096 * 8 + random.below((clean.length - 2 * 4096) * 8),
      )
      const copy = damagedCopy(`random ${round}`, bits)
      const child = start(['read', copy, String(rows)])
      const code = await child.ended
      const seen = child.lines[0] as { wrong: string[]; corrupt: number; missing: number } | undefined
      if (seen === undefined) {
        // A crash of the reader is no wrong answer; but it is why the scrub is a process of its own.
        assert.notEqual(code, 0)
        continue
      }
      assert.deepEqual(seen.wrong, [])
      const found = await scrubState({ directory: copy, replicas: [1, 2], replicasMax: 64 })
      const trouble = found.find(({ replica }) => replica === 1)!.trouble
      if (seen.missing > 0 || seen.corrupt > 0) assert.notEqual(trouble, null)
    }
  })
})

describe('files of records that were damaged', () => {
  const directory = mkdtempSync(join(tmpdir(), 'records-damaged-'))
  after(() => rmSync(directory, { recursive: true }))
  const id = { stream: 3, partition: 0 }
  const partitionsOf = (state: ReplicaState) => {
    const keyspace = new Keyspace(state)
    keyspace.beginEntry(7, 1_000, 1)
    return keyspace.partitions
  }

  it('are found by a scrub and by whoever reads, never served; the rest of them is read', async () => {
    const store = new LmdbStateStore({ directory, replicasMax: 8, streamSegmentBytes: 2_000 })
    for (const replica of [1, 2]) {
      const state = store.open(replica)
      for (let at = 0; at < 40; at += 4) {
        const records = [0, 1, 2, 3].map(i =>
          encodeRecord({
            value: fromUtf8(`record ${at + i} ${'.'.repeat(80)}`),
            key: null,
            headers: [],
            type: 0,
          }),
        )
        partitionsOf(state).append(id, fromUtf8('s/0'), [pack(records)])
        await state.checkpoint(meta(at + 1))
      }
    }
    await store.close()
    const home = join(directory, 'streams', '1', '1', '3', '0-7')
    const files = readdirSync(home).filter(name => name.endsWith('.store'))
    assert.ok(files.length >= 3)
    const path = join(home, files[1]!)
    const bytes = readFileSync(path)
    bytes[bytes.indexOf(`record ${Number(files[1]!.slice(0, 20)) + 2} `) + 10]! ^= 4
    writeFileSync(path, bytes)

    const findings = await scrubState({ directory, replicas: [1, 2], replicasMax: 8 })
    assert.deepEqual(
      findings.map(({ replica, trouble }) => [replica, trouble === null]),
      [
        [1, false],
        [2, true],
      ],
    )
    assert.match(findings[0]!.trouble!, new RegExp(`${files[1]!}: a wrong length or checksum`))
    const again = new LmdbStateStore({ directory, replicasMax: 8, streamSegmentBytes: 2_000 })
    const partitions = partitionsOf(again.open(1))
    let corrupt = 0
    for (let offset = 0; offset < 40; offset++) {
      try {
        const [kept] = partitions.read(id, offset, 1, 1).records
        assert.match(toUtf8(decodeKept(kept!).value), new RegExp(`^record ${offset} `))
      } catch (error) {
        assert.ok(isError(error, 'CORRUPT'), String(error))
        corrupt++
      }
    }
    assert.equal(corrupt, 1)
    await again.close()
  })
})
