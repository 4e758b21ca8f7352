/** `npm run test:scripts -- FOLDER`: runs every *.txt under it against src/raft. Exit 1 when one fails. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { usage } from '../../command-line.ts'
import { runScript, scriptsUnder } from './run.ts'

const help = `Usage: npm run test:scripts -- FOLDER

Runs every *.txt under the folder, Raft scripts in the format of etcd's, against src/raft. Ends with 1 when one fails or
there is none.`

const [folder] = process.argv.slice(2)
if (folder === '--help' || folder === '-h') {
  console.log(help)
  process.exit(0)
}
if (folder === undefined) usage('no folder is named')
if (!existsSync(folder)) usage(`${folder}: there is no such folder`)
let passed = 0
let failed = 0
for (const name of scriptsUnder(resolve(folder))) {
  const failures = runScript(resolve(folder), name)
  if (failures.length === 0) passed++
  else failed++
  for (const { line, command, expected, actual } of failures) {
    console.log(
      `${name}:${line}: ${command}: expected ${JSON.stringify(expected)}, actual ${JSON.stringify(actual)}`,
    )
  }
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 || passed === 0 ? 1 : 0
