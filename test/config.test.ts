import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  formatDuration,
  formatSize,
  joinAddress,
  parseDuration,
  parseSize,
  splitAddress,
} from '../src/config/forms.ts'
import { readSettings, type Settings, settingFlags, settingsTable } from '../src/config.ts'
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
    assert.deepEqual([...settings.given], ['nodeId'])
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
