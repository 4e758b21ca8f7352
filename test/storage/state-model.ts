import assert from 'node:assert/strict'
import fc from 'fast-check'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import type { ReplicaState, StateStore } from '../../src/shard/ports.ts'

/**
 * A store beside a model of it: rows in a Map, a journal of all writes, and what the rows were at each checkpoint. The
 * store is reopened and crashed at any moment; the journal behind the checkpoint that it shows is replayed; rows must
 * always be the model's.
 */
export interface ModelDriver {
  open(): StateStore
  /** Lets what was begun become durable. */
  settle(work: Promise<void>): Promise<void>
  /** Ends the store with its work under way; null = it can only be closed. */
  readonly crash: ((store: StateStore) => void) | null
}

type Step =
  | { readonly kind: 'put'; readonly key: string; readonly value: string }
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'range'; readonly from: string; readonly to: string }
  | { readonly kind: 'checkpoint' }
  | { readonly kind: 'settle' }
  | { readonly kind: 'snapshot' }
  | { readonly kind: 'reopen' }
  | { readonly kind: 'crash' }

const key = fc
  .array(fc.constantFrom('\x00', 'a', 'b', '\x7f', '\x80', '\xff'), { minLength: 1, maxLength: 3 })
  .map(chars => chars.join(''))
const value = fc.string({ maxLength: 8 })

export const steps = fc.array(
  fc.oneof(
    { weight: 12, arbitrary: fc.record({ kind: fc.constant('put' as const), key, value }) },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('delete' as const), key }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('range' as const), from: key, to: key }) },
    { weight: 3, arbitrary: fc.constant({ kind: 'checkpoint' as const }) },
    { weight: 2, arbitrary: fc.constant({ kind: 'settle' as const }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'snapshot' as const }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'reopen' as const }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'crash' as const }) },
  ),
  { maxLength: 80, size: 'max' },
) as fc.Arbitrary<Step[]>

type Rows = Map<string, string>
const sorted = (rows: Rows, from = '', to = '\xff\xff\xff\xff') =>
  [...rows].filter(([k]) => k >= from && k < to).sort(([a], [b]) => (a < b ? -1 : 1))
const shown = (state: ReplicaState, from = '', to = '\xff\xff\xff\xff') =>
  [...state.range(from, to)].map(([k, bytes]) => [k, toUtf8(bytes)])

export async function followModel(driver: ModelDriver, run: readonly Step[]): Promise<void> {
  let store = driver.open()
  let state = store.open(1)
  const rows: Rows = new Map()
  const journal: { readonly key: string; readonly value: string | null }[] = []
  /** Index → the rows then; an index is how much of the journal was applied. */
  const checkpoints = new Map<number, Rows>()
  let acknowledged = -1
  let running: { readonly index: number; readonly work: Promise<void> } | null = null

  const write = (k: string, v: string | null) => {
    journal.push({ key: k, value: v })
    if (v === null) {
      rows.delete(k)
      state.delete(k)
    } else {
      rows.set(k, v)
      state.put(k, fromUtf8(v))
    }
  }
  const settle = async () => {
    if (running === null) return
    await driver.settle(running.work)
    acknowledged = running.index
    running = null
    assert.equal(state.rowCount, checkpoints.get(acknowledged)!.size)
  }
  const recover = () => {
    store = driver.open()
    state = store.open(1)
    const index = state.checkpointed?.index ?? -1
    assert.ok(
      index === acknowledged || index === running?.index,
      `${index} is shown, ${acknowledged} was acknowledged`,
    )
    running = null
    acknowledged = index
    const base = checkpoints.get(index) ?? new Map()
    assert.deepEqual(shown(state), sorted(base))
    assert.equal(state.rowCount, base.size)
    for (const entry of journal.slice(Math.max(index, 0))) {
      if (entry.value === null) state.delete(entry.key)
      else state.put(entry.key, fromUtf8(entry.value))
    }
  }

  for (const step of run) {
    switch (step.kind) {
      case 'put':
        write(step.key, step.value)
        break
      case 'delete':
        write(step.key, null)
        break
      case 'range':
        assert.deepEqual(shown(state, step.from, step.to), sorted(rows, step.from, step.to))
        break
      case 'checkpoint':
        await settle()
        checkpoints.set(journal.length, new Map(rows))
        running = {
          index: journal.length,
          work: state.checkpoint({ index: journal.length, term: 1, configuration: fromUtf8('') }),
        }
        break
      case 'settle':
        await settle()
        break
      case 'snapshot': {
        await settle()
        if (acknowledged < 0) break
        const taken = state.takeSnapshot()
        await driver.settle(taken.then(() => undefined))
        const snapshot = await taken
        const target = store.open(2)
        if (target.checkpointed !== null && target.checkpointed.index > snapshot.manifest.index) break
        const staged = target.stage(snapshot.manifest)
        for (let next = staged.next(); next !== null; next = staged.next())
          staged.write(next.part, next.position, snapshot.read(next.part, next.position, next.length))
        await driver.settle(staged.verify())
        await driver.settle(staged.install())
        assert.deepEqual(shown(target), sorted(checkpoints.get(snapshot.manifest.index)!))
        snapshot.release()
        break
      }
      case 'reopen':
        await settle()
        await driver.settle(store.close())
        recover()
        break
      case 'crash':
        if (driver.crash === null) break
        driver.crash(store)
        recover()
        break
    }
    for (const probe of ['a', 'b', '\xff', 'ab', '\x00'])
      assert.equal(state.get(probe) === undefined ? undefined : toUtf8(state.get(probe)!), rows.get(probe))
  }
  assert.deepEqual(shown(state), sorted(rows))
  await settle()
  await driver.settle(store.close())
}
