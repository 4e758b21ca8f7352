/**
 * A watcher on the ports of a node's storage: what goes to the journal and what it confirms, and a digest of each
 * replica's rows that is always up to date. It stands in the objects' own methods, so that it is no wall between a port
 * and its user.
 */

import type { Bytes } from '../../src/lib/bytes.ts'
import { crc32 } from '../../src/lib/crc.ts'
import type { Journal, JournalRecord, ReplicaState, StateStore } from '../../src/shard/ports.ts'
import { mix } from './ledger.ts'

export interface JournalWatcher {
  /** A batch is handed to the journal. */
  writing(batch: readonly JournalRecord[]): void
  /** … and is durable. */
  written(batch: readonly JournalRecord[]): void
  /** From here on nothing need be left of it … */
  removing(replica: number): void
  /** … and from here on nothing is. */
  removed(replica: number): void
}

export function watchJournal(journal: Journal, watcher: JournalWatcher): void {
  const write = journal.write.bind(journal)
  const remove = journal.remove.bind(journal)
  journal.write = (batch, done) => {
    watcher.writing(batch)
    write(batch, error => {
      if (error === null) watcher.written(batch)
      done(error)
    })
  }
  journal.remove = (replica, done) => {
    watcher.removing(replica)
    remove(replica, error => {
      if (error === null) watcher.removed(replica)
      done(error)
    })
  }
}

const watched = new WeakMap<ReplicaState, RowsWatch>()

/** The digest of all rows of a state that was opened through a watched store; undefined: it was not. */
export function rowsDigestOf(state: ReplicaState): number | undefined {
  return watched.get(state)?.digest
}

/** `look` runs a read of rows that nobody is to be punished for. */
type Look = <Seen>(read: () => Seen) => Seen

/** Sees each row that is written; `look` keeps what it reads from being held against anybody. */
export function watchStates(store: StateStore, look: Look, seen: (key: string, value: Bytes) => void): void {
  const open = store.open.bind(store)
  store.open = replica => {
    const state = open(replica)
    if (!watched.has(state)) watched.set(state, new RowsWatch(state, look, seen))
    return state
  }
}

class RowsWatch {
  /** Of all rows, whatever their order. */
  digest = 0
  private readonly hashes = new Map<string, number>()

  private readonly look: Look

  constructor(state: ReplicaState, look: Look, seen: (key: string, value: Bytes) => void) {
    this.look = look
    const put = state.put.bind(state)
    const remove = state.delete.bind(state)
    const stage = state.stage.bind(state)
    this.readAll(state)
    state.put = (key, value) => {
      this.note(key, value)
      seen(key, value)
      put(key, value)
    }
    state.delete = key => {
      this.digest = (this.digest - (this.hashes.get(key) ?? 0)) >>> 0
      this.hashes.delete(key)
      remove(key)
    }
    state.stage = manifest => {
      const staged = stage(manifest)
      const install = staged.install.bind(staged)
      staged.install = async () => {
        await install()
        this.readAll(state)
      }
      return staged
    }
  }

  /** The rows are others now, or those of a checkpoint: the digest is made from what is really there. */
  private readAll(state: ReplicaState): void {
    this.hashes.clear()
    this.digest = 0
    this.look(() => {
      for (const [key, value] of state.range('', '\u00ff'.repeat(8))) this.note(key, value)
    })
  }

  private note(key: string, value: Bytes): void {
    const hash = rowHash(key, value)
    this.digest = (this.digest - (this.hashes.get(key) ?? 0) + hash) >>> 0
    this.hashes.set(key, hash)
  }
}

function rowHash(key: string, value: Bytes): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
  // An empty row is not no row.
  return mix(hash, value.byteLength === 0 ? 0x5bd1e995 : crc32(value)) | 1
}
