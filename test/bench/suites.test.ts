import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, it } from 'node:test'
import { programArguments } from '../lib/program.ts'
import type { Facts } from './suites/facts.ts'
import { factsNow } from './suites/facts.ts'
import { cellText, kneeOf, kneeText, sectionOf, tableText } from './suites/markdown.ts'
import { memoryIn } from './suites/memory.ts'
import { axisOf, type Chart, countText, svgOf } from './suites/plot.ts'
import { shortage, sparedBytes } from './suites/room.ts'
import { type Context, eachOf, sizeText, telling } from './suites/suite.ts'

describe('an axis', () => {
  it('has few round ticks from 0 that hold all values', () => {
    const { ticks, part } = axisOf([3, 47], false)
    assert.deepEqual(ticks, [0, 10, 20, 30, 40, 50])
    assert.deepEqual([part(0), part(25), part(50)], [0, 0.5, 1])
    assert.deepEqual(axisOf([0.3], false).ticks, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
  })

  it('has powers of ten where it is logarithmic', () => {
    const { ticks, part } = axisOf([20, 1_000], true)
    assert.deepEqual(ticks, [10, 100, 1_000])
    assert.deepEqual([part(10), part(100), part(1_000), part(0)], [0, 0.5, 1, 0])
    assert.deepEqual(axisOf([100], true).ticks, [100, 1_000])
  })

  it('is there without values', () => {
    assert.deepEqual(axisOf([], false).ticks.at(0), 0)
    assert.ok(axisOf([0], true).ticks.length >= 2)
  })

  it('writes large numbers short', () => {
    assert.deepEqual([0, 0.25, 999, 1_500, 2e6, 3e9].map(countText), ['0', '0.25', '999', '1.5k', '2M', '3G'])
  })
})

describe('a plot', () => {
  const lines: Chart = {
    title: 'A < B & "C"',
    x: { label: 'shards', isLog: true },
    y: { label: 'ops/s' },
    series: [
      {
        name: 'SET',
        points: [
          { x: 100, y: 50 },
          { x: 1, y: 100 },
          { x: 10, y: 0 },
        ],
      },
      { name: 'GET', points: [{ x: 10, y: 75 }] },
    ],
  }

  it('has its points where their values are, in the order of x', () => {
    const svg = svgOf(lines)
    // Of the plot area 72 … 616 × 48 … 262, 24 free at either side; 0 … 100 upwards.
    assert.match(svg, /d="M96 48L344 262L592 155"/)
    assert.match(svg, /class="fill s1" cx="344" cy="101.5"/)
  })

  it('is well-formed, escapes what it is told, and knows light and dark', () => {
    const svg = svgOf(lines)
    assert.match(svg, /A &#60; B &#38; &#34;C&#34;/)
    assert.match(svg, /@media \(prefers-color-scheme:dark\)/)
    const open = [...svg.matchAll(/<([a-z]+)(?:\s[^>]*[^/])?>/g)].map(each => each[1])
    const closed = [...svg.matchAll(/<\/([a-z]+)>/g)].map(each => each[1])
    assert.deepEqual(open.sort(), closed.sort())
    for (const label of ['SET', 'GET', 'shards', 'ops/s', '100']) assert.ok(svg.includes(`>${label}<`), label)
  })

  it('has bars of groups with their names', () => {
    const point = (x: number, y: number) => ({ x, y, name: `set ${x}` })
    const svg = svgOf({
      ...lines,
      isBars: true,
      series: [
        { name: 'ours', points: [point(64, 10), point(1, 20)] },
        { name: 'etcd', points: [point(64, 5), point(1, 10)] },
      ],
    })
    const heights = [
      ...svg.matchAll(/<rect class="fill s\d" x="[\d.]+" y="[\d.]+" width="100.1" height="([\d.]+)"/g),
    ]
    assert.deepEqual(
      heights.map(each => Number(each[1])),
      [107, 214, 53.5, 107],
    )
    assert.ok(svg.indexOf('set 64') < svg.indexOf('set 1<'))
  })
})

describe('the section', () => {
  const facts: Facts = {
    ...{ date: '21 November 2026', cpu: 'AMD EPYC', cores: 2, memoryGib: 8, kernel: 'Linux 6.18' },
    ...{ node: '20.20.2', commit: 'abc1234', isClean: true, load: 0.33, command: 'npm run bench -- etcd' },
  }

  it('says when, where and of what, shows tables and plots, and what was not measured', () => {
    const chart = { title: 'Calls', x: { label: '' }, y: { label: '' }, series: [] }
    const table = { caption: 'Medians', head: ['call', 'ops/s'], rows: [['set', 16_712.4]] }
    const section = sectionOf(
      facts,
      [
        {
          ...{ name: 'etcd', summary: 'Beside etcd', seconds: 12.4, error: null },
          result: { tables: [table], charts: [{ name: 'etcd', chart }], notes: ['A note.'], data: null },
        },
        { name: 'idle', summary: 'Nothing to do', seconds: 1, result: null, error: 'no etcd' },
      ],
      'plots',
    )
    for (const each of [
      '## Figures of 21 November 2026\n',
      'Commit abc1234. Linux 6.18, 2 cores of AMD EPYC, 8 GiB, Node.js 20.20.2; load average 0.33',
      '| call | ops/s |\n|---|--:|\n| set | 16,712 |',
      '![Calls](plots/etcd.svg)',
      'A note.',
      '### Nothing to do (`idle`)\n\nNot measured: no etcd',
    ])
      assert.ok(section.includes(each), `${each}\n---\n${section}`)
    assert.ok(sectionOf({ ...facts, isClean: false }, [], '.').includes('abc1234 with changes.'))
  })

  it('writes three digits that count, and keeps a table whole', () => {
    assert.deepEqual([0, 1_234.5, 99.95, 12.34, 0.126, null, 'a|b'].map(cellText), [
      ...['0', '1,235', '100.0', '12.3', '0.13', '–', 'a\\|b'],
    ])
    assert.equal(
      tableText({
        caption: '',
        head: ['a', 'b'],
        rows: [
          [1, 'x'],
          [null, 'y'],
        ],
      }).split('\n')[1],
      '|--:|---|',
    )
  })

  it('finds where a curve bends most', () => {
    const points = [
      { x: 64, y: 900 },
      { x: 1, y: 1_000 },
      { x: 1_024, y: 300 },
    ]
    const knee = kneeOf(points)!
    assert.deepEqual([knee.from.x, knee.to.x], [64, 1_024])
    assert.equal(
      kneeText('SET/s', points, String),
      'SET/s: the largest step is from 64 to 1024, 900 to 300 (× 0.33).',
    )
    assert.equal(kneeOf([{ x: 1, y: 1 }]), null)
  })

  it('knows the machine it runs on', () => {
    const now = factsNow(resolve(import.meta.dirname, '../..'), ['quick'])
    assert.match(now.date, /^\d{1,2} [A-Z][a-z]+ \d{4}$/)
    assert.ok(now.cores > 0 && now.commit.length > 0)
    assert.equal(now.command, 'npm run bench -- quick')
  })

  it('reads the memory of a process apart from pages of files', () => {
    const status = 'VmHWM:\t  204800 kB\nVmRSS:\t  153600 kB\nRssAnon:\t  102400 kB\nRssFile:\t   51200 kB\n'
    assert.deepEqual(memoryIn(status), { privateMib: 100, filesMib: 50, mostMib: 200 })
    assert.equal(memoryIn('State: Z'), null)
  })

  it('writes sizes as people do', () => {
    assert.deepEqual([16, 1_024, 65_536, 2 ** 20, 3.5 * 2 ** 30].map(sizeText), [
      ...['16 B', '1 KiB', '64 KiB', '1 MiB', '3.5 GiB'],
    ])
  })
})

describe('a run that takes long', () => {
  const contextOf = (signal: AbortSignal) =>
    ({ signal, say: () => {} }) satisfies Partial<Context> as unknown as Context

  it('keeps what was measured beside what could not be, and names that', async () => {
    const done: number[] = []
    const work = async (size: number) => {
      if (size === 2) throw new Error('node1 has ended:\nno room')
      done.push(size)
    }
    const context = contextOf(new AbortController().signal)
    assert.deepEqual(await eachOf(context, [1, 2, 3], String, work), ['2: node1 has ended: | no room'])
    assert.deepEqual(done, [1, 3])
    await assert.rejects(eachOf(context, [2], String, work), /no room/)
  })

  it('begins nothing more when it shall end', async () => {
    const controller = new AbortController()
    const made = await eachOf(contextOf(controller.signal), [1, 2, 3], String, async () =>
      controller.abort(new Error('stopped')),
    )
    assert.deepEqual(made, ['2: stopped', '3: stopped'])
  })

  it('is refused where the disk is too small, with what may be done', () => {
    const gib = 2 ** 30
    assert.equal(shortage(3 * gib, 3 * gib + sparedBytes), null)
    assert.match(shortage(3 * gib, 2.5 * gib + sparedBytes)!, /need 3\.0 GiB .* 2\.5 GiB .*TMPDIR/)
  })

  it('tells what changes at once, and not every step of it', () => {
    const said: string[] = []
    const tell = telling(line => said.push(line))
    tell('fill of keys', 0.1, 5)
    tell('fill of keys', 0.2, 5)
    tell('get', 0, 5)
    assert.deepEqual(said, ['fill of keys', 'get'])
  })
})

describe('npm run bench', () => {
  const root = resolve(import.meta.dirname, '../..')
  const main = join(root, 'test/bench/suites/main.ts')
  const bench = (...args: string[]) =>
    spawnSync(process.execPath, [...programArguments(main), ...args], { cwd: root, encoding: 'utf8' })

  it('names its suites, and what it does not understand', () => {
    const help = bench('--help')
    assert.equal(help.status, 0)
    for (const name of ['quick', 'etcd', 'growth', 'idle', 'move', 'all'])
      assert.ok(help.stdout.includes(`  ${name} `))
    const wrong = bench('speed', '--keys', 'many')
    assert.equal(wrong.status, 2)
    assert.match(wrong.stderr, /--keys: "many" is not understood\nno suite is called speed/)
  })

  it('refuses sizes for which there is no room before it starts anything', () => {
    const none = bench('idle', 'restart', '--restart-streams', '1000000GiB')
    assert.equal(none.status, 2, none.stderr)
    assert.match(none.stderr, /^restart: it may need [\d.]+ GiB of disk in .*$/m)
    assert.ok(!none.stderr.includes('idle:'))
  })

  it('measures a cluster that it starts, and writes figures, a section and plots', {
    timeout: 120_000,
  }, () => {
    const out = mkdtempSync(join(tmpdir(), 'roundhouse-figures-'))
    try {
      const small = [
        '--duration',
        '500ms',
        '--warm-up',
        '50ms',
        '--nodes',
        '1',
        '--simulated',
        '10',
        '--out',
        out,
      ]
      const run = bench('nodes', 'simulated', ...small)
      assert.equal(run.status, 0, run.stderr)
      const { suites, facts } = JSON.parse(readFileSync(join(out, 'figures.json'), 'utf8'))
      assert.ok(facts.cores > 0)
      const [set, get] = suites[0].result.data[0].results
      for (const each of [set, get]) {
        assert.deepEqual(each.failures, [])
        assert.ok(each.operationsPerSecond > 0)
      }
      assert.ok(suites[1].result.data[0].deadRounds >= 15)
      assert.equal(readFileSync(join(out, 'figures.md'), 'utf8'), run.stdout)
      assert.deepEqual(
        readdirSync(out).filter(name => name.endsWith('.svg')),
        ['gossip.svg', 'lookup.svg', 'nodes-cpu.svg', 'nodes.svg', 'simulated.svg'],
      )
      assert.match(run.stderr, /1\/2 nodes: set, unary, 64 in flight/)
      assert.ok(existsSync(join(out, 'figures.md')))
    } finally {
      rmSync(out, { recursive: true, force: true })
    }
  })
})
