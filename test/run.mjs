/**
 * Runs the tests named on the command line, or all of them: `node --import tsx test/run.mjs [FILE…]`. Files are found by
 * name here, because Node 20's runner finds no TypeScript test in a folder and reports success.
 *
 * In two parts with one report, two files at a time. What computes comes first; then come the clusters of real processes,
 * which wait for elections, deadlines and promises in seconds, and had better not do so beside what takes all of the
 * machine. What failed is told again at the end, where it is found.
 */
import { readdirSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { run } from 'node:test'
import { tap } from 'node:test/reporters'

const root = resolve(import.meta.dirname, '..')
/** Tests have deadlines of their own. This one ends a file that hangs, and must not be met by a machine that is busy. */
const timeout = Number(process.env.TEST_TIMEOUT_MS ?? 420_000)
const concurrency = Number(process.env.TEST_CONCURRENCY ?? 2)
/** Where tests start real nodes. */
const withProcesses = ['test/cluster/', 'test/client/', 'test/bench/', 'test/fuzz/connections']

const named = process.argv.slice(2)
const all = readdirSync(join(root, 'test'), { recursive: true })
  .filter(name => name.endsWith('.test.ts'))
  .map(name => join(root, 'test', name))
  .sort()
const files = named.length === 0 ? all : named.map(name => resolve(name))
const isOfProcesses = file => withProcesses.some(part => relative(root, file).startsWith(part))

const totals = new Map()
const failed = []

/** The events of both parts as of one run: the runner's closing counts are added up. */
async function* events() {
  const parts = [files.filter(file => !isOfProcesses(file)), files.filter(isOfProcesses)]
  for (const files of parts.filter(part => part.length > 0)) {
    for await (const event of run({ files, concurrency, timeout })) {
      const { data } = event
      const count = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)$/.exec(data?.message ?? '')
      if (event.type === 'test:diagnostic' && data.nesting === 0 && count !== null) {
        totals.set(count[1], (totals.get(count[1]) ?? 0) + Number(count[2]))
        continue
      }
      // The plan of a part is not that of the whole.
      if (event.type === 'test:plan' && data.nesting === 0) continue
      if (event.type === 'test:fail' && data.todo === undefined && data.details.error?.failureType !== 'subtestsFailed')
        failed.push(data)
      yield event
    }
  }
  for (const [name, count] of totals)
    yield { type: 'test:diagnostic', data: { nesting: 0, message: `${name} ${count}` } }
}

for await (const text of tap(events())) process.stdout.write(text)
for (const { file, name, details } of failed) {
  const error = details.error?.cause ?? details.error
  process.stdout.write(`\nFAILED ${relative(root, file ?? '')} › ${name}\n${error?.stack ?? error}\n`)
}
const counted = name => totals.get(name) ?? 0
if (counted('tests') === 0) process.stdout.write('no tests ran\n')
if (failed.length > 0 || counted('fail') > 0 || counted('cancelled') > 0 || counted('tests') === 0)
  process.exitCode = 1
