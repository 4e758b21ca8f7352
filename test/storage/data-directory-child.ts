import { randomBytes } from 'node:crypto'
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { isError } from '../../src/errors.ts'
import { type DataDirectory, openDataDirectory } from '../../src/storage/data-directory.ts'

/**
 * A process that opens data directories as it is told, a line a command, and answers with a line of JSON:
 *
 *     open PATH     opens it as node1           {"opened": startCount} or {"refused": message}
 *     close         closes what it has open     {"closed": true}
 *     user ID       becomes this user           {"user": ID}
 *     count PATH    opens and closes for ever   {"opened": startCount}, again and again
 */
const random = { next: Math.random, below: () => 0, bytes: (length: number) => randomBytes(length) }
const say = (line: unknown) => void writeSync(1, `${JSON.stringify(line)}\n`)
const open = (path: string) => openDataDirectory({ path, nodeId: 'node1', random })
let held: DataDirectory | null = null

say({ ready: true })
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, argument] = line.split(' ') as [string, string]
  if (verb === 'open') {
    try {
      held = await open(argument)
      say({ opened: held.identity.startCount })
    } catch (error) {
      if (!isError(error, 'DATA_DIR')) throw error
      say({ refused: error.message })
    }
  } else if (verb === 'close') {
    held?.close()
    held = null
    say({ closed: true })
  } else if (verb === 'user') {
    process.setuid!(Number(argument))
    say({ user: Number(argument) })
  } else {
    for (;;) {
      const directory = await open(argument)
      say({ opened: directory.identity.startCount })
      directory.close()
    }
  }
}
