import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, it } from 'node:test'
import xxhash from 'xxhash-wasm'
import { runCli } from '../../src/cli/cli.ts'
import { runVerb } from '../../src/cli/run.ts'
import { parseLines, readLines } from '../../src/cli/run-atomic.ts'
import { UsageError } from '../../src/cli/shell.ts'
import { atomicReply, operationsOf } from '../../src/commands/atomic.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import type { Call } from '../../src/node/ports.ts'
import { partitionOfKey } from '../../src/node/stream-batch.ts'
import { type Harness, startServer } from '../wire/grpc/harness.ts'
import { fakeShell } from './fake-cluster.ts'

describe('run --atomic', () => {
  let h: Harness
  const directory = mkdtempSync(join(tmpdir(), 'roundhouse-cli-'))
  const file = join(directory, 'entry.txt')
  before(async () => {
    h = await startServer()
    const retention = { retentionMs: null, retentionBytes: null, ifMissing: true }
    await h.service.streams.create({ name: 'one{u}', partitions: 1, ...retention })
    await h.service.streams.create({ name: 'many{u}', partitions: 8, ...retention })
  })
  beforeEach(() => {
    h.service.calls.length = 0
    h.service.onExecute = async ({ args }) => {
      const replies = operationsOf(args).map(() => ({ kind: 'nil' }) as const)
      return { reply: atomicReply(replies), revision: 7, lagMs: 0 }
    }
  })
  after(() => {
    rmSync(directory, { recursive: true })
    return h.close()
  })

  async function run(...lines: string[]) {
    writeFileSync(file, lines.join('\n'))
    const shell = fakeShell({ ROUNDHOUSE_NODE: h.address })
    const code = await runCli(['run', '--atomic', file], shell, [runVerb])
    return { code, err: shell.stderr.text() }
  }

  /** Key, id and number of the partition that each append goes to. */
  const places = ({ args }: Call) =>
    operationsOf(args).flatMap(each =>
      each.command === 'STREAM.APPEND' ? [each.args.slice(0, 3).map(toUtf8)] : [],
    )

  it('puts a record where it is told, else where its key belongs', async () => {
    const { h64 } = await xxhash()
    const keys = Array.from({ length: 10 }, (_, i) => `k${i}`)
    const lines = keys.map(key => `PRODUCE many{u} value ${key}`)
    const { code } = await run(
      'SET {u}a 1',
      'PRODUCE many{u}/5 value k0',
      'PRODUCE one{u} "a value"',
      ...lines,
    )
    assert.equal(code, 0)
    const expected = keys.map(key => partitionOfKey(text => h64(text), fromUtf8(key), 8))
    assert.ok(new Set(expected).size > 2)
    assert.deepEqual(places(h.service.calls[0]!), [
      ['many{u}/5', '2', '5'],
      ['one{u}/0', '1', '0'],
      ...expected.map(partition => [`many{u}/${partition}`, '2', String(partition)]),
    ])
  })

  it('asks for a partition or a key where nothing says which of several it is', async () => {
    const { code, err } = await run('SET {u}a 1', 'PRODUCE many{u} value')
    assert.equal(code, 2)
    assert.match(
      err,
      /entry\.txt, line 2: many\{u\} has 8 partitions: name one \(many\{u\}\/0\) or give a key/,
    )
    assert.equal(h.service.calls.length, 0)
  })

  it('leaves it to the cluster to say that there is no such stream', async () => {
    const { code, err } = await run('PRODUCE none value')
    assert.deepEqual([code, /no such stream: none/.test(err)], [1, true])
  })

  it('goes without a session where the table is full, and then once', async () => {
    const answer = h.service.onExecute
    h.service.onExecute = async call => {
      if (call.session !== null) throw new RoundhouseError('SESSION_FULL', { what: 'sessions', max: 1 })
      return answer(call)
    }
    assert.equal((await run('SET {u}a 1')).code, 0)
    assert.deepEqual(
      h.service.calls.map(({ session }) => session === null),
      [false, true],
    )
    h.service.calls.length = 0
    h.service.onExecute = async call => {
      if (call.session !== null) throw new RoundhouseError('SESSION_FULL', { what: 'sessions', max: 1 })
      throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'for the test' })
    }
    const { code, err } = await run('SET {u}a 1')
    assert.deepEqual([code, /unknown/i.test(err), h.service.calls.length], [75, true, 2])
  })

  it('takes no file that is not UTF-8, which it would write otherwise than it stands there', () => {
    const path = join(directory, 'latin1.txt')
    writeFileSync(path, Buffer.from('SET a \u00e9\n', 'latin1'))
    assert.throws(() => readLines(path), /latin1\.txt: it is not UTF-8/)
    writeFileSync(path, 'SET a \u00e9\n')
    assert.equal(readLines(path).length, 1)
  })

  it('names the line that is none', () => {
    for (const [text, said] of [
      ['', /there is no command in it/],
      ['# nothing', /there is no command in it/],
      ['SET a b\nSET "a', /f, line 2: a " that is not closed/],
      ['PRODUCE s', /f, line 1: usage PRODUCE STREAM/],
      ['PRODUCE s a b c', /f, line 1: usage PRODUCE STREAM/],
      ['PRODUCE s/99999999999999999999 a', /f, line 1: partition 99999999999999999999, which is more than/],
    ] as const)
      assert.throws(
        () => parseLines(text, 'f'),
        (error: Error) => error instanceof UsageError && said.test(error.message),
        text,
      )
  })
})
