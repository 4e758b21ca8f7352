import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, it } from 'node:test'

/** folder → the folders it may import from (itself aside). What is not listed here is not allowed. */
const floors: Record<string, readonly string[]> = {
  lib: [],
  'errors.ts': [],
  config: ['lib', 'errors.ts'],
  'config.ts': ['config', 'lib', 'errors.ts'],
  gen: [],
  keyspace: ['lib', 'errors.ts'],
  commands: ['keyspace', 'lib', 'errors.ts'],
  raft: ['lib', 'errors.ts'],
  ring: ['lib', 'errors.ts'],
  gossip: ['lib', 'errors.ts'],
  log: ['lib', 'errors.ts'],
  storage: ['log', 'raft', 'keyspace', 'lib', 'errors.ts'],
  peer: ['http2', 'gen', 'raft', 'gossip', 'lib', 'errors.ts'],
  shard: ['raft', 'commands', 'keyspace', 'lib', 'errors.ts'],
  node: ['shard', 'raft', 'ring', 'gossip', 'commands', 'keyspace', 'lib', 'errors.ts'],
  http2: ['lib'],
  wire: ['http2', 'node', 'peer', 'commands', 'keyspace', 'gen', 'lib', 'errors.ts'],
  client: ['gen', 'lib', 'errors.ts'],
  history: ['gen', 'lib', 'errors.ts'],
  cli: ['client', 'wire', 'node', 'commands', 'gen', 'lib', 'errors.ts', 'config', 'config.ts'],
  bench: ['http2', 'client', 'history', 'gen', 'lib', 'errors.ts'],
  'start-node.ts': [
    'cli',
    'wire',
    'node',
    'shard',
    'peer',
    'storage',
    'log',
    'commands',
    'lib',
    'errors.ts',
    'config',
    'config.ts',
  ],
  'recover-node.ts': ['cli', 'node', 'shard', 'storage', 'log', 'lib', 'errors.ts'],
  'testing.ts': ['start-node.ts', 'cli', 'config.ts', 'gen', 'lib', 'errors.ts'],
  'main.ts': [
    'start-node.ts',
    'recover-node.ts',
    'cli',
    'bench',
    'wire',
    'node',
    'shard',
    'peer',
    'storage',
    'log',
    'ring',
    'commands',
    'lib',
    'errors.ts',
    'config',
    'config.ts',
  ],
}
const pure = ['raft', 'ring', 'gossip', 'commands', 'keyspace']
const impure =
  /from 'node:|\bDate\.now\b|\bMath\.random\b|\bset(Timeout|Interval|Immediate)\b|\bprocess\.|\basync\b|\bawait\b|\bBuffer\b/

const src = resolve(import.meta.dirname, '../src')
const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.ts'))
const roomOf = (name: string) => name.split('/')[0]!

/** Paths that `name` imports inside src, with whether the import is of types only. */
function importsOf(name: string): { target: string; typeOnly: boolean }[] {
  const text = readFileSync(join(src, name), 'utf8')
  const found = text.matchAll(/^(import|export)\s+(type\s)?[^'"]*?from\s+'(\.[^']+)'/gms)
  return [...found].map(match => ({
    target: relative(src, resolve(src, dirname(name), match[3]!)),
    typeOnly: match[2] !== undefined,
  }))
}

describe('architecture', () => {
  it('has a floor for every room', () => {
    assert.deepEqual(
      [...new Set(files.map(roomOf))].filter(room => !(room in floors)),
      [],
    )
  })

  it('imports only downwards; a type of a port is the one thing that may come from above', () => {
    const wrong = files.flatMap(name =>
      importsOf(name)
        .filter(({ target }) => roomOf(target) !== roomOf(name))
        .filter(({ target }) => !floors[roomOf(name)]!.includes(roomOf(target)))
        .filter(({ target, typeOnly }) => !(typeOnly && /(^|\/)(ports|storage|row-store)\.ts$/.test(target)))
        .map(({ target }) => `${name} → ${target}`),
    )
    assert.deepEqual(wrong, [])
  })

  it('keeps the pure rooms pure', () => {
    const wrong = files
      .filter(name => pure.includes(roomOf(name)))
      .filter(name =>
        impure.test(readFileSync(join(src, name), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')),
      )
    assert.deepEqual(wrong, [])
  })

  it('keeps koffi in one file', () => {
    const users = files.filter(name => /from 'koffi'/.test(readFileSync(join(src, name), 'utf8')))
    assert.deepEqual(
      users.filter(name => name !== 'log/mapped-file.ts'),
      [],
    )
  })
})
