/**
 * Runs the tests named on the command line, or all of them: `node --enable-source-maps test/run.mjs [FILE…]`. Files are
 * found by name here, because Node 20's runner finds no TypeScript test in a folder and reports success; they are compiled
 * once, before the first of them runs (bundle.mjs).
 *
 * In two parts with one report, two files at a time. What computes comes first; then come the clusters of real processes,
 * which wait for elections, deadlines and promises in seconds, and had better not do so beside what takes all of the
 * machine. Those that take long begin first, so that nobody waits for one of them at the end. What failed is told again
 * at the end, where it is found.
 */
import { readdirSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { run } from 'node:test'
import { tap } from 'node:test/reporters'
import { bundle } from './bundle.mjs'

const root = resolve(import.meta.dirname, '..')
/** Tests have deadlines of their own. This one ends a file that hangs, and must not be met by a machine that is busy. */
const timeout = Number(process.env.TEST_TIMEOUT_MS ?? 420_000)
const concurrency = Number(process.env.TEST_CONCURRENCY ?? 2)
/** Where tests start real nodes. */
const withProcesses = ['test/cluster/', 'test/client/', 'test/bench/', 'test/fuzz/connections']
/** The longest of each part, the longest first. */
const longest = [
  ...['fuzz/fuzz', 'node/watches-cluster', 'tls/certs', 'storage/state-process', 'storage/lmdb-state'],
  ...['cluster/disk', 'cluster/restart', 'cluster/streams', 'cluster/lost', 'cluster/time', 'cluster/trouble'],
  ...['cluster/resize', 'cluster/crash', 'bench/verify', 'fuzz/connections', 'client/trouble', 'cluster/watch'],
  'cluster/tls',
].map(name => `test/${name}.test.ts`)

const named = process.argv.slice(2)
const all = readdirSync(join(root, 'test'), { recursive: true })
  .filter(name => name.endsWith('.test.ts'))
  .map(name => join(root, 'test', name))
  .sort()
const files = named.length === 0 ? all : named.map(name => resolve(name))
const isOfProcesses = file => withProcesses.some(part => relative(root, file).startsWith(part))
/** Of the longest their place among them; of all others the one behind those. */
const place = file => (longest.indexOf(relative(root, file)) + longest.length + 1) % (longest.length + 1)

for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(name, () => process.exit(1))
const compiled = await bundle(files).catch(() => process.exit(1))
process.env.TEST_BUILD = compiled.directory

const totals = new Map()
const failed = []

/** The events of both parts as of one run: the runner's closing counts are added up. */
async function* events() {
  const ordered = [...compiled.sources].sort(([, one], [, other]) => place(one) - place(other))
  const parts = [false, true].map(part => ordered.filter(([, source]) => isOfProcesses(source) === part))
  for (const part of parts.filter(part => part.length > 0)) {
    for await (const event of run({ files: part.map(([file]) => file), concurrency, timeout })) {
      const { data } = event
      const count = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)$/.exec(data?.message ?? '')
      if (event.type === 'test:diagnostic' && data.nesting === 0 && count !== null) {
        totals.set(count[1], (totals.get(count[1]) ?? 0) + Number(count[2]))
        continue
      }
      // The plan of a part is not that of the whole.
      if (event.type === 'test:plan' && data.nesting === 0) continue
      // A file as such (it hung, or could not be loaded) goes by its source.
      for (const key of ['name', 'file']) if (compiled.sources.has(data?.[key])) data[key] = compiled.sources.get(data[key])
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
