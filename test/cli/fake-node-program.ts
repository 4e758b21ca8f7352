/**
 * A stand-in for `main.js serve` under the supervisor: it speaks the Admin contract, counts as members whoever runs
 * beside it in the data directory, and stops when its pipe closes. `leave` in a data directory makes its node leave.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, watch, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fakeNode, statusOf } from './fake-cluster.ts'

const lifeMsMax = 60_000
const option = (name: string) => process.argv[process.argv.indexOf(`--${name}`) + 1]!
const dataDir = option('data-dir')
const mark = join(dataDir, 'address')

writeFileSync(join(dataDir, 'pid'), String(process.pid))
writeFileSync(join(dataDir, 'arguments'), JSON.stringify(process.argv.slice(2)))
writeFileSync(join(dataDir, 'environment'), JSON.stringify(process.env))
process.stdout.write(`${JSON.stringify({ level: 'info', msg: 'quiet event' })}\n`)
process.stdout.write(`${JSON.stringify({ level: 'warn', msg: 'slow sync' })}\n`)
if (existsSync(join(dataDir, 'broken'))) {
  process.stderr.write('TypeError: broken on purpose\n')
  process.exit(3)
}

function members(): Record<string, string> {
  const all = dirname(dataDir)
  const running = readdirSync(all)
    .filter(name => /^node\d+$/.test(name))
    .flatMap(name => {
      try {
        return [[name, readFileSync(join(all, name, 'address'), 'utf8')] as const]
      } catch {
        return []
      }
    })
  return Object.fromEntries(running)
}

const end = () => {
  rmSync(mark, { force: true })
  process.exit(0)
}
// Watched before it can be seen as a member: whoever sees it may tell it to leave at once.
watch(dataDir, (_event, name) => {
  if (name === 'leave') end()
})
const node = await fakeNode({ status: () => statusOf(members()) }, Number(option('port')))
writeFileSync(`${mark}.new`, node.address)
renameSync(`${mark}.new`, mark)
if (existsSync(join(dataDir, 'stubborn'))) {
  process.stdin.resume()
  // Nobody may be left to kill it.
  setTimeout(end, lifeMsMax)
} else process.stdin.on('end', end).resume()
