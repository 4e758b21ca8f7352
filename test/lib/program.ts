/**
 * Programs that tests start beside themselves: as they were compiled for this run (bundle.mjs), or through tsx where a file
 * of tests is run without it.
 */
import { existsSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
/** Where a run of the tests has put what it compiled. */
const compiled = process.env.TEST_BUILD

/** What node is to be told so that it runs this program, whose source is at `path`. */
export function programArguments(path: string): string[] {
  const name = relative(root, path).replace(/\.ts$/, '.js').replaceAll('/', '.')
  const made = compiled === undefined ? null : join(compiled, 'tests', name)
  return made !== null && existsSync(made) ? ['--enable-source-maps', made] : ['--import', 'tsx', path]
}

/** The `main.js` of this run; null where nobody compiled one. */
export const compiledMain: string | null =
  compiled === undefined ? null : join(compiled, 'program', 'main.js')
