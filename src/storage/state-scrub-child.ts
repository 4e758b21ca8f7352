import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { isError } from '../errors.ts'
import { prefixes } from '../keyspace/rows.ts'
import { FileDisk } from '../log/file-disk.ts'
import { readCheckpoint } from './checked-rows.ts'
import { decodeRecord } from './checkpoint-record.ts'
import {
  checkedValue,
  directoryKey,
  directoryName,
  isAbandoned,
  openEnvironment,
  openRows,
  rowSalt,
  rowsName,
} from './lmdb-env.ts'
import { generationDirectory } from './record-logs.ts'
import { scrubRecords } from './record-scrub.ts'
import type { ScrubLine, ScrubTask } from './state-scrub.ts'

/** The child of state-scrub.ts. Opens the environment read-only, so that it can't make anything worse. */
const task = JSON.parse(process.argv[2]!) as ScrubTask
const root = openEnvironment(join(task.directory, 'state'), task.replicasMax, true)
const directory = openRows(root, directoryName)
const disk = new FileDisk(task.directory)

/** Synchronously: the next thing may be a crash. */
const say = (line: ScrubLine) => void writeSync(1, `${JSON.stringify(line)}\n`)

/** Which rows are the replica's now: null when it has none (any more). Throws CORRUPT. */
function generationOf(replica: number): number | null {
  root.resetReadTxn()
  const record = directory.get(directoryKey(replica))
  return record === undefined || isAbandoned(record) ? null : decodeRecord(replica, record).generation
}

/** undefined: there is none any more, or all of them were replaced. */
function rowNow(replica: number, row: string): Uint8Array | undefined {
  const generation = generationOf(replica)
  if (generation === null) return undefined
  const stored = openRows(root, rowsName(replica, generation)).get(row)
  return stored && checkedValue(stored, row, replica, rowSalt(replica, generation))
}

for (const replica of task.replicas) {
  say({ begin: replica })
  let trouble: string | null = null
  let bytes = 0
  let generation: number | null = null
  try {
    generation = generationOf(replica)
    if (generation !== null) {
      const partitions = new Map<string, Uint8Array>()
      readCheckpoint(root, directory, replica, () => (key, value) => {
        bytes += key.length + value.byteLength
        if (key.startsWith(prefixes.partition)) partitions.set(key, Uint8Array.from(value))
      })
      const home = generationDirectory(replica, generation)
      for (const [row, value] of partitions)
        bytes += scrubRecords(disk, home, row, value, () => rowNow(replica, row))
    }
  } catch (error) {
    trouble = isError(error, 'CORRUPT') ? error.facts.what : String(error)
    try {
      // Dropped, or replaced by a snapshot's, while it was read: it is nobody's trouble any more.
      if (generation !== null && generationOf(replica) !== generation) trouble = null
    } catch {
      // What says whose the rows are can't be read: that is trouble as well.
    }
  }
  say({ replica, trouble })
  if (task.bytesPerSecond !== null) await pause((bytes * 1000) / task.bytesPerSecond)
}
await root.close()
