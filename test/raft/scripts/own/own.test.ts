/**
 * Plays all scripts of this folder: what etcd's have nothing for, because it begins above its Raft. Many groups behind
 * one journal, what is on disk before what leaves, sessions, quarantine. Each *.txt says in its first lines what it
 * shows; node-machine.ts and cluster-machine.ts say what their words mean (a script that begins with `boot` is of the
 * latter).
 *
 *   npm test -- test/raft/scripts/own/own.test.ts
 *   npx tsx test/raft/scripts/own/own.test.ts --rewrite     writes what happens into the scripts: read the difference
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { parse } from '../datadriven.ts'
import { ClusterMachine } from './cluster-machine.ts'
import { NodeMachine } from './node-machine.ts'
import { play } from './script.ts'

const folder = import.meta.dirname
/** What a machine says when it broke, or two replicas hold different rows. */
const trouble = /^(error|violation|failed): /m
const isRewriting = process.argv.includes('--rewrite')
const names = readdirSync(folder)
  .filter(name => name.endsWith('.txt'))
  .sort()

describe('our own scripts', () => {
  it('are there', () => assert.ok(names.length >= 8, `${names.length} scripts`))

  for (const name of names)
    it(`play as written: ${name.slice(0, -'.txt'.length).replaceAll('-', ' ')}`, async () => {
      const path = join(folder, name)
      const text = readFileSync(path, 'utf8')
      const isCluster = parse(text)[0]?.name === 'boot'
      const happened = await play(text, isCluster ? new ClusterMachine() : new NodeMachine())
      if (isRewriting) writeFileSync(path, happened)
      else assert.deepEqual(happened.split('\n'), text.split('\n'))
      assert.doesNotMatch(happened, trouble, 'never right, though it were written there')
    })
})

describe('a script', () => {
  const text = '# what it shows\nfirst\n7 a=(b,c)\n----\none\ntwo\n\n# more\nsecond\n----\nx\n'
  const answering = (...answers: readonly (() => string[])[]) => {
    const left = [...answers]
    return { run: async () => left.shift()!() }
  }

  it('that answers as written is answered as it was', async () => {
    const first = () => ['one', 'two']
    assert.equal(
      await play(
        text,
        answering(first, () => ['x']),
      ),
      text,
    )
  })

  it('that answers otherwise differs there, and nowhere else', async () => {
    const first = () => ['one']
    const happened = await play(
      text,
      answering(first, () => []),
    )
    assert.equal(happened, text.replace('two\n', '').replace('\nx\n', '\nnothing\n'))
  })

  it('ends where it broke, and says so', async () => {
    const broken = () => {
      throw new Error('no such thing')
    }
    const happened = await play(text, answering(broken))
    assert.match(happened, trouble)
    assert.ok(happened.includes('----\nerror: no such thing\n\n# more\nsecond\n----\nx\n'))
  })
})
