import assert from 'node:assert/strict'
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, describe, it } from 'node:test'
import { runBench } from '../../src/bench/bench.ts'
import type { RunVerify, VerifyCluster, VerifyResult } from '../../src/bench/ports.ts'
import { Books } from '../../src/bench/verify/books.ts'
import { judge } from '../../src/bench/verify/verdict.ts'
import { runVerify } from '../../src/bench/verify/verify.ts'
import { benchVerb } from '../../src/cli/bench.ts'
import { verifyPlanOf } from '../../src/cli/bench-verify.ts'
import { runCli } from '../../src/cli/cli.ts'
import { CommandRequest, type CommandResponse } from '../../src/gen/clusterpb/cluster.ts'
import { check } from '../../src/history/check.ts'
import { readHistory } from '../../src/history/read-history.ts'
import { Recorder } from '../../src/history/recorder.ts'
import { fakeShell } from '../cli/fake-cluster.ts'
import { Cluster } from '../lib/cluster-harness.ts'

const directory = mkdtempSync(join(tmpdir(), 'bench-verify-'))
after(() => rmSync(directory, { recursive: true }))

/** A client's way to the nodes that is not true to them. `send` is the true one, `lied` is called with the command of each lie. */
type Lie = (
  request: CommandRequest,
  send: () => Promise<CommandResponse>,
  lied: (command: string) => void,
) => Promise<CommandResponse>
type Liar = (run: VerifyCluster['run']) => Lie

const honest: Liar = () => (_request, send) => send()

/**
 * Tells one lie of each kind, now and then: registers answer what they answered first, keys that were to be written or
 * deleted are left alone, increments are sent twice.
 */
const liar: Liar = run => {
  const first = new Map<string, CommandResponse>()
  const last = new Map<string, CommandResponse>()
  const calls = new Map<string, number>()
  const dropped = new Set<string>()
  const isDue = (name: string, every: number) => {
    calls.set(name, (calls.get(name) ?? 0) + 1)
    return calls.get(name)! % every === 0
  }
  return async (request, send, lied) => {
    const { command, key, args } = request
    const [, , kind] = key.split(':')
    // Not the deletes of many keys at the end.
    if (
      kind === 'put' &&
      ((command === 'SET' && args.length === 1) || (command === 'DEL' && args.length === 0))
    ) {
      const like = last.get(command)
      // What was never written can't come back.
      if (like !== undefined && !dropped.has(key) && isDue(command, 2)) {
        if (command === 'SET') dropped.add(key)
        lied(command)
        return like
      }
      const response = await send()
      last.set(command, response)
      return response
    }
    const response = await send()
    if (command === 'GET' && kind === 'register' && response.response !== undefined) {
      const old = first.get(key)
      if (old === undefined) first.set(key, response)
      else if (isDue(command, 10)) {
        lied(command)
        return old
      }
    }
    if (command === 'INCR' && isDue(command, 3)) {
      await run(address, CommandRequest.fromPartial({ command, key }), 5_000)
      lied(command)
    }
    return response
  }
}

let address = ''
/** The load goes on until there were so many calls, and of a liar's so many lies of each kind, however long that takes. */
const callsMin = 300
const liesMin = 3
const lieKinds = ['SET', 'DEL', 'GET', 'INCR']

async function verify(teller: Liar, ...more: string[]): Promise<{ code: number; found: VerifyJson }> {
  const shell = fakeShell({ ROUNDHOUSE_NODE: address })
  let calls = 0
  const lies = new Map(lieKinds.map(kind => [kind, teller === honest ? liesMin : 0]))
  const load: RunVerify = (plan, cluster, onProgress, signal) => {
    const lie = teller(cluster.run.bind(cluster))
    const run: VerifyCluster['run'] = (address, request, timeoutMs) => {
      calls += 1
      if (calls >= callsMin && Math.min(...lies.values()) >= liesMin) shell.controller.abort()
      return lie(
        request,
        () => cluster.run(address, request, timeoutMs),
        command => void lies.set(command, lies.get(command)! + 1),
      )
    }
    return runVerify(plan, { map: () => cluster.map(), run }, onProgress, signal)
  }
  const verb = benchVerb(
    async () => runBench,
    async () => load,
  )
  const args = ['bench', '--verify', '-d', '60s', '--clients', '4', '-o', 'json', ...more]
  const code = await runCli(args, shell, [verb])
  assert.equal(shell.stderr.text(), '')
  return { code, found: JSON.parse(shell.stdout.text()) }
}

interface VerifyJson {
  readonly verdict: string
  readonly operations: Readonly<Record<string, { readonly ok: number }>>
  readonly lost: number
  readonly doubled: number
  readonly resurrected: number
  readonly window: readonly string[]
  readonly nodes_read: readonly string[]
  readonly checked_operations: number
  readonly mistakes: readonly string[]
  readonly doubts: readonly string[]
  readonly history: string | null
}

describe('bench --verify', () => {
  it('finds a real cluster linearizable and every kind of lie, keeps histories that matter, and leaves no key', async () => {
    await Cluster.with({}, async cluster => {
      address = cluster.node(1).address
      const kept = join(directory, 'kept.jsonl')
      const [good, bad] = await Promise.all([verify(honest, '--history', kept), verify(liar)])
      assert.deepEqual([good.found.mistakes, good.found.doubts, good.code], [[], [], 0])
      assert.equal(good.found.verdict, 'linearizable')
      assert.deepEqual([...good.found.nodes_read].sort(), ['node1', 'node2', 'node3'])
      for (const kind of ['get', 'set', 'incr', 'put']) assert.ok(good.found.operations[kind]!.ok > 0)
      assert.ok(good.found.checked_operations > 200)
      assert.equal(good.found.history, kept)
      assert.equal(await checked(kept), 'linearizable')

      const { lost, doubled, resurrected, window, history } = bad.found
      assert.deepEqual([bad.code, bad.found.verdict], [1, 'not-linearizable'])
      assert.ok(lost > 0 && doubled > 0 && resurrected > 0, JSON.stringify({ lost, doubled, resurrected }))
      assert.ok(window.length > 0)
      assert.equal(await checked(history!), 'not-linearizable')
      rmSync(dirname(history!), { recursive: true })

      const { response } = await cluster.client.read(
        cluster.anyNode,
        { command: 'DBSIZE' },
        Date.now() + 10_000,
      )
      assert.equal(Number(response?.value), 0)
    })
  })

  it('says so at once where no node answers', async () => {
    const shell = fakeShell({ ROUNDHOUSE_NODE: '127.0.0.1:1' })
    const verb = benchVerb(
      async () => runBench,
      async () => runVerify,
    )
    assert.equal(await runCli(['bench', '--verify', '--timeout', '1s'], shell, [verb]), 75)
    assert.match(shell.stderr.text(), /no node answers at 127\.0\.0\.1:1/)
  })

  for (const [verdict, expected, text] of [
    ['linearizable', 0, /^linearizable: 10 operations on 2 keys$/m],
    ['not-linearizable', 1, /^NOT linearizable: 10 operations on 2 keys$/m],
    ['unknown', 75, /^unknown: 10 operations on 2 keys$/m],
  ] as const) {
    it(`ends with ${expected} where the verdict is ${verdict}`, async () => {
      const shell = fakeShell()
      const verb = benchVerb(
        async () => runBench,
        async () => async () => resultOf(verdict),
      )
      assert.equal(await runCli(['bench', '--verify'], shell, [verb]), expected)
      assert.match(shell.stdout.text(), text)
      assert.match(shell.stdout.text(), /^get +10 +- +2$/m)
    })
  }
})

describe('the verdict', () => {
  const path = join(directory, 'history.jsonl')
  const noKeys = { keys: 0, unreadable: [] }
  const options = { timeoutMs: 10_000, onProgress: () => {} }

  function record(write: (recorder: Recorder) => void): void {
    const lines: string[] = []
    write(
      new Recorder({
        model: 'kv',
        about: null,
        now: () => lines.length,
        write: line => void lines.push(line),
      }),
    )
    writeFileSync(path, lines.join(''))
  }

  it('is unknown where something could not be read again, whatever the history says', async () => {
    record(recorder => recorder.invoke('c1', 'set', 'k', ['v']).ok())
    const { verdict, doubts } = await judge(path, new Books(''), { keys: 1, unreadable: ['k: no'] }, options)
    assert.deepEqual([verdict, doubts], ['unknown', ['k: no']])
    assert.equal((await judge(path, new Books(''), noKeys, options)).verdict, 'linearizable')
  })

  it('is unknown where nothing was answered', async () => {
    record(recorder => recorder.invoke('c1', 'set', 'k', ['v']).unknown('DEADLINE'))
    assert.equal((await judge(path, new Books(''), noKeys, options)).verdict, 'unknown')
  })

  it('is not where the books or the history have proof, whatever is unknown besides', async () => {
    record(recorder => {
      recorder.invoke('c1', 'set', 'k', ['v']).ok()
      recorder.invoke('c1', 'get', 'k').ok(null)
      for (let key = 0; key < 50; key++) recorder.invoke('c2', 'get', `other${key}`).ok(null)
    })
    const unreadable = { keys: 1, unreadable: ['k: no'] }
    const stale = await judge(path, new Books(''), unreadable, options)
    assert.equal(stale.verdict, 'not-linearizable')
    assert.equal(stale.window?.key, 'k')
    record(recorder => recorder.invoke('c1', 'set', 'k', ['v']).ok())
    const books = new Books('')
    books.mistake('k is gone', 'lost')
    assert.deepEqual((await judge(path, books, unreadable, options)).mistakes, ['k is gone'])
  })
})

describe("bench --verify's plan", () => {
  const plan = (options: Record<string, unknown>, positionals: string[] = []) =>
    verifyPlanOf({ positionals, options, mistakes: [] }, 100)

  it('is 16 clients on 24 keys for ten seconds, each call when the one before has ended', () => {
    const { clients, keys, durationMs, rate, historyPath, keepsKeys } = plan({})
    assert.deepEqual(
      [clients, keys, durationMs, rate, historyPath, keepsKeys],
      [16, 24, 10_000, null, null, false],
    )
  })

  it('names all that is wrong with it, flags of the measuring bench among it', () => {
    const wrong = { clients: '0', keys: '3', duration: 'long', rate: 'x', calls: 'unary', sessions: true }
    assert.throws(
      () => plan(wrong, ['set']),
      (error: Error) =>
        ['--clients', '--keys', '--duration', '--rate', '--calls', '--sessions', 'set:'].every(each =>
          error.message.includes(each),
        ),
    )
  })
})

/** What `npm run check-history` says of it. */
async function checked(path: string): Promise<string> {
  const { operations, model } = await readHistory(createReadStream(path), { format: null, model: null })
  return check(operations, model).kind
}

function resultOf(verdict: VerifyResult['verdict']): VerifyResult {
  const none = { ok: 0, refused: 0, unknown: 0 }
  return {
    ...{
      verdict,
      prefix: 'verify:1:',
      durationS: 1,
      endedBy: 'time',
      retried: 0,
      troubles: {},
      longestGapMs: 1,
    },
    operations: {
      ...{
        get: { ok: 10, refused: 0, unknown: 2 },
        set: none,
        cas: none,
        del: none,
        incr: none,
        append: none,
      },
      ...{ put: none, remove: none, expire: none },
    },
    ...{
      longestCallMs: 1,
      found: { lost: 0, doubled: 0, resurrected: 0, strange: 0 },
      keysRead: 1,
      nodesRead: ['n1'],
    },
    ...{
      checkedOperations: 10,
      checkedKeys: 2,
      mistakes: [],
      doubts: [],
      window: [],
      historyPath: null,
      keysLeft: 0,
    },
  }
}
