/**
 * What a run of the tests executes: test files and the program, compiled once, before the first of them starts. A process a
 * file that compiles for itself pays for the compiler each time, and a node made of two hundred small files takes a third
 * longer to start than one of a few: of a run with a hundred nodes and more test files than that it was a quarter.
 *
 *     node_modules/.cache/roundhouse-tests/run-XXXXXX/
 *       package.json            as the program looks for it, two folders above itself
 *       dist/program/main.js    … and its worker threads and child processes beside it
 *       dist/tests/*.js         a file for each test file and each program that tests start, and what they share
 *
 * Sources are as they were when the run began. Stacks and places of failures name them, by source maps; paths that a test
 * makes from `import.meta` are those of its source. Packages stay outside: they are what is installed.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { pathToFileURL } from 'node:url'

const root = resolve(import.meta.dirname, '..')
const cache = join(root, 'node_modules', '.cache', 'roundhouse-tests')
/** What a run that was killed left behind is removed when it is so old, ms: no run takes so long. */
const unusedMsMax = 6 * 3_600_000
/** Started by the program, by their names beside its own file. */
const threads = ['src/storage/state-worker.ts', 'src/storage/state-scrub-child.ts']

/** Started by tests (lib/program.ts). */
const programs = [
  'src/history/main.ts',
  'test/bench/suites/main.ts',
  'test/cli/fake-node-program.ts',
  'test/storage/data-directory-child.ts',
  'test/storage/journal-child.ts',
  'test/storage/state-child.ts',
]

/** A test's own place is that of its source: fixtures, programs and sources that it reads are found from there. */
const placesOfTests = {
  name: 'places of tests',
  setup(build) {
    build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      if (!path.startsWith(join(root, 'test') + sep)) return null
      const contents = readFileSync(path, 'utf8')
        .replaceAll('import.meta.dirname', JSON.stringify(dirname(path)))
        .replaceAll('import.meta.filename', JSON.stringify(path))
        .replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href))
      return { contents, loader: 'ts' }
    })
  },
}

/**
 * Compiles the program and these test files into `directory`; `sources` gives the source of each compiled file. What was made goes when the
 * process does. Rejects, the mistakes told on stderr, where sources can't be compiled.
 */
export async function bundle(files) {
  const require = createRequire(import.meta.url)
  // The compiler that tsx brings: no version of its own to keep in step.
  const esbuild = createRequire(require.resolve('tsx'))('esbuild')
  removeOld()
  mkdirSync(cache, { recursive: true })
  const home = mkdtempSync(join(cache, 'run-'))
  process.on('exit', () => rmSync(home, { recursive: true, force: true }))
  copyFileSync(join(root, 'package.json'), join(home, 'package.json'))
  const compile = (folder, entries) =>
    esbuild.build({
      entryPoints: entries,
      outdir: join(home, 'dist', folder),
      absWorkingDir: root,
      ...{ bundle: true, splitting: true, packages: 'external', plugins: [placesOfTests] },
      ...{ format: 'esm', platform: 'node', target: 'node20' },
      ...{ sourcemap: true, sourcesContent: false, logLevel: 'error' },
    })
  const flat = file => ({ in: file, out: relative(root, resolve(root, file)).replace(/\.ts$/, '').replaceAll(sep, '.') })
  const named = files.map(flat)
  const beside = threads.map(file => ({ in: file, out: file.replace(/^.*\/|\.ts$/g, '') }))
  await Promise.all([
    compile('program', [{ in: 'src/main.ts', out: 'main' }, ...beside]),
    compile('tests', [...named, ...programs.map(flat), ...beside]),
  ])
  await esbuild.stop()
  return {
    directory: join(home, 'dist'),
    sources: new Map(named.map(each => [join(home, 'dist', 'tests', `${each.out}.js`), each.in])),
  }
}

function removeOld() {
  let names = []
  try {
    names = readdirSync(cache)
  } catch {
    // The first run.
  }
  for (const name of names) {
    const path = join(cache, name)
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now())
    if (age > unusedMsMax) rmSync(path, { recursive: true, force: true })
  }
}
