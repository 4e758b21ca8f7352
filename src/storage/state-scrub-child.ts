import { writeSync } from 'node:fs'
import { isError } from '../errors.ts'
import { readCheckpoint } from './checked-rows.ts'
import { directoryName, openEnvironment, openRows } from './lmdb-env.ts'
import type { ScrubLine } from './state-scrub.ts'

/** The child of state-scrub.ts. Opens the environment read-only, so that it can't make anything worse. */
const task = JSON.parse(process.argv[2]!) as { path: string; replicas: number[]; replicasMax: number }
const root = openEnvironment(task.path, task.replicasMax, true)
const directory = openRows(root, directoryName)

/** Synchronously: the next thing may be a crash. */
const say = (line: ScrubLine) => void writeSync(1, `${JSON.stringify(line)}\n`)

for (const replica of task.replicas) {
  say({ begin: replica })
  let trouble: string | null = null
  try {
    readCheckpoint(root, directory, replica, () => () => undefined)
  } catch (error) {
    trouble = isError(error, 'CORRUPT') ? error.facts.what : String(error)
  }
  say({ replica, trouble })
}
await root.close()
