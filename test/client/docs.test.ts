import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { commands } from '../../src/client/table.ts'
import { startCluster } from '../../src/testing.ts'

const root = resolve(import.meta.dirname, '../..')
const page = readFileSync(join(root, 'docs/client.md'), 'utf8')
const modules = {
  "'roundhouse'": join(root, 'src/client/entry.ts'),
  "'roundhouse/testing'": join(root, 'src/testing.ts'),
}

/**
 * The page's code as one program: imports first, blocks in order. `expression // → value` becomes a check, and so does
 * `const name = … // → value`. A `norun` block is there for the compiler only.
 */
function programOf(text: string, addresses: string): { program: string; checks: number } {
  const imports = new Set([`import assert from 'node:assert/strict'`])
  const body: string[] = []
  let checks = 0
  for (const [, kind, block] of text.matchAll(/^```ts(.*)\n([\s\S]*?)^```$/gm)) {
    const lines: string[] = []
    for (const line of block!.split('\n')) {
      const [, indent, expression, expected] = /^(\s*)(?!const )(.+?) \/\/ → (.+)$/.exec(line) ?? []
      if (line.startsWith('import ')) imports.add(line)
      else if (expression === undefined) lines.push(line)
      else {
        checks++
        lines.push(`${indent}assert.deepEqual(${expression}, ${expected})`)
      }
    }
    body.push(...(kind === ' norun' ? ['if (Number.isNaN(0)) {', ...lines, '}'] : lines))
  }
  let program = [...imports, ...body].join('\n')
  for (const [name, path] of Object.entries(modules)) program = program.replaceAll(name, `'${path}'`)
  program = program.replaceAll(/'127\.0\.0\.1:8081(,127\.0\.0\.1:8082)?'/g, `'${addresses}'`)
  return { program, checks }
}

describe('the page about the client, docs/client.md', () => {
  let directory: string
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'roundhouse-docs-'))
  })
  after(() => rmSync(directory, { recursive: true, force: true }))

  it('holds code that does what it says', async () => {
    const cluster = await startCluster({ nodes: 1 })
    try {
      const { program, checks } = programOf(page, cluster.addresses.join(','))
      assert.ok(checks >= 25, `${checks} checks`)
      const path = join(directory, 'page.mts')
      writeFileSync(path, program)
      // In a process of its own, as a reader would run it. It rejects where the program does not end well.
      await promisify(execFile)(process.execPath, ['--import', 'tsx', path], { cwd: root, timeout: 120_000 })
    } finally {
      await cluster.stop()
    }
  })

  it('holds code whose types are right', () => {
    const path = join(directory, 'page.mts')
    writeFileSync(path, programOf(page, 'a:1').program)
    const options = {
      extends: join(root, 'tsconfig.json'),
      compilerOptions: {
        lib: ['es2023', 'esnext.disposable'],
        typeRoots: [join(root, 'node_modules/@types')],
        noUnusedLocals: false,
        rewriteRelativeImportExtensions: false,
      },
      files: [path],
      include: [],
    }
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(options))
    const compiler = join(root, 'node_modules/typescript/bin/tsc')
    const { stdout } = spawnSync(process.execPath, [compiler, '-p', directory], { encoding: 'utf8' })
    // What is wrong elsewhere in the sources is for others to say.
    assert.deepEqual(
      stdout.split('\n').filter(line => line.includes('page.mts')),
      [],
    )
  })

  it('names every method', () => {
    const named = new Set([...page.matchAll(/`([a-zA-Z ]+)`/g)].flatMap(([, names]) => names!.split(' ')))
    assert.deepEqual(
      Object.keys(commands).filter(name => !named.has(name)),
      [],
    )
  })
})
