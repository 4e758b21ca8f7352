import { writeFileSync, writeSync } from 'node:fs'
import { isError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { LmdbStateStore } from '../../src/storage/lmdb-state.ts'

/**
 * Runs in a process of its own that is killed, made to fail, or given a damaged file (state-process.test.ts).
 *
 *     write DIR           checkpoints for ever, printing the index of each one that was acknowledged
 *     install DIR         installs snapshots of replica 1 into replica 2 for ever, printing their index
 *     fail DIR FLAG       checkpoints; makes FLAG, at which the preloaded library fails one sync; checkpoints on
 *     read DIR COUNT      reads all rows of replica 1 by get, then by range; prints what it saw
 */
const [mode, directory, argument] = process.argv.slice(2) as [string, string, string]
const say = (line: unknown) => void writeSync(1, `${JSON.stringify(line)}\n`)
const meta = (index: number) => ({ index, term: 1, configuration: fromUtf8('voters') })
const options = { directory, replicasMax: 64, snapshotPartBytes: 20_000 }

/** Row r of the state at `index`: which rows exist and what they hold follows from the index alone. */
export function rowAt(index: number, row: number): string | null {
  const written = index - ((((index - row) % 7) + 7) % 7)
  if (written <= 0) return null
  return written % 5 === 0 ? null : `row ${row} as of ${written}`
}

export const rowCount = 300
export const rowKey = (row: number) => `row-${String(row).padStart(4, '0')}`
export const fixedValue = (row: number) => `value ${row} ${'abcdefgh'.repeat(row % 20)}`

async function write(store: LmdbStateStore, once: (index: number) => void | Promise<void>): Promise<never> {
  const state = store.open(1)
  for (let index = (state.checkpointed?.index ?? 0) + 1; ; index++) {
    for (let row = 0; row < rowCount; row++) {
      if ((((index - row) % 7) + 7) % 7 !== 0) continue
      const text = rowAt(index, row)
      if (text === null) state.delete(rowKey(row))
      else state.put(rowKey(row), fromUtf8(text))
    }
    await state.checkpoint(meta(index))
    await once(index)
  }
}

async function install(store: LmdbStateStore): Promise<void> {
  await write(store, async index => {
    if (index % 5 !== 0) return
    const target = store.open(2)
    const snapshot = await store.open(1).takeSnapshot()
    const staged = target.stage(snapshot.manifest)
    for (let next = staged.next(); next !== null; next = staged.next())
      staged.write(next.part, next.position, snapshot.read(next.part, next.position, next.length))
    await staged.verify()
    await staged.install()
    snapshot.release()
    say(index)
  })
}

async function fail(store: LmdbStateStore): Promise<void> {
  const attempt = async (name: string, work: () => Promise<unknown>) => {
    try {
      await work()
      say(`${name}: done`)
    } catch (error) {
      say(`${name}: ${isError(error) ? error.code : String(error)}`)
    }
  }
  const state = store.open(1)
  state.put('a', fromUtf8('1'))
  await attempt('first', () => state.checkpoint(meta(1)))
  state.put('a', fromUtf8('2'))
  writeFileSync(argument, '')
  await attempt('failing', () => state.checkpoint(meta(2)))
  await attempt('same replica', () => store.open(1).checkpoint(meta(3)))
  await attempt('other replica', () => store.open(2).checkpoint(meta(1)))
  await attempt('snapshot', () => state.takeSnapshot())
  await attempt('destroy', () => store.destroy(2))
  say(`reads: ${toUtf8(state.get('a')!)}`)
  say(`failure: ${isError(store.failure, 'STORAGE_FAILED')}`)
}

function read(store: LmdbStateStore): void {
  const count = Number(argument)
  const wrong: string[] = []
  let corrupt = 0
  let missing = 0
  const attempt = (work: () => void) => {
    try {
      work()
    } catch (error) {
      if (isError(error, 'CORRUPT')) corrupt++
      else wrong.push(String(error))
    }
  }
  attempt(() => void store.open(1))
  for (let row = 0; row < count; row++) {
    attempt(() => {
      const value = store.open(1).get(rowKey(row))
      if (value === undefined) missing++
      else if (toUtf8(value) !== fixedValue(row)) wrong.push(`${rowKey(row)}: ${toUtf8(value)}`)
    })
  }
  attempt(() => {
    for (const [key, value] of store.open(1).range('', '\xff')) {
      const row = Number(key.slice(4))
      if (key !== rowKey(row) || toUtf8(value) !== fixedValue(row))
        wrong.push(`range ${key}: ${toUtf8(value)}`)
    }
  })
  say({ wrong, corrupt, missing })
}

if (directory !== undefined) {
  const store = new LmdbStateStore(options)
  if (mode === 'write') await write(store, say)
  else if (mode === 'install') await install(store)
  else if (mode === 'fail') await fail(store)
  else if (mode === 'read') read(store)
  process.exit(0)
}
