import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { status } from '@grpc/grpc-js'
import { runCli } from '../../src/cli/cli.ts'
import { type Carried, sharedSession } from '../../src/cli/one-shot.ts'
import { runVerb } from '../../src/cli/run.ts'
import { setVerb } from '../../src/cli/set.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { createdAt, SessionTable } from '../../src/keyspace/sessions.ts'
import { count, type FakeAnswers, fakeNode, fakeShell, refusal, success } from './fake-cluster.ts'

const minute = 60_000
/** The start of a half hour. */
const start = 1_800_000_000_000

/** What a shard says to a write. */
function write(table: SessionTable, { session, sequence, ackedBelow }: Carried, logNowMs: number): string {
  const use = { id: session, sequence: Number(sequence), ackedBelow: Number(ackedBelow) }
  const check = table.check(use, logNowMs)
  if (check.kind === 'refused') return check.error.code
  if (check.kind === 'new') table.keep(use, logNowMs, Buffer.from('done'))
  return check.kind
}

describe('the session of writes that come alone', () => {
  it('is one for all processes of a user on a machine, for half an hour', () => {
    const one = sharedSession(start, 'machine 1000')
    assert.deepEqual(sharedSession(start + 30 * minute - 1, 'machine 1000').session, one.session)
    assert.notDeepEqual(sharedSession(start + 30 * minute, 'machine 1000').session, one.session)
    assert.notDeepEqual(sharedSession(start, 'machine 1001').session, one.session)
    assert.equal(one.session.length, 16)
    assert.equal(createdAt(one.session), start)
  })

  it('takes few rows in a shard, however many writes there are', () => {
    const table = new SessionTable(new MemoryRows())
    // As many as a shard takes sessions, and more.
    for (let ms = start; ms < start + 180 * minute; ms += 1_000)
      assert.equal(write(table, sharedSession(ms, 'm'), ms), 'new')
    assert.equal(table.count, 6)
  })

  it('knows a write again that is sent again within its time', () => {
    const table = new SessionTable(new MemoryRows())
    for (const ms of [start, start + 29 * minute + 59_999]) {
      const first = sharedSession(ms, 'm')
      assert.equal(write(table, first, ms), 'new')
      for (let i = 0; i < 100; i++) assert.equal(write(table, sharedSession(ms, 'm'), ms), 'new')
      for (let later = 0; later < minute; later += 1_000)
        assert.equal(write(table, sharedSession(ms + later, 'm'), ms + later), 'new')
      assert.equal(write(table, first, ms + minute), 'repeated')
    }
  })

  it('gives no write of two the same sequence, and only safe integers', () => {
    const sequences = Array.from(
      { length: 10_000 },
      () => sharedSession(start + 30 * minute - 1, 'm').sequence,
    )
    assert.ok(new Set(sequences).size >= 9_999)
    for (const sequence of sequences) assert.ok(sequence <= BigInt(Number.MAX_SAFE_INTEGER))
    const first = sharedSession(start, 'm')
    assert.ok(first.sequence > 0n && first.ackedBelow === 0n)
  })

  it('never lets through what comes after its time: it is stale', () => {
    const table = new SessionTable(new MemoryRows())
    const late = sharedSession(start, 'm')
    assert.equal(write(table, sharedSession(start + 2 * minute, 'm'), start + 2 * minute), 'new')
    assert.equal(write(table, late, start + 2 * minute), 'SESSION_STALE')
  })
})

async function roundhouse(answers: FakeAnswers, ...args: string[]) {
  const node = await fakeNode(answers)
  try {
    const shell = fakeShell({ ROUNDHOUSE_NODE: node.address })
    const code = await runCli([...args, '-o', 'json'], shell, [setVerb, runVerb])
    return { code, requests: node.requests, json: JSON.parse(shell.stdout.text()) as Record<string, unknown> }
  } finally {
    node.close()
  }
}

describe('a write that comes alone', () => {
  const full = refusal(status.RESOURCE_EXHAUSTED, 'SESSION_FULL', 'SESSION_FULL sessions in this shard')
  const withoutSession = ({ session }: { readonly session: Buffer }) => session.length === 0

  it('carries the shared session, and one of its own where it is to be tried for long', async () => {
    const command = () => success(true)
    const [first, second, patient] = [
      await roundhouse({ command }, 'set', 'k', 'v'),
      await roundhouse({ command }, 'set', 'k', 'v'),
      await roundhouse({ command }, 'set', 'k', 'v', '--timeout', '5m'),
    ].map(({ requests }) => requests[0]!)
    assert.deepEqual(first!.session, second!.session)
    assert.notEqual(first!.sequence, second!.sequence)
    assert.notDeepEqual(patient!.session, first!.session)
    assert.deepEqual([patient!.sequence, patient!.ackedBelow], [1n, 0n])
  })

  it('goes without a session where the table is full', async () => {
    const { code, requests } = await roundhouse(
      { command: request => (withoutSession(request) ? success(true) : full) },
      'set',
      'k',
      'v',
    )
    assert.deepEqual([code, requests.map(withoutSession)], [0, [false, true]])
  })

  it('is then sent no second time where the first is undecided', async () => {
    const undecided = refusal(status.DEADLINE_EXCEEDED, 'OUTCOME_UNKNOWN', 'outcome unknown')
    const { code, json, requests } = await roundhouse(
      { command: request => (withoutSession(request) ? undecided : full) },
      'run',
      'INCR',
      'n',
    )
    assert.deepEqual([code, json.outcome, requests.length], [75, 'unknown', 2])
  })

  it('is refused where parts of it may have been applied', async () => {
    const { code, requests } = await roundhouse(
      { command: request => (withoutSession(request) ? count(2n) : full) },
      'run',
      'DEL',
      'a',
      'b',
    )
    assert.deepEqual([code, requests.length], [75, 1])
  })
})
