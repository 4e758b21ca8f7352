/**
 * The program under test, compiled from the sources as they are now. Real nodes run what users run (plain JavaScript, its
 * worker threads and child processes included), but not `dist/`: that may be older than the sources, or be in use by a
 * cluster of the person at this machine. The result is kept under node_modules/.cache, named after the sources. A run of
 * the tests has compiled it already, into few files (bundle.mjs), and says where.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { compiledMain } from './program.ts'

const root = resolve(import.meta.dirname, '../..')
const cache = join(root, 'node_modules', '.cache', 'roundhouse-cluster')
/** Older programs that nobody used for so long are removed, ms. */
const unusedMsMax = 3_600_000

let program: string | null = compiledMain

/** Path of the compiled `main.js`. */
export function programPath(): string {
  program ??= build()
  return program
}

function build(): string {
  const home = join(cache, fingerprint())
  const main = join(home, 'dist', 'main.js')
  mkdirSync(cache, { recursive: true })
  for (const name of readdirSync(cache)) {
    const path = join(cache, name)
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now())
    if (path !== home && age > unusedMsMax) rmSync(path, { recursive: true, force: true })
  }
  if (existsSync(main)) return main
  const draft = mkdtempSync(join(cache, 'draft-'))
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const dist = join(draft, 'dist')
  // A record of its own of what is built: by that of `npm run build`, nothing would be left to write.
  const places = ['--outDir', dist, '--tsBuildInfoFile', join(dist, '.tsbuildinfo')]
  const args = [compiler, '-p', join(root, 'tsconfig.build.json'), ...places, '--sourceMap', 'false']
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  // Whether the types are right is what `npm run types` judges.
  if (!existsSync(join(dist, 'main.js'))) throw new Error(`tsc wrote no program:\n${stdout}${stderr}`)
  copyFileSync(join(root, 'package.json'), join(draft, 'package.json'))
  try {
    renameSync(draft, home)
  } catch (error) {
    // Another test file compiled the same sources at the same time.
    rmSync(draft, { recursive: true, force: true })
    if (!existsSync(main)) throw error
  }
  return main
}

function fingerprint(): string {
  const hash = createHash('sha256')
  const src = join(root, 'src')
  for (const name of readdirSync(src, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!name.endsWith('.ts')) continue
    const { mtimeMs, size } = statSync(join(src, name))
    hash.update(`${name} ${mtimeMs} ${size}\n`)
  }
  return hash.digest('hex').slice(0, 16)
}
