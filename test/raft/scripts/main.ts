/** `npm run test:scripts -- FOLDER`: runs every *.txt under it against src/raft. Exit 1 when one fails. */
import { resolve } from 'node:path'
import { runScript, scriptsUnder } from './run.ts'

const [folder] = process.argv.slice(2)
if (folder === undefined) {
  console.error('usage: npm run test:scripts -- FOLDER')
  process.exit(2)
}
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
