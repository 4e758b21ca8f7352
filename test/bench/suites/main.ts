/**
 * `npm run bench -- [SUITE…]`: named suites of measurements, each on a cluster that it starts itself from the sources as
 * they are. What was found goes to figures.json, to figures.md (a section for docs/benchmarks.md) and into plots. Ends
 * with 0 when all could be measured.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { endAll } from '../../../src/bench/own-process.ts'
import { parseDuration, parseSize } from '../../../src/config/forms.ts'
import { programPath } from '../../lib/cluster-program.ts'
import { etcd, failover } from './beside.ts'
import { factsNow } from './facts.ts'
import { keys, nodes, shards, values } from './growth.ts'
import { type Part, sectionOf } from './markdown.ts'
import { svgOf } from './plot.ts'
import { quick, streams } from './quick.ts'
import { idle, move } from './rest.ts'
import { restart } from './restart.ts'
import { freeBytes, shortage, sparedBytes } from './room.ts'
import { simulated } from './simulated.ts'
import { type Context, lineOf, type Suite, type SuiteOptions, type SuiteResult } from './suite.ts'

const suites: readonly Suite[] = [
  ...[quick, streams, etcd, failover, nodes, shards, values, keys, simulated, idle, restart, move],
]
const groups: Readonly<Record<string, readonly Suite[]>> = {
  growth: [nodes, shards, values, keys, simulated],
  all: suites,
}

const usage = `usage: npm run bench -- [SUITE…] [options]

Suites (quick where none is named; several together):
${suites.map(({ name, summary }) => `  ${name.padEnd(10)} ${summary}`).join('\n')}
  growth     ${groups.growth!.map(each => each.name).join(', ')}
  all        every one of them: about 20 minutes on two cores

  --duration 3s       of each case; --warm-up 1s before it
  --in-flight 1,64,256   of quick and etcd
  --rounds 2          runs of each side of etcd, in turn; --kills 10: leaders killed on each side
  --nodes 1,3,5       --shards 1,16,64,256,1024       --values 16,128,1KiB,16KiB,128KiB,1MiB
  --keys 10000,100000,1000000   with 10000000 as well where there is time and disk
  --simulated 10,100,1000       nodes of simulated clusters
  --idle 10s          looked at so long; --idle-shards 64,1024
  --restart-keys 1000000        of three nodes and of one; --restart-streams 1GiB of records on one node; 0 for none
  --move 100MiB       comes to a node that joins; --move-rate 500 writes a second meanwhile, --move-quiet 10s before and after
  --limit 30m         a suite that takes longer is ended
  --out docs/plots    figures.json, figures.md and the plots go there; an earlier run's are replaced

etcd and failover need etcd in PATH (Debian: etcd-server, etcd-client), and use h2load where it is (nghttp2-client).
Take figures on a machine that does nothing else.
`

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ...{ duration: { type: 'string', default: '3s' }, 'warm-up': { type: 'string', default: '1s' } },
    ...{ 'in-flight': { type: 'string', default: '1,64,256' }, rounds: { type: 'string', default: '2' } },
    ...{ kills: { type: 'string', default: '10' }, nodes: { type: 'string', default: '1,3,5' } },
    shards: { type: 'string', default: '1,16,64,256,1024' },
    values: { type: 'string', default: '16,128,1KiB,16KiB,128KiB,1MiB' },
    keys: { type: 'string', default: '10000,100000,1000000' },
    simulated: { type: 'string', default: '10,100,1000' },
    ...{ idle: { type: 'string', default: '10s' }, 'idle-shards': { type: 'string', default: '64,1024' } },
    'restart-keys': { type: 'string', default: '1000000' },
    'restart-streams': { type: 'string', default: '1GiB' },
    ...{ move: { type: 'string', default: '100MiB' }, 'move-rate': { type: 'string', default: '500' } },
    ...{ 'move-quiet': { type: 'string', default: '10s' }, limit: { type: 'string', default: '30m' } },
    ...{ out: { type: 'string', default: 'docs/plots' }, help: { type: 'boolean', default: false } },
  },
})
type Flag = Exclude<keyof typeof flags, 'help' | 'out'>

const mistakes: string[] = []

function read(flag: Flag, text: string, parse: (text: string) => number | undefined, min: number): number {
  const value = parse(text.trim())
  if (value !== undefined && Number.isSafeInteger(value) && value >= min) return value
  mistakes.push(`--${flag}: ${JSON.stringify(text)} is not understood`)
  return min
}

const integer = (text: string) => (/^[0-9]{1,9}$/.test(text) ? Number(text) : undefined)
const size = (text: string) => parseSize(text) ?? integer(text)
const one = (flag: Flag, parse = integer, min = 1) => read(flag, flags[flag], parse, min)
const list = (flag: Flag, parse = integer) => flags[flag].split(',').map(each => read(flag, each, parse, 1))

function optionsOf(): SuiteOptions {
  return {
    ...{ durationMs: one('duration', parseDuration), warmUpMs: one('warm-up', parseDuration, 0) },
    ...{ rounds: one('rounds'), kills: one('kills'), inFlight: list('in-flight') },
    ...{ nodes: list('nodes'), shards: list('shards'), values: list('values', size), keys: list('keys') },
    ...{ simulated: list('simulated'), idleMs: one('idle', parseDuration), idleShards: list('idle-shards') },
    restartKeys: one('restart-keys', integer, 0),
    restartStreamBytes: one('restart-streams', size, 0),
    ...{ moveBytes: one('move', size), moveRate: one('move-rate') },
    moveQuietMs: one('move-quiet', parseDuration),
  }
}

async function main(): Promise<number> {
  if (flags.help) {
    process.stdout.write(usage)
    return 0
  }
  const options = optionsOf()
  const limitMs = one('limit', parseDuration)
  const named = positionals.length === 0 ? ['quick'] : positionals
  const chosen = suites.filter(suite =>
    named.some(name => name === suite.name || groups[name]?.includes(suite) === true),
  )
  const strange = named.filter(name => !(name in groups) && !suites.some(suite => suite.name === name))
  if (strange.length > 0) mistakes.push(`no suite is called ${strange.join(', ')}`)
  if (mistakes.length > 0) {
    process.stderr.write(`${mistakes.join('\n')}\n\n${usage}`)
    return 2
  }
  const tooLarge = chosen.flatMap(suite => {
    const text = shortage(suite.roomOf(options))
    return text === null ? [] : [`${suite.name}: ${text}`]
  })
  if (tooLarge.length > 0) {
    process.stderr.write(`${tooLarge.join('\n')}\n`)
    return 2
  }
  const root = resolve(import.meta.dirname, '../../..')
  const out = resolve(flags.out)
  const facts = factsNow(root, process.argv.slice(2))
  const startedMs = performance.now()
  const seconds = () => Math.round((performance.now() - startedMs) / 1_000)
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => {
      // A second one: what was started is ended by an exit handler.
      if (controller.signal.aborted) process.exit(130)
      controller.abort(new Error('stopped'))
    })
  process.stderr.write('compiled from the sources as they are\n')
  // As `roundhouse` itself starts.
  const program = [process.execPath, '--max-semi-space-size=64', programPath()]
  mkdirSync(out, { recursive: true })
  const parts: Part[] = []
  for (const [place, suite] of chosen.entries()) {
    if (controller.signal.aborted) break
    const say = (line: string) =>
      process.stderr.write(
        `${String(seconds()).padStart(5)} s  ${place + 1}/${chosen.length} ${suite.name}: ${line}\n`,
      )
    const beganMs = performance.now()
    const { name, summary } = suite
    let result: SuiteResult | null = null
    let error: string | null = null
    try {
      result = await guarded(suite, { options, program, say, signal: controller.signal }, limitMs)
    } catch (thrown) {
      const text = thrown instanceof Error ? thrown.message : String(thrown)
      say(`not measured: ${text}`)
      error = lineOf(text)
    }
    const took = (performance.now() - beganMs) / 1_000
    parts.push({ name, summary, result, error, seconds: took })
    say(`${Math.round(took)} s`)
    // After each: what was measured is not lost with what comes.
    const json = { facts, options, suites: parts }
    writeFileSync(join(out, 'figures.json'), `${JSON.stringify(json, null, 2)}\n`)
    writeFileSync(join(out, 'figures.md'), sectionOf(facts, parts, relative(join(root, 'docs'), out) || '.'))
    for (const { name: file, chart } of result?.charts ?? [])
      writeFileSync(join(out, `${file}.svg`), svgOf(chart))
  }
  process.stdout.write(sectionOf(facts, parts, relative(join(root, 'docs'), out) || '.'))
  process.stderr.write(
    `\n${seconds()} s; ${relative('.', join(out, 'figures.md'))} has this, beside figures.json\n`,
  )
  const failed = parts.filter(({ result }) => result === null || (result.missing ?? []).length > 0)
  const left = chosen.slice(parts.length)
  if (failed.length > 0) process.stderr.write(`not all of: ${failed.map(({ name }) => name).join(', ')}\n`)
  if (left.length > 0) process.stderr.write(`not begun: ${left.map(({ name }) => name).join(', ')}\n`)
  return failed.length + left.length === 0 ? 0 : 1
}

const roomEveryMs = 1_000
/** A suite that was told to end and does not is left alone. */
const endMsMax = 60_000
/** What nobody caught belongs to the suite that runs. */
let fail: (error: unknown) => void = error => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  process.exit(1)
}
process.on('uncaughtException', error => fail(error))

/** Runs a suite so that nothing it does keeps the next one from its turn: within its time and room, and gone at its end. */
async function guarded(suite: Suite, context: Context, limitMs: number): Promise<SuiteResult> {
  const short = shortage(suite.roomOf(context.options))
  if (short !== null) throw new Error(short)
  const own = new AbortController()
  const signal = AbortSignal.any([context.signal, own.signal])
  const timers = [
    setTimeout(() => own.abort(new Error(`it takes longer than ${limitMs / 1_000} s (--limit)`)), limitMs),
    setInterval(() => {
      if (freeBytes() < sparedBytes) own.abort(new Error('the disk is full but for what others may need'))
    }, roomEveryMs),
  ]
  const before = fail
  fail = error => own.abort(error)
  try {
    const stuck = new Promise<never>((_, reject) =>
      signal.addEventListener('abort', () => {
        timers.push(setTimeout(() => reject(signal.reason as Error), endMsMax))
      }),
    )
    return await Promise.race([suite.run({ ...context, signal }), stuck])
  } finally {
    fail = before
    for (const timer of timers) clearTimeout(timer)
    // Whatever it has lost hold of.
    endAll()
  }
}

process.exit(await main())
