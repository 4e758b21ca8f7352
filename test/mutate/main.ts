/**
 * `npm run mutate`: is the simulator any good? Each deliberate bug of mutations.ts is put into a copy of the source, and
 * seeds run there until one fails. A bug that no seed catches is a hole in the simulator.
 *
 * Control: a seed counts only if the source without the bug passes it. One child at a time, and nice: it may take hours.
 */
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseCommandLine, usage } from '../command-line.ts'
import { applyMutation } from './apply.ts'
import { type Mutation, mutations } from './mutations.ts'

/** A child that finishes no seed for this long is in a loop that a bug made. */
const seedMsMax = 120_000
const defaultSeeds = 1_000
const defaultControl = 10

const help = `Usage: npm run mutate -- [options]

Puts each deliberate bug into a copy of the source and simulates until a seed fails.

  --only NAME[,NAME]   only these bugs
  --list               what there is, and why it is wrong
  --seeds N            give up after so many seeds (${defaultSeeds})
  --from K             the first seed (1)
  --control N          first run so many seeds without any bug (${defaultControl})
  -o, --output json    one JSON document in place of the table
  -h, --help

Exit status: 0 all were caught, 1 one survived or the source fails by itself, 2 usage.`

interface Verdict {
  readonly name: string
  /** null: it survived. */
  readonly caughtBy: string | null
  readonly seed: number | null
  /** Tried, the one that failed included. */
  readonly seeds: number
  readonly seconds: number
}

interface Hunt {
  readonly seed: number | null
  readonly failure: string | null
}

const values = parseCommandLine(help, {
  only: { type: 'string' },
  list: { type: 'boolean', default: false },
  seeds: { type: 'string', default: String(defaultSeeds) },
  from: { type: 'string', default: '1' },
  control: { type: 'string', default: String(defaultControl) },
  output: { type: 'string', short: 'o', default: 'table' },
})
const number = (name: 'seeds' | 'from' | 'control', least: number): number => {
  const value = Number(values[name])
  if (!Number.isSafeInteger(value) || value < least) usage(`--${name}: a whole number from ${least} up`)
  return value
}
if (values.list) {
  for (const { name, file, why } of mutations) console.log(`${name} (${file})\n    ${why}`)
  process.exit(0)
}
if (values.output !== 'table' && values.output !== 'json') usage('-o: json')
const from = number('from', 1)
const seedsMax = number('seeds', 1)
const controlSeeds = number('control', 0)
const names = values.only?.split(',') ?? null
const unknown = names?.filter(name => !mutations.some(each => each.name === name)) ?? []
if (unknown.length > 0) usage(`no such bug: ${unknown.join(', ')}`)
const wanted = mutations.filter(({ name }) => names === null || names.includes(name))

const root = join(import.meta.dirname, '../..')
const copy = mkdtempSync(join(tmpdir(), 'roundhouse-mutate-'))
for (const name of ['src', 'test', 'package.json', 'tsconfig.json'])
  cpSync(join(root, name), join(copy, name), { recursive: true })
symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))

let running: ReturnType<typeof spawn> | null = null
const end = () => {
  running?.kill('SIGKILL')
  rmSync(copy, { recursive: true, force: true })
}
process.on('exit', end)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130))

/** Runs seeds in the copy as it is now, until one fails. */
function hunt(first: number, count: number): Promise<Hunt> {
  return new Promise((resolve, reject) => {
    const node = ['--max-old-space-size=2048', '--import', 'tsx', 'test/mutate/hunt.ts']
    const args = ['-n', '15', process.execPath, ...node, '--from', String(first), '--seeds', String(count)]
    const child = spawn('nice', args, { cwd: copy, stdio: ['ignore', 'pipe', 'pipe'] })
    running = child
    let begun: number | null = null
    let found: Hunt = { seed: null, failure: null }
    let rest = ''
    let errors = ''
    let isHung = false
    const hung = () => {
      isHung = true
      child.kill('SIGKILL')
    }
    let timer = setTimeout(hung, seedMsMax)
    child.stderr.on('data', (data: Buffer) => {
      errors = (errors + data.toString()).slice(-10_000)
    })
    child.stdout.on('data', (data: Buffer) => {
      const lines = (rest + data.toString()).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const { begin, seed, failure } = JSON.parse(line) as { begin?: number } & Partial<Hunt>
        if (begin !== undefined) {
          begun = begin
          clearTimeout(timer)
          timer = setTimeout(hung, seedMsMax)
        } else {
          begun = null
          if (typeof failure === 'string') found = { seed: seed ?? null, failure }
        }
      }
    })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      running = null
      clearTimeout(timer)
      if (begun === null && code === 0) return resolve(found)
      const why = isHung
        ? `no end within ${seedMsMax / 1000} s`
        : (errors.match(/^.*(?:Error|BrokenInvariant|FATAL).*$/m)?.[0] ??
          `the process ended: ${signal ?? code}`)
      if (begun === null) return reject(new Error(`the simulator does not start: ${why}\n${errors}`))
      resolve({ seed: begun, failure: why })
    })
  })
}

/** Seeds that fail without any bug, and those that pass. */
const control = new Map<number, string | null>()

async function isClean(seed: number): Promise<boolean> {
  if (!control.has(seed)) control.set(seed, (await hunt(seed, 1)).failure)
  return control.get(seed) === null
}

async function judge(mutation: Mutation): Promise<Verdict> {
  const path = join(copy, mutation.file)
  const source = readFileSync(path, 'utf8')
  const started = Date.now()
  for (let first = from; first < from + seedsMax; ) {
    writeFileSync(path, applyMutation(mutation, source))
    let found: Hunt
    try {
      found = await hunt(first, from + seedsMax - first)
    } finally {
      writeFileSync(path, source)
    }
    if (found.seed === null) break
    if (await isClean(found.seed)) {
      const seconds = (Date.now() - started) / 1000
      const caughtBy = (found.failure ?? '').replace(/^\d+ ms: /, '')
      return { name: mutation.name, caughtBy, seed: found.seed, seeds: found.seed - from + 1, seconds }
    }
    // It fails anyway: no proof of anything.
    first = found.seed + 1
  }
  const seconds = (Date.now() - started) / 1000
  return { name: mutation.name, caughtBy: null, seed: null, seeds: seedsMax, seconds }
}

function row({ name, caughtBy, seeds, seconds }: Verdict): string {
  const by = caughtBy === null ? '**survived**' : short(caughtBy)
  return `| ${name} | ${by.replaceAll('|', '\\|')} | ${seeds} | ${seconds.toFixed(0)} |`
}

function short(text: string): string {
  return text.length > 140 ? `${text.slice(0, 139)}…` : text
}

// Before hours of work: all of them fit the source.
for (const mutation of wanted) applyMutation(mutation, readFileSync(join(copy, mutation.file), 'utf8'))
const seedsFailed: { seed: number; failure: string }[] = []
for (let first = from; first < from + controlSeeds; ) {
  const { seed, failure } = await hunt(first, from + controlSeeds - first)
  for (let passed = first; passed < (seed ?? from + controlSeeds); passed++) control.set(passed, null)
  if (seed === null) break
  control.set(seed, failure)
  first = seed + 1
}
const verdicts: Verdict[] = []
for (const mutation of wanted) {
  const verdict = await judge(mutation)
  verdicts.push(verdict)
  process.stderr.write(`${row(verdict)}\n`)
}
for (const [seed, failure] of control) if (failure !== null) seedsFailed.push({ seed, failure })
if (values.output === 'json')
  console.log(JSON.stringify({ mutations: verdicts, withoutAny: seedsFailed }, null, 2))
else {
  console.log('| mutation | caught by | seeds | s |\n|---|---|---:|---:|')
  for (const verdict of verdicts) console.log(row(verdict))
  console.log(`\n${verdicts.filter(({ caughtBy }) => caughtBy !== null).length} of ${verdicts.length} caught`)
  for (const { seed, failure } of seedsFailed) console.log(`seed ${seed} fails without any bug: ${failure}`)
}
process.exit(verdicts.some(({ caughtBy }) => caughtBy === null) || seedsFailed.length > 0 ? 1 : 0)
