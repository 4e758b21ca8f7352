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
 * makes from `import.meta` are those of its source. What the program needs of its packages is compiled into it, as it is
 * installed: to find and read their four hundred files was a quarter of what a node computed until it was ready. Packages of
 * tests, and native ones, stay outside.
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

/** What brings a library of the machine's own, found beside its sources, stays where it is installed. */
const native = ['lmdb', 'koffi']
/** Packages that were made for `require` ask for Node's own modules by it. */
const banner = `import { createRequire as ownRequire } from 'node:module'; const require = ownRequire(import.meta.url)`

/**
 * A test's own place is that of its source, and a package's that of what is installed: fixtures, programs, locales and
 * contracts that they read are found from there.
 */
const places = {
  name: 'places',
  setup(build) {
    const placed = path => {
      const own = { dirname: dirname(path), filename: path, url: pathToFileURL(path).href }
      const text = readFileSync(path, 'utf8')
      // A module of the new kind that says `__dirname` has made it by itself.
      const names = text.includes('import.meta')
        ? /\bimport\.meta\.(dirname|filename|url)\b/g
        : /\b__(dirname|filename)\b/g
      return text.replace(names, (_, name) => JSON.stringify(own[name]))
    }
    build.onLoad({ filter: /\.ts$/ }, ({ path }) =>
      path.startsWith(join(root, 'test') + sep) ? { contents: placed(path), loader: 'ts' } : null,
    )
    const ofPackages = /[\\/]node_modules[\\/].*\.[cm]?js$/
    build.onLoad({ filter: ofPackages }, ({ path }) => ({ contents: placed(path), loader: 'js' }))
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
  const compile = (folder, entries, more) =>
    esbuild.build({
      entryPoints: entries,
      outdir: join(home, 'dist', folder),
      absWorkingDir: root,
      ...{ bundle: true, splitting: true, plugins: [places], ...more },
      ...{ format: 'esm', platform: 'node', target: 'node20' },
      ...{ sourcemap: true, sourcesContent: false, logLevel: 'error' },
    })
  const flat = file => ({ in: file, out: relative(root, resolve(root, file)).replace(/\.ts$/, '').replaceAll(sep, '.') })
  const named = files.map(flat)
  const beside = threads.map(file => ({ in: file, out: file.replace(/^.*\/|\.ts$/g, '') }))
  await Promise.all([
    compile('program', [{ in: 'src/main.ts', out: 'main' }, ...beside], {
      external: native,
      banner: { js: banner },
    }),
    compile('tests', [...named, ...programs.map(flat), ...beside], { packages: 'external' }),
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
