import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, describe, it } from 'node:test'
import fc from 'fast-check'
import { stringify as stringifyToml } from 'smol-toml'
import { stringify as stringifyYaml } from 'yaml'
import { parseSettingsFile, readSettingsFile, type SettingsFile } from '../src/config/file.ts'
import { notesOn } from '../src/config/file-values.ts'
import {
  formatDuration,
  formatSize,
  joinAddress,
  parseDuration,
  parseSize,
  splitAddress,
} from '../src/config/forms.ts'
import { originText, type Settings } from '../src/config/table.ts'
import {
  checkFile,
  readFiles,
  readSettings,
  settingFlags,
  settingRows,
  settingsTable,
} from '../src/config.ts'
import { isError } from '../src/errors.ts'

const read = (flags: Record<string, unknown>, env: Record<string, string> = {}): Settings =>
  readSettings({ 'node-id': 'n1', ...flags }, env)

function mistakesOf(run: () => unknown): readonly string[] {
  try {
    run()
  } catch (error) {
    if (isError(error, 'CONFIG')) return error.facts.mistakes
    throw error
  }
  return []
}

describe('settings', () => {
  it('have defaults for all but the node id', () => {
    const settings = read({})
    assert.deepEqual([settings.host, settings.port, settings.bootstrap], ['0.0.0.0', 8080, false])
    assert.deepEqual(
      [settings.shardCount, settings.replicationFactor, settings.vNodeCount, settings.gossipPeerCount],
      [64, 3, 128, 2],
    )
    assert.deepEqual(
      [settings.heartbeatIntervalMs, settings.messageTimeoutMs, settings.cleanupIntervalMs],
      [1_000, 5_000, 10_000],
    )
    assert.deepEqual(
      [settings.raftTickMs, settings.raftHeartbeatTicks, settings.journalBudgetBytes],
      [50, 5, 536_870_912],
    )
    assert.equal(settings.dataDir, 'data/n1')
    assert.deepEqual([...settings.given], [['nodeId', { kind: 'flag', name: '--node-id' }]])
  })

  it('are read from the variables of the systems that Roundhouse replaces', () => {
    const settings = readSettings(
      {},
      {
        NODE_ID: 'n7',
        HOST: '10.0.0.7',
        PORT: '9000',
        SEED_NODE_ADDR: 'n1:9000',
        SEED_NODE_ID: 'n1',
        DATA_DIR: '/d',
      },
    )
    assert.deepEqual(
      [settings.nodeId, settings.host, settings.port, settings.seed, settings.dataDir],
      ['n7', '10.0.0.7', 9000, ['n1:9000'], '/d'],
    )
  })

  it('take a flag before a variable, and an empty variable for none', () => {
    assert.equal(read({ port: '1' }, { PORT: '2' }).port, 1)
    assert.equal(read({}, { PORT: '' }).port, 8080)
  })

  it('join repeated and listed seeds, and give bare hosts their own port', () => {
    assert.deepEqual(read({ seed: ['a', 'b:1,[::1]:2'], port: '9' }).seed, ['a:9', 'b:1', '[::1]:2'])
  })

  it('advertise what peers can dial, never the unspecified address', () => {
    assert.equal(read({ host: '127.0.0.1', port: '8081' }).advertiseAddr, '127.0.0.1:8081')
    assert.doesNotMatch(read({}).advertiseAddr, /^0\.0\.0\.0/)
    const both = read({ 'advertise-addr': 'node1', 'advertise-client-addr': '127.0.0.1:8081' })
    assert.deepEqual([both.advertiseAddr, both.advertiseClientAddr], ['node1:8080', '127.0.0.1:8081'])
    assert.equal(read({ 'advertise-addr': 'node1:1' }).advertiseClientAddr, 'node1:1')
    assert.match(mistakesOf(() => read({ 'advertise-addr': '0.0.0.0:1' }))[0]!, /never 0\.0\.0\.0/)
  })

  it('report every mistake at once, each with its place and what is accepted', () => {
    const mistakes = mistakesOf(() =>
      readSettings(
        {
          port: 'http',
          'shard-count': '48',
          'raft-tick': '50',
          seed: ['a:b'],
          'log-level': 'loud',
          zone: ['a', 'b'],
        },
        { HEARTBEAT_INTERVAL: '1d', JOURNAL_BUDGET: '1MiB', BOOTSTRAP: 'perhaps' },
        ['unknown option --prot: did you mean --port?'],
      ),
    )
    assert.deepEqual(mistakes, [
      'unknown option --prot: did you mean --port?',
      '--node-id (or NODE_ID) is missing: 1 to 64 letters, digits, dots, dashes or underscores',
      '--port: "http" is not an integer from 1 to 65535',
      'BOOTSTRAP: "perhaps" is not true or false',
      '--seed: "a:b" is not addresses with commas between them, such as node1:8080,node2:8080',
      '--zone is given 2 times: once is accepted',
      '--shard-count: "48" is not a power of two from 1 to 4096',
      'HEARTBEAT_INTERVAL: "1d" is not a duration from 50ms to 1m, such as 250ms, 10s or 1h30m',
      '--raft-tick: "50" is not a duration from 5ms to 5s, such as 250ms, 10s or 1h30m',
      'JOURNAL_BUDGET: "1MiB" is not a size from 64MiB to 1024GiB, such as 64KiB, 512MiB or 2GiB',
      '--log-level: "loud" is not one of debug, info, warn, error, silent',
    ])
  })

  it('refuse an election timeout within a heartbeat', () => {
    assert.match(mistakesOf(() => read({ 'raft-heartbeat-interval': '20' }))[0]!, /must be more than/)
  })

  it('have one flag each', () => {
    const flags = settingFlags().map(each => each.flag)
    assert.equal(new Set(flags).size, flags.length)
  })
})

const utf8 = (text: string) => new TextEncoder().encode(text)
const file = (path: string, text: string): SettingsFile => parseSettingsFile(path, utf8(text))

describe('settings from files', () => {
  it('are read alike from all four formats', () => {
    const texts = {
      'n.yaml':
        'node_id: n1\nport: 9000\nbootstrap: true\nseed: [a:1, "[::1]:2"]\nmessage_timeout: 2s\njournal_budget: 64MiB\n',
      'n.toml':
        'node_id = "n1"\nport = 9000\nbootstrap = true\nseed = ["a:1", "[::1]:2"]\nmessage_timeout = "2s"\njournal_budget = "64MiB"\n',
      'n.json':
        '{"node_id": "n1", "port": 9000, "bootstrap": true, "seed": ["a:1", "[::1]:2"], "message_timeout": "2s", "journal_budget": 67108864}',
      'n.env':
        'NODE_ID=n1\nexport PORT=9000 # both\nBOOTSTRAP="true"\nSEED=\'a:1,[::1]:2\'\nMESSAGE_TIMEOUT=2s\nJOURNAL_BUDGET=64MiB\n',
    }
    for (const [path, text] of Object.entries(texts)) {
      const settings = readSettings({}, {}, [], { dotenv: null, config: file(path, text) })
      const { nodeId, port, bootstrap, seed, messageTimeoutMs, journalBudgetBytes } = settings
      assert.deepEqual(
        [nodeId, port, bootstrap, seed, messageTimeoutMs, journalBudgetBytes],
        ['n1', 9000, true, ['a:1', '[::1]:2'], 2_000, 2 ** 26],
        path,
      )
      assert.equal(settings.given.size, 6)
    }
  })

  it('go flag, variable, .env, file, default: the first that has a value wins', () => {
    const places = ['flag', 'variable', 'dotenv', 'file'] as const
    for (let mask = 0; mask < 16; mask++) {
      const has = (place: (typeof places)[number]) => (mask & (1 << places.indexOf(place))) !== 0
      const settings = readSettings(
        { 'node-id': 'n1', ...(has('flag') ? { port: '1001' } : {}) },
        has('variable') ? { PORT: '1002' } : {},
        [],
        {
          dotenv: file('.env', `ZONE=z\n${has('dotenv') ? 'PORT=1003\n' : ''}`),
          config: file('n.yaml', `zone: y\n${has('file') ? 'port: 1004\n' : ''}`),
        },
      )
      const first = places.findIndex(has)
      assert.equal(settings.port, first === -1 ? 8080 : 1001 + first, `${mask}`)
      const origin = settings.given.get('port')
      assert.equal(
        origin === undefined ? null : originText(origin),
        [null, 'flag --port', 'variable PORT', '.env:2 PORT', 'n.yaml:2 port'][first + 1],
      )
      assert.equal(settings.zone, 'z')
    }
  })

  it('are not what an empty variable hides in .env; an empty value in a file is none', () => {
    const files = {
      dotenv: file('.env', 'PORT=1\nZONE='),
      config: file('n.yaml', 'zone: y\nhost:\nseed: []\n'),
    }
    const settings = readSettings({ 'node-id': 'n1' }, { PORT: '' }, [], files)
    assert.deepEqual([settings.port, settings.zone, settings.host], [8080, 'y', '0.0.0.0'])
  })

  it('report every mistake at once, with file, line and key', () => {
    const dotenv = file('.env', 'HEARTBEAT_INTERVAL=fast\nCOMPOSE_FILE=x\n')
    const config = file(
      'n.json',
      '{\n  "node_id": 7,\n  "port": "http",\n  "gosip_peer_count": 3,\n  "v-node-count": ["1"],\n  "bootstrap": 1,\n' +
        '  "zone": true,\n  "seed": {"a": 1},\n  "config_file": "x.json",\n  "node_name": "n1"\n}',
    )
    assert.deepEqual(
      mistakesOf(() =>
        readSettings({ 'log-level': 'loud' }, { RAFT_TICK: '50' }, ['from the shell'], { dotenv, config }),
      ),
      [
        'from the shell',
        'RAFT_TICK: "50" is not a duration from 5ms to 5s, such as 250ms, 10s or 1h30m',
        '--log-level: "loud" is not one of debug, info, warn, error, silent',
        '.env:1: HEARTBEAT_INTERVAL: "fast" is not a duration from 50ms to 1m, such as 250ms, 10s or 1h30m',
        'n.json:2: node_id: the number 7, without quotes, is not 1 to 64 letters, digits, dots, dashes or underscores',
        'n.json:3: port: "http" is not an integer from 1 to 65535',
        'n.json:4: unknown setting gosip_peer_count: did you mean gossip_peer_count?',
        'n.json:5: v-node-count: a list is not an integer from 1 to 4096',
        'n.json:6: bootstrap: the number 1 is not true or false',
        'n.json:7: zone: the boolean true, without quotes, is not at most 64 letters, digits, dots, dashes or underscores',
        'n.json:8: seed: a table is not addresses with commas between them, such as node1:8080,node2:8080',
        "n.json:9: config_file: a file of settings can't name another one",
        'n.json:10: node_name: the same setting as node_id: one of them is accepted',
      ],
    )
  })

  it('are wrong in a file also where a flag stands before them', () => {
    const files = { dotenv: null, config: file('n.toml', 'port = "http"\n') }
    assert.equal(mistakesOf(() => readSettings({ 'node-id': 'n1', port: '1' }, {}, [], files)).length, 1)
  })

  it('leave what other programs keep in .env alone, and note what looks like a slip', () => {
    const dotenv = file('.env', 'PORT1=1\nNODE_IMAGE=x\nGOSIP_PEER_COUNT=3\nSEED_NODE_ID=n\n')
    assert.equal(readSettings({ 'node-id': 'n1' }, {}, [], { dotenv, config: null }).port, 8080)
    assert.deepEqual(notesOn(dotenv), [
      '.env:3: GOSIP_PEER_COUNT is no setting: did you mean GOSSIP_PEER_COUNT?',
    ])
    assert.deepEqual(checkFile(file('prod.env', 'PORT1=1\n')).mistakes, [
      'prod.env:1: unknown setting PORT1: did you mean PORT?',
    ])
  })

  it('keep in YAML what was written: 1.10 is not 1.1, and no is a name', () => {
    const config = file('n.yml', 'node_id: no\nzone: 1.10\nport: "9000"\n')
    const settings = readSettings({}, {}, [], { dotenv: null, config })
    assert.deepEqual([settings.nodeId, settings.zone, settings.port], ['no', '1.10', 9000])
  })

  it('are checked alone, without what only a start needs', () => {
    assert.deepEqual(checkFile(file('n.yaml', 'port: 1\nhost: h\n')), { mistakes: [], count: 2 })
    assert.match(checkFile(file('n.yaml', 'raft_heartbeat_interval: 20\n')).mistakes[0]!, /must be more than/)
  })

  it('are what was rendered, whatever the settings and the format', () => {
    const known = settingRows({ 'node-id': 'n1' }, {}, [], { dotenv: null, config: null })
    const keys = known.map(row => row.key)
    const some = fc
      .record(
        {
          node_id: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/),
          host: fc.constantFrom('0.0.0.0', '::1', 'node1', '10.0.0.7'),
          port: fc.integer({ min: 1, max: 65_535 }),
          advertise_addr: fc.constantFrom('a:1', '[fd00::7]:80', 'node1.svc:8080'),
          data_dir: fc.stringMatching(/^[A-Za-z0-9/ _.é#=:'-]{1,20}$/).filter(each => each.trim() === each),
          bootstrap: fc.boolean(),
          seed: fc.array(fc.constantFrom('a:1', '[::1]:2', 'c:3'), { minLength: 1, maxLength: 4 }),
          cluster_dns: fc.constantFrom('roundhouse:8080', 'x.svc.cluster.local:1'),
          zone: fc.stringMatching(/^[A-Za-z0-9._-]{1,64}$/),
          shard_count: fc.integer({ min: 0, max: 12 }).map(each => 2 ** each),
          v_node_count: fc.integer({ min: 1, max: 4096 }),
          heartbeat_interval: fc.integer({ min: 50, max: 60_000 }).map(formatDuration),
          message_timeout: fc.integer({ min: 100, max: 300_000 }).map(formatDuration),
          journal_budget: fc.integer({ min: 2 ** 26, max: 2 ** 31 }).map(formatSize),
          log_level: fc.constantFrom('debug', 'silent'),
        },
        { requiredKeys: ['node_id'], noNullPrototype: true },
      )
      .map(each => each as Record<string, string | number | boolean | string[]>)
    fc.assert(
      fc.property(some, fc.boolean(), (values, isDashed) => {
        const asWritten = Object.fromEntries(
          Object.entries(values).map(([key, value]) => [isDashed ? key.replaceAll('_', '-') : key, value]),
        )
        const quoted = (value: string) => (value.includes("'") ? `"${value}"` : `'${value}'`)
        const rendered = {
          'n.yaml': stringifyYaml(asWritten),
          'n.json': JSON.stringify(asWritten, null, '\t'),
          'n.toml': stringifyToml(asWritten),
          'n.env': Object.entries(values)
            .map(([key, value]) => `${key.toUpperCase()}=${quoted(String(value))}\n`)
            .join(''),
        }
        for (const [path, text] of Object.entries(rendered)) {
          const rows = settingRows({}, {}, [], { dotenv: null, config: file(path, text) })
          const given = rows.filter(row => row.origin !== null)
          assert.deepEqual(
            Object.fromEntries(given.map(row => [row.key, row.value])),
            values,
            `${path}\n${text}`,
          )
          assert.ok(
            given.every(({ origin }) => origin?.kind === 'file' && origin.line !== null),
            text,
          )
          assert.deepEqual(
            rows.map(row => row.key),
            keys,
          )
        }
      }),
      { numRuns: 150 },
    )
  })
})

describe('the names that other systems have', () => {
  it('are accepted as flags and as keys: --node-name --bind-addr --rpc-port --start-join-addrs', () => {
    const flags = {
      'node-name': 'n1',
      'bind-addr': '127.0.0.1:8401',
      'rpc-port': '8400',
      'start-join-addrs': ['a:8401', 'b:8401'],
      bootstrap: true,
    }
    const yaml =
      'node-name: n1\nbind-addr: 127.0.0.1:8401\nrpc-port: 8400\nstart-join-addrs: [a:8401, b:8401]\nbootstrap: true\n'
    for (const settings of [
      readSettings(flags, {}),
      readSettings({}, {}, [], { dotenv: null, config: file('p.yaml', yaml) }),
    ]) {
      const { nodeId, host, port, secondPort, advertiseAddr, seed, bootstrap } = settings
      assert.deepEqual(
        [nodeId, host, port, secondPort, advertiseAddr, seed, bootstrap],
        ['n1', '127.0.0.1', 8400, 8401, '127.0.0.1:8400', ['a:8401', 'b:8401'], true],
      )
    }
    const names = settingFlags().map(each => each.flag)
    for (const flag of Object.keys(flags)) assert.ok(names.includes(flag), flag)
  })

  it('give the one port where there is no other, and stand behind a better place', () => {
    const { host, port, secondPort } = read({ 'bind-addr': ':9000' }, { HOST: '10.0.0.1' })
    assert.deepEqual([host, port, secondPort], ['0.0.0.0', 9000, null])
    assert.equal(read({ host: '10.0.0.1' }, { BIND_ADDR: '10.0.0.2' }).host, '10.0.0.1')
    assert.deepEqual(
      mistakesOf(() => read({ host: '10.0.0.1', 'bind-addr': '10.0.0.2:1' })),
      ['flag --bind-addr says another host (10.0.0.2) than flag --host (10.0.0.1)'],
    )
  })

  it('are refused beside their twins', () => {
    assert.deepEqual(
      mistakesOf(() => read({ port: '1', 'rpc-port': '2' })),
      ['--rpc-port: the same setting as --port: one of them is accepted'],
    )
    assert.deepEqual(read({ seed: 'a:1', 'start-join-addrs': 'b:2' }).seed, ['a:1', 'b:2'])
  })

  it('are the variables SEED_NODE, SEED_NODES and CLUSTER_DNS too', () => {
    assert.deepEqual(read({}, { SEED_NODES: 'a:1,b' }).seed, ['a:1', 'b:8080'])
    assert.deepEqual(read({}, { SEED_NODE: 'a:1' }).seed, ['a:1'])
    assert.equal(read({}, { CLUSTER_DNS: 'roundhouse.svc', PORT: '9' }).clusterDns, 'roundhouse.svc:9')
    assert.equal(read({}).clusterDns, '')
  })
})

describe('files of settings', () => {
  const directory = mkdtempSync(join(tmpdir(), 'roundhouse-config-'))
  after(() => rmSync(directory, { recursive: true }))

  it('are found by --config-file, by CONFIG_FILE and by a line of .env, in this order', () => {
    for (const name of ['a', 'b', 'c']) writeFileSync(join(directory, `${name}.yaml`), `zone: ${name}\n`)
    const zoneOf = (flags: Record<string, unknown>, env: Record<string, string>) =>
      readSettings({ 'node-id': 'n1', ...flags }, env, [], readFiles(flags, env, directory)).zone
    assert.equal(zoneOf({}, {}), '')
    writeFileSync(join(directory, '.env'), 'CONFIG_FILE=c.yaml\n')
    assert.equal(zoneOf({ 'config-file': 'a.yaml' }, { CONFIG_FILE: 'b.yaml' }), 'a')
    assert.equal(zoneOf({}, { CONFIG_FILE: join(directory, 'b.yaml') }), 'b')
    assert.equal(zoneOf({}, {}), 'c')
    assert.equal(zoneOf({}, { CONFIG_FILE: '' }), '')
  })

  it('that are not there, or are directories, are said to be', () => {
    const missing = readFiles({ 'config-file': 'none.yaml' }, { CONFIG_FILE: '' }, directory)
    assert.deepEqual(
      mistakesOf(() => readSettings({ 'node-id': 'n1' }, {}, [], { dotenv: null, config: missing.config })),
      [`${join(directory, 'none.yaml')}: no such file`],
    )
    assert.deepEqual(readSettingsFile(directory)?.mistakes, [`${directory}: a directory, not a file`])
  })
})

describe('durations and sizes', () => {
  it('are read with their units', () => {
    assert.deepEqual(
      ['10s', '1h30m', '1.5s', '250ms', '0'].map(parseDuration),
      [10_000, 5_400_000, 1_500, 250, 0],
    )
    assert.deepEqual(['512MiB', '4KiB', '1.5GiB', '17'].map(parseSize), [2 ** 29, 4096, 1.5 * 2 ** 30, 17])
  })

  it('are refused without a unit or with a strange one', () => {
    assert.deepEqual(
      ['10', '', '-1s', '1 s', 's', '1d', '1.s', '0.5ms'].map(parseDuration),
      Array.from({ length: 8 }, () => undefined),
    )
    assert.deepEqual(
      ['', '1MB', '-1', '0x10', '1e3', '0.3B'].map(parseSize),
      Array.from({ length: 6 }, () => undefined),
    )
  })

  it('read what they print', () => {
    fc.assert(fc.property(fc.nat(), ms => parseDuration(formatDuration(ms)) === ms))
    fc.assert(fc.property(fc.nat(), bytes => parseSize(formatSize(bytes)) === bytes))
  })
})

describe('addresses', () => {
  it('are a host with or without a port', () => {
    assert.deepEqual(splitAddress('node1'), { host: 'node1', port: undefined })
    assert.deepEqual(splitAddress('10.0.0.1:80'), { host: '10.0.0.1', port: 80 })
    assert.deepEqual(splitAddress('[fd00::7]:80'), { host: 'fd00::7', port: 80 })
    assert.equal(joinAddress('fd00::7', 80), '[fd00::7]:80')
  })

  it('are refused when they could not be dialled', () => {
    for (const wrong of ['', ':80', 'a:', 'a:0', 'a:70000', 'a b:1', 'http://a:1', '::1', '[a]:1', 'a:1:2']) {
      assert.equal(splitAddress(wrong), undefined, wrong)
    }
  })
})

describe('the README', () => {
  const readme = resolve(import.meta.dirname, '../README.md')
  it('shows the table of settings as it is', { skip: !existsSync(readme) && 'no README yet' }, () => {
    const shown = /<!-- settings -->\n([\s\S]*?)\n<!-- \/settings -->/.exec(readFileSync(readme, 'utf8'))
    assert.equal(shown?.[1], settingsTable())
  })
})
