import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { consumeVerb, startOf } from '../../src/cli/consume.ts'
import { getServersVerb } from '../../src/cli/get-servers.ts'
import { linesOf, produceVerb } from '../../src/cli/produce.ts'
import { daysToo, streamVerbs } from '../../src/cli/streams.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { FakeStreams } from '../wire/grpc/fake-streams.ts'
import { type Harness, startServer, until } from '../wire/grpc/harness.ts'
import { fakeShell } from './fake-cluster.ts'

const verbs = [...streamVerbs, produceVerb, consumeVerb, getServersVerb]

describe('streams in the shell', () => {
  let h: Harness
  const directory = mkdtempSync(join(tmpdir(), 'roundhouse-cli-'))
  before(async () => {
    h = await startServer()
  })
  after(() => {
    rmSync(directory, { recursive: true })
    return h.close()
  })

  /** Runs a verb against the node; input is what comes on standard input. */
  async function run(line: string, input: string | Readable = '', nodes = h.address) {
    const stdin = typeof input === 'string' ? Readable.from(input === '' ? [] : [Buffer.from(input)]) : input
    const shell = fakeShell({ ROUNDHOUSE_NODE: nodes }, false, stdin)
    const args = line.match(/'[^']*'|\S+/g)!.map(word => word.replace(/^'(.*)'$/, '$1'))
    const exit = await runCli(args, shell, verbs)
    return { exit, out: shell.stdout.text(), err: shell.stderr.text() }
  }

  it('are made, listed and described', async () => {
    const made = await run('stream create orders --partitions 2 --retention 7d --retention-bytes 1GiB')
    assert.deepEqual(made, {
      exit: 0,
      out: 'orders: id 1, 2 partitions, kept for 168h, up to 1GiB a partition\n',
      err: '',
    })
    assert.match((await run('stream list')).out, /^NAME .*\norders +1 +2 +168h +1GiB/)
    assert.match(
      (await run('stream describe orders')).out,
      /PARTITION +START +END.*\n0 +0 +0 +0 +0 B +- +0 +n1 +n1 n2\n1 /,
    )
    const [listed] = JSON.parse((await run('stream list -o json')).out)
    assert.deepEqual(
      [listed.name, listed.retention_ms, listed.retention_bytes],
      ['orders', 604_800_000, 2 ** 30],
    )
  })

  it('take changes of what they keep', async () => {
    const changed = await run('stream change orders --retention none')
    assert.match(changed.out, /kept up to 1GiB a partition/)
    const nothing = await run('stream change orders')
    assert.deepEqual([nothing.exit, /--retention or --retention-bytes/.test(nothing.err)], [2, true])
  })

  it('are told apart from what is none, and name what is accepted', async () => {
    for (const [line, text] of [
      ['stream create x --partitions 0', /--partitions: "0" is not an integer from 1 to 1024/],
      [
        'stream create x --retention soon',
        /--retention: "soon" is not a duration such as 36h or 7d, nor none/,
      ],
      ['stream create x --retention-bytes much', /is not a size such as 512MiB or 1GiB/],
      ['stream truncate orders', /--before is missing/],
      ['stream create', /stream is missing/],
      ['consume orders --from yesterday', /earliest, latest, an offset, a time such as/],
      ['consume orders --partition -1', /--partition: "-1" is not an integer/],
      ['produce orders --headers novalue', /"novalue" is not name=value/],
    ] as const) {
      const { exit, err } = await run(line, 'x\n')
      assert.equal(exit, 2, line)
      assert.match(err, text)
    }
    const { exit, err } = await run('stream describe nobody')
    assert.deepEqual([exit, err], [1, 'error: ERR no such stream: nobody\n'])
  })

  it('take a record a line, byte for byte, the empty ones and the last without an end', async () => {
    const { exit, out } = await run('produce orders --partition 0', 'one\n\n three \u00e4\r\nlast')
    assert.deepEqual([exit, out], [0, '4 records in orders/0, offsets 0 to 3\n'])
    assert.equal((await run('consume orders --partition 0')).out, 'one\n\n three \u00e4\r\nlast\n')
  })

  it('give JSON that can be produced again', async () => {
    const lines = [
      { value: 'a', key: 'k', headers: { h: '1', b: { base64: '/w==' } }, type: 7 },
      { value: { base64: '/wA=' } },
    ]
    const input = lines.map(each => JSON.stringify(each)).join('\n')
    assert.equal((await run('produce orders --json --partition 1', input)).exit, 0)
    const { out } = await run('consume orders --partition 1 -o json')
    const found = out
      .trim()
      .split('\n')
      .map(each => JSON.parse(each))
    for (const [i, { partition, offset, timestamp, ...rest }] of found.entries()) {
      assert.deepEqual([partition, offset, !Number.isNaN(Date.parse(timestamp))], [1, i, true])
      assert.deepEqual(rest, lines[i])
    }
  })

  it('name the line that is no record', async () => {
    for (const [line, text] of [
      ['{', /line 2: /],
      ['[]', /line 2: it is no object; accepted is \{"value"/],
      ['{"key":"k"}', /line 2: it has no value/],
      ['{"value":7}', /line 2: its value is no bytes/],
      ['{"value":"","type":-1}', /line 2: its type/],
      ['{"value":{"base64":"no base64!"}}', /line 2: its value is no bytes/],
      ['{"value":"","headers":["a"]}', /line 2: its headers are no object/],
    ] as const) {
      const { exit, err } = await run('produce orders --json --partition 1', `{"value":"ok"}\n${line}\n`)
      assert.equal(exit, 2, line)
      assert.match(err, text)
    }
  })

  it('may be no text in JSON but as base64', async () => {
    const input = Readable.from([Buffer.from([...Buffer.from('{"value":"'), 0xff, ...Buffer.from('"}\n')])])
    const { exit, err } = await run('produce orders --json --partition 1', input)
    assert.deepEqual([exit, /line 1: it is not UTF-8/.test(err)], [2, true])
  })

  it('keep headers whose names come twice, or are odd, in JSON', async () => {
    await run('stream create headed')
    const headers = ['{"h":["1","2"],"__proto__":"3","b":[{"base64":"/w=="}]}', '{"h":"1"}']
    await run('produce headed --json', headers.map(each => `{"value":"","headers":${each}}\n`).join(''))
    const { out } = await run('consume headed -o json')
    const found = out.split('\n').map(line => /"headers":(.*)\}$/.exec(line)?.[1])
    assert.deepEqual(found.slice(0, 2), [
      headers[0]!.replace('[{"base64":"/w=="}]', '{"base64":"/w=="}'),
      headers[1],
    ])
  })

  it('are all there before a line that is none, and no part of it', async () => {
    await run('stream create mistaken')
    const [short, long] = [
      Array.from({ length: 2_500 }, (_, i) => `{"value":"${i}"}\n`).join(''),
      'x'.repeat(2_200_000),
    ]
    for (const [line, partition] of [
      [`${short}{"value":7}\n{"value":"behind"}\n`, 'line 2501: its value is no bytes'],
      [`${short}${long}`, 'line 2501 is longer than 2097152 bytes'],
    ] as const) {
      const { exit, err } = await run('produce mistaken --json', line)
      assert.equal(exit, 2)
      assert.ok(err.startsWith(`2500 records were acknowledged before that\nerror: ${partition}`), err)
    }
    const { out } = await run('consume mistaken')
    assert.equal(out, Array.from({ length: 5_000 }, (_, i) => `${i % 2_500}\n`).join(''))
  })

  it('are whole where Ctrl-C cuts the input', async () => {
    await run('stream create cut')
    const shell = fakeShell({ ROUNDHOUSE_NODE: h.address }, false, new Readable({ read() {} }))
    const input = shell.stdin.stream as Readable
    const running = runCli(['produce', 'cut'], shell, verbs)
    input.push('whole\nhal')
    await until('the first is there', () => h.service.streams.batches.at(-1)?.stream === 'cut')
    shell.controller.abort()
    assert.equal(await running, 0)
    assert.equal(shell.stdout.text(), '1 record in cut/0, offset 0\n')
    assert.equal((await run('consume cut')).out, 'whole\n')
  })

  it('are made and deleted once: what nobody answered is unknown, not refused', async () => {
    const { streams } = h.service
    const { create, delete: remove } = FakeStreams.prototype
    streams.create = async wish => {
      await create.call(streams, wish)
      throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'of the test' })
    }
    streams.delete = async name => {
      await remove.call(streams, name)
      throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'of the test' })
    }
    try {
      for (const line of ['stream create once', 'stream delete once']) {
        const { exit, out } = await run(`${line} -o json --timeout 1s`)
        assert.deepEqual([exit, JSON.parse(out).outcome], [75, 'unknown'], line)
      }
    } finally {
      Object.assign(streams, { create, delete: remove })
    }
  })

  it('have a name: an empty one is not that of `default`', async () => {
    await run('produce default', 'kept\n')
    for (const line of [
      ...['stream delete', 'stream truncate --before 1', 'stream describe', 'stream change --retention 7d'],
      ...['produce', 'consume'],
    ]) {
      const shell = fakeShell({ ROUNDHOUSE_NODE: h.address }, false, Readable.from([Buffer.from('x\n')]))
      assert.equal(await runCli([...line.split(' '), ''], shell, verbs), 2, line)
      assert.match(shell.stderr.text(), /stream is empty/)
    }
    assert.equal((await run('consume default')).out, 'kept\n')
  })

  it('take key and headers for all records', async () => {
    await run('produce orders --key u42 --headers a=1,b=x=y', 'v\n')
    const [record] = h.service.streams.batches.at(-1)!.records
    assert.equal(Buffer.from(record!.key!).toString(), 'u42')
    assert.deepEqual(
      record!.headers.map(({ name, value }) => [name, Buffer.from(value).toString()]),
      [
        ['a', '1'],
        ['b', 'x=y'],
      ],
    )
  })

  it('put records of one key into the partition that every producer finds', async () => {
    await run('stream create keyed --partitions 8')
    const keys = Array.from({ length: 40 }, (_, i) => JSON.stringify({ value: `${i}`, key: `k${i % 10}` }))
    const { out } = await run('produce keyed --json', keys.join('\n'))
    assert.match(out, /in keyed\/\d/)
    const places = new Map<string, Set<number | null>>()
    for (const { stream, partition, records } of h.service.streams.batches)
      for (const { key } of stream === 'keyed' ? records : []) {
        const name = Buffer.from(key!).toString()
        places.set(name, (places.get(name) ?? new Set()).add(partition))
      }
    assert.ok([...places.values()].every(each => each.size === 1))
    assert.ok(new Set([...places.values()].flatMap(each => [...each])).size > 1)
  })

  it('are produced once, though calls break off', async () => {
    await run('stream create once')
    let calls = 0
    const seen: { sequence: number; first: string }[] = []
    h.service.streams.onProduce = ({ stream, session, records }) => {
      if (stream !== 'once') return
      seen.push({ sequence: session!.sequence, first: Buffer.from(records[0]!.value).toString() })
      if (++calls === 2) throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'for the test' })
    }
    const path = join(directory, 'lines')
    const lines = Array.from({ length: 5_000 }, (_, i) => `line ${i}`)
    writeFileSync(path, lines.join('\n'))
    const { exit, out } = await run(`produce once --file ${path}`)
    h.service.streams.onProduce = () => {}
    assert.equal(exit, 0)
    assert.equal(out, '5000 records in once/0, offsets 0 to 4999\n')
    const [, second] = seen
    assert.ok(seen.filter(each => each.sequence === second!.sequence).length === 2, 'it was sent again')
    for (const { sequence, first } of seen)
      assert.equal(first, seen.find(each => each.sequence === sequence)!.first)
  })

  it('take no session a process while they are few; many come under one of their own', async () => {
    await run('stream create few')
    const seen: { id: string; sequence: number }[] = []
    h.service.streams.onProduce = ({ session }) => {
      seen.push({ id: Buffer.from(session!.id).toString('hex'), sequence: session!.sequence })
    }
    try {
      for (let i = 0; i < 3; i++) assert.equal((await run('produce few', 'x\n')).exit, 0)
      const shared = new Set(seen.map(({ id }) => id))
      // A half hour may have ended meanwhile.
      assert.ok(shared.size <= 2 && new Set(seen.map(({ sequence }) => sequence)).size === 3)
      assert.equal((await run('produce few --timeout 5m', 'x\n')).exit, 0)
      assert.deepEqual([shared.has(seen[3]!.id), seen[3]!.sequence], [false, 1])
      seen.length = 0
      const { exit, out } = await run('produce few', 'y\n'.repeat(9_500))
      assert.deepEqual([exit, out], [0, '9500 records in few/0, offsets 4 to 9503\n'])
      const own = seen.filter(({ sequence }) => sequence <= 10)
      assert.deepEqual([seen.length, own.map(({ sequence }) => sequence)], [10, [1, 2, 3, 4, 5, 6]])
      assert.equal(new Set(own.map(({ id }) => id)).size, 1)
    } finally {
      h.service.streams.onProduce = () => {}
    }
  })

  it('go on under a session of their own where the shared one has no room, if they were sent once', async () => {
    await run('stream create crowded')
    const full = new RoundhouseError('SESSION_FULL', { what: 'sequences of this session', max: 1_024 })
    const sequences: number[] = []
    let isUndecided = false
    h.service.streams.onProduce = ({ session }) => {
      sequences.push(session!.sequence)
      if (session!.sequence < 10) return
      if (isUndecided && sequences.length === 1)
        throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'for the test' })
      throw full
    }
    try {
      const { exit, out } = await run('produce crowded', 'x\n')
      assert.deepEqual([exit, out], [0, '1 record in crowded/0, offset 0\n'])
      assert.deepEqual([sequences.length, sequences[1]], [2, 1])
      isUndecided = true
      sequences.length = 0
      const { exit: undecided, err } = await run('produce crowded --timeout 2s', 'x\n')
      assert.deepEqual(
        [undecided, /unknown/i.test(err), sequences.every(each => each > 10)],
        [75, true, true],
      )
    } finally {
      h.service.streams.onProduce = () => {}
    }
  })

  it('say how many were acknowledged before what went wrong', async () => {
    await run('stream create full')
    let calls = 0
    h.service.streams.onProduce = () => {
      if (++calls > 1) throw new RoundhouseError('DISK_FULL', { shard: 1 })
    }
    const input = new Readable({ read() {} })
    const running = run('produce full', input)
    input.push('first\n')
    await until('the first is there', () => calls === 1)
    input.push('second\n')
    input.push(null)
    const { exit, err } = await running
    h.service.streams.onProduce = () => {}
    assert.equal(exit, 75)
    assert.match(err, /^1 records were acknowledged before that\nerror: DISK_FULL/)
  })

  it('tell in JSON, too, what was acknowledged, and of how many that is not known', async () => {
    await run('stream create told')
    const acknowledged = (records: number) => ({
      stream: 'told',
      records,
      partitions: [{ partition: 0, first: 0, last: records - 1, records }],
    })
    assert.deepEqual(JSON.parse((await run('produce told -o json', 'x\nx\n')).out), {
      outcome: 'applied',
      ...acknowledged(2),
    })
    await run('stream delete told')
    for (const [what, code, outcome, unknown] of [
      [{ code: 'DISK_FULL', facts: { shard: 1 } }, 'DISK_FULL', 'partly_applied', 0],
      [{ code: 'OUTCOME_UNKNOWN', facts: { why: 'of the test' } }, 'OUTCOME_UNKNOWN', 'unknown', 500],
    ] as const) {
      await run('stream create told')
      let calls = 0
      h.service.streams.onProduce = () => {
        if (++calls > 2) throw new RoundhouseError(what.code, what.facts as never)
      }
      const lines = 'x\n'.repeat(2_500)
      const { exit, out, err } = await run('produce told --timeout 1s -o json', lines)
      const { error, ...rest } = JSON.parse(out)
      assert.deepEqual([exit, err, error.code], [75, '', code])
      assert.deepEqual(rest, { outcome, ...acknowledged(2_000), unknown })
      calls = 0
      const text = await run('produce told --timeout 1s', lines)
      h.service.streams.onProduce = () => {}
      const ofUnknown = unknown === 0 ? '' : `, of ${unknown} it is not known`
      assert.ok(
        text.err.startsWith(`2000 records were acknowledged before that${ofUnknown}\nerror: `),
        text.err,
      )
      assert.deepEqual([text.exit, text.out], [75, ''])
      await run('stream delete told')
    }
    const nobody = await run('produce told --timeout 300ms -o json', 'x\n', '127.0.0.1:1')
    const { error, ...rest } = JSON.parse(nobody.out)
    assert.deepEqual([nobody.exit, error.code], [75, 'UNREACHABLE'])
    assert.deepEqual(rest, { outcome: 'not_applied', stream: 'told', records: 0, partitions: [], unknown: 0 })
  })

  it('are unknown as long as one try of them may have been appended, whatever was said of the others', async () => {
    await run('stream create doubted')
    let calls = 0
    h.service.streams.onProduce = () => {
      if (++calls === 1) return
      throw calls === 2
        ? new RoundhouseError('OUTCOME_UNKNOWN', { why: 'of the test' })
        : new RoundhouseError('DISK_FULL', { shard: 1 })
    }
    const { exit, out } = await run('produce doubted -o json', 'x\n'.repeat(1_200))
    h.service.streams.onProduce = () => {}
    const { error, outcome, unknown } = JSON.parse(out)
    assert.deepEqual([exit, error.code, outcome, unknown], [75, 'OUTCOME_UNKNOWN', 'unknown', 200])
    assert.match(error.message, /DISK_FULL/)
  })

  it('are merged over all partitions, and end with the last or at --max', async () => {
    const { out } = await run('consume keyed')
    assert.equal(out.trim().split('\n').length, 40)
    assert.equal((await run('consume keyed --max 7')).out.trim().split('\n').length, 7)
  })

  it('are followed until the signal', async () => {
    await run('stream create tail')
    await run('produce tail', 'old\n')
    const shell = fakeShell({ ROUNDHOUSE_NODE: h.address })
    const running = runCli(['consume', 'tail', '--follow'], shell, verbs)
    await until('it waits', () => h.service.streams.waiting === 1)
    await run('produce tail', 'new\n')
    await until('it came', () => shell.stdout.text() === 'new\n')
    shell.controller.abort()
    assert.equal(await running, 0)
    assert.equal(shell.stderr.text(), '')
  })

  it('begin where --from says', async () => {
    assert.equal((await run('consume tail --from 1')).out, 'new\n')
    assert.equal((await run('consume tail --from earliest')).out, 'old\nnew\n')
    assert.equal((await run('consume tail --from latest')).out, '')
    const beyond = await run('consume tail --from 99')
    assert.deepEqual([beyond.exit, /99; tail\/0 holds 0 to 1/.test(beyond.err)], [1, true])
  })

  it('begin at one offset in all partitions, though some have not come so far and some lost it', async () => {
    await run('stream create uneven --partitions 3')
    for (const [partition, count] of [5, 1, 5].entries()) {
      const lines = Array.from({ length: count }, (_, i) => `${partition}:${i}\n`).join('')
      await run(`produce uneven --partition ${partition}`, lines)
    }
    await run('stream truncate uneven --partition 2 --before 4')
    const sorted = (text: string) => text.trim().split('\n').sort()
    const told = ['partition 1: nothing from 3 on, its next record gets 1', 'partition 2: 3 to 3 are gone']
    const { exit, out, err } = await run('consume uneven --from 3')
    assert.deepEqual([exit, sorted(out), sorted(err)], [0, ['0:3', '0:4', '2:4'], told])

    const shell = fakeShell({ ROUNDHOUSE_NODE: h.address })
    const running = runCli(['consume', 'uneven', '--from', '3', '--follow'], shell, verbs)
    await until('they wait', () => h.service.streams.waiting === 3)
    await run('produce uneven --partition 1', '1:1\n1:2\n1:3\n')
    await until('it came', () => shell.stdout.text().includes('1:3'))
    shell.controller.abort()
    assert.equal(await running, 0)
    assert.deepEqual(sorted(shell.stdout.text()), ['0:3', '0:4', '1:3', '2:4'])
    assert.deepEqual(sorted(shell.stderr.text()), told)
  })

  it('are none where one offset is in no partition, or not in the one that is named', async () => {
    const nowhere = await run('consume uneven --from 99')
    assert.deepEqual([nowhere.exit, nowhere.out], [1, ''])
    assert.match(nowhere.err, /\nerror: ERR offset out of range: 99; uneven\/\d holds /)
    for (const place of ['--partition 1 --from 9', '--partition 2 --from 3']) {
      const { exit, err } = await run(`consume uneven ${place}`)
      assert.deepEqual([exit, err.startsWith('error: ERR offset out of range')], [1, true], err)
    }
  })

  it('are truncated and deleted', async () => {
    assert.equal((await run('stream truncate tail --before 1')).out, 'tail/0 begins at 1\n')
    assert.equal((await run('consume tail')).out, 'new\n')
    assert.equal((await run('stream delete tail')).out, 'tail is gone\n')
    assert.equal((await run('consume tail')).exit, 1)
  })

  it('name the servers as the seed prints them', async () => {
    const { out } = await run(`getservers --addr ${h.address}`, '', '127.0.0.1:1')
    assert.equal(
      out,
      'servers:\n\t- id:"n1" rpc_addr:"n1.example:8080" is_leader:true\n\t- id:"n2" rpc_addr:"n2.example:8080"\n',
    )
  })

  it('are not reached where nobody listens', async () => {
    const { exit, err } = await run('produce orders --timeout 300ms', 'x\n', '127.0.0.1:1')
    assert.deepEqual([exit, /no node answers at 127\.0\.0\.1:1/.test(err)], [75, true])
  })
})

describe('--from', () => {
  it('takes offsets, words, times and ages', () => {
    const nowMs = Date.parse('2026-11-20T12:00:00Z')
    assert.deepEqual(startOf('17', nowMs), { kind: 'offset', offset: 17n })
    assert.deepEqual(startOf('latest', nowMs), { kind: 'latest' })
    assert.deepEqual(startOf('2026-11-20T10:00:00Z', nowMs), { kind: 'time', ms: nowMs - 7_200_000 })
    assert.deepEqual(startOf('2026-11-20 10:00:00Z', nowMs), { kind: 'time', ms: nowMs - 7_200_000 })
    assert.deepEqual(startOf('2h', nowMs), { kind: 'time', ms: nowMs - 7_200_000 })
    for (const wrong of ['', '-1', '1.5', 'soon', '2026-13-40T00:00', '2026-06-31', '2026-11-20T10:00 or so'])
      assert.throws(() => startOf(wrong, nowMs), wrong)
  })

  it('is local time where it does not say which, a day alone too', () => {
    const before = process.env.TZ
    try {
      process.env.TZ = 'Asia/Tokyo'
      for (const [text, utc] of [
        ['2026-11-20', '2026-11-19T15:00:00Z'],
        ['2026-11-20T10:00', '2026-11-20T01:00:00Z'],
        ['2026-11-20 10:00:07.25', '2026-11-20T01:00:07.250Z'],
        ['2026-11-20T10:00Z', '2026-11-20T10:00:00Z'],
        ['2026-11-20T10:00-02:00', '2026-11-20T12:00:00Z'],
      ] as const)
        assert.deepEqual(startOf(text, 0), { kind: 'time', ms: Date.parse(utc) }, text)
    } finally {
      if (before === undefined) delete process.env.TZ
      else process.env.TZ = before
    }
  })
})

describe('a duration', () => {
  it('may have days', () => {
    assert.deepEqual(['7d', '1d12h', '90m', 'd', '1w'].map(daysToo), [
      604_800_000,
      129_600_000,
      5_400_000,
      undefined,
      undefined,
    ])
  })
})

describe('lines', () => {
  it('are cut where they end, however they come', async () => {
    const text = 'a\nbc\n\ndé\nlast'
    for (let size = 1; size <= text.length; size++) {
      const bytes = Buffer.from(text)
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
        bytes.subarray(i * size, (i + 1) * size),
      )
      const found: string[] = []
      for await (const lines of linesOf(Readable.from(chunks)))
        found.push(...lines.map(each => each.toString()))
      assert.deepEqual(found, ['a', 'bc', '', 'dé', 'last'])
    }
  })
})
