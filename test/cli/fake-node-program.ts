/**
 * A stand-in for `main.js serve` under the supervisor: it speaks the Admin contract, counts as members whoever runs
 * beside it in the data directory, and stops when its pipe closes. `leave` in a data directory makes its node leave.
 */
import { existsSync, readdirSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fakeNode, statusOf } from './fake-cluster.ts'

const option = (name: string) => process.argv[process.argv.indexOf(`--${name}`) + 1]!
const dataDir = option('data-dir')
const mark = join(dataDir, 'address')

writeFileSync(join(dataDir, 'pid'), String(process.pid))
writeFileSync(join(dataDir, 'arguments'), JSON.stringify(process.argv.slice(2)))
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
      const path = join(all, name, 'address')
      return existsSync(path) ? [[name, readFileSync(path, 'utf8')] as const] : []
    })
  return Object.fromEntries(running)
}

const node = await fakeNode({ status: () => statusOf(members()) }, Number(option('port')))
writeFileSync(mark, node.address)
const end = () => {
  rmSync(mark, { force: true })
  process.exit(0)
}
watch(dataDir, (_event, name) => {
  if (name === 'leave') end()
})
if (existsSync(join(dataDir, 'stubborn'))) process.stdin.resume()
else process.stdin.on('end', end).resume()
