import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { configCheckVerb } from '../../src/cli/config-check.ts'
import { configShowVerb, connectionsNote } from '../../src/cli/config-show.ts'
import { serveVerb } from '../../src/cli/serve.ts'
import type { Settings } from '../../src/config/table.ts'
import { type LogFields, type RootLogger, silentLogger } from '../../src/lib/logger.ts'
import { fakeShell } from './fake-cluster.ts'

const directory = mkdtempSync(join(tmpdir(), 'roundhouse-config-cli-'))
after(() => rmSync(directory, { recursive: true }))

function write(name: string, text: string): string {
  writeFileSync(join(directory, name), text)
  return join(directory, name)
}

async function run(args: readonly string[], env: Record<string, string> = {}) {
  const shell = { ...fakeShell(), env, directory }
  const code = await runCli(args, shell, [configCheckVerb, configShowVerb])
  return { code, out: shell.stdout.text(), err: shell.stderr.text() }
}

const good = write('good.yaml', 'node_id: n1\nport: 9000\nmessage_timeout: 2s\n')
const bad = write('bad.toml', 'port = "http"\ngosip_peer_count = 3\n')

describe('config check', () => {
  it('ends with 0 where a file is right, and says how much it says', async () => {
    assert.deepEqual(await run(['config', 'check', good]), {
      code: 0,
      out: `${good}: ok, 3 settings\n`,
      err: '',
    })
  })

  it('ends with 78 and every mistake where it is not, and with 2 where the command line is wrong', async () => {
    assert.deepEqual(await run(['config', 'check', bad]), {
      code: 78,
      out:
        `${bad}:1: port: "http" is not an integer from 1 to 65535\n` +
        `${bad}:2: unknown setting gosip_peer_count: did you mean gossip_peer_count?\n`,
      err: '',
    })
    assert.equal((await run(['config', 'check', join(directory, 'none.json')])).code, 78)
    assert.equal((await run(['config', 'check'])).code, 2)
  })

  it('answers tools with -o json', async () => {
    const answer = JSON.parse((await run(['config', 'check', bad, '-o', 'json'])).out)
    assert.deepEqual([answer.file, answer.ok, answer.mistakes.length], [bad, false, 2])
  })
})

describe('config show', () => {
  it('shows each value and where it comes from', async () => {
    const args = ['config', 'show', '--config-file', good, '--rpc-port', '9001']
    const { code, out } = await run(args, { ZONE: 'a' })
    assert.equal(code, 0)
    const lines = out.split('\n').map(line => line.split(/\s{2,}/))
    const line = (key: string) => lines.find(each => each[0] === key)?.slice(1)
    assert.deepEqual(line('node_id'), ['n1', `${good}:1 node_id`])
    assert.deepEqual(line('port'), ['9001', 'flag --rpc-port'])
    assert.deepEqual(line('message_timeout'), ['2s', `${good}:3 message_timeout`])
    assert.deepEqual(line('zone'), ['a', 'variable ZONE'])
    assert.deepEqual(line('data_dir'), ['data/n1', 'default'])
    assert.deepEqual(line('seed'), ['-', 'default'])
  })

  it('says how many connections a node here takes, and why', async () => {
    const { out } = await run(['config', 'show'], {})
    assert.match(out, /takes [1-9]\d* connections\.\n$/)
    assert.match(connectionsNote(1_024), /with 1024 open files \(ulimit -Hn\), takes 512 connections/)
    assert.match(connectionsNote(null), /without a limit of open files, takes 10000 connections/)
  })

  it('answers tools with -o json', async () => {
    const { out } = await run(['config', 'show', '-o', 'json', '--port', '9001', '--seed', 'a:1,b'], {
      CONFIG_FILE: 'good.yaml',
    })
    const rows = JSON.parse(out)
    assert.deepEqual(rows.port, { value: 9001, source: 'flag', name: '--port' })
    assert.deepEqual(rows.seed, { value: ['a:1', 'b:9001'], source: 'flag', name: '--seed' })
    assert.deepEqual(rows.message_timeout, {
      ...{ value: '2s', source: 'file', name: 'message_timeout', file: good, line: 3 },
    })
    assert.deepEqual(rows.config_file, { value: 'good.yaml', source: 'variable', name: 'CONFIG_FILE' })
    assert.deepEqual(rows.zone, { value: null, source: 'default' })
  })

  it('reads .env in the working directory, and needs no node id', async () => {
    const path = write('.env', 'PORT=7000\n')
    const rows = JSON.parse((await run(['config', 'show', '-o', 'json'])).out)
    rmSync(path)
    assert.deepEqual(rows.port, { value: 7000, source: 'file', name: 'PORT', file: path, line: 1 })
    assert.deepEqual(rows.node_id, { value: null, source: 'default' })
  })

  it('ends with 2 and every mistake of flags, variables and files', async () => {
    const args = ['config', 'show', '--config-file', bad, '--prot', '1', '-o', 'xml']
    const { code, err } = await run(args, { RAFT_TICK: 'fast' })
    assert.equal(code, 2)
    for (const mistake of [
      /--output: /,
      /--prot: did you mean --port/,
      /RAFT_TICK: /,
      /:1: port: /,
      /:2: unknown/,
    ])
      assert.match(err, mistake)
  })
})

describe('config --help', () => {
  it('tells where settings come from, how they are written, and examples', async () => {
    const { code, out } = await run(['config', '--help'])
    assert.equal(code, 0)
    for (const said of ['config check', 'config show', 'flags', 'variables', '.env', '.toml', '10s', '64KiB'])
      assert.ok(out.includes(said), said)
  })
})

describe('serve', () => {
  it('takes .env and a file, and warns of what looks like a slip in .env', async () => {
    const path = write('.env', 'CONFIG_FILE=good.yaml\nGOSIP_PEER_COUNT=3\n')
    const warnings: string[] = []
    const logger: RootLogger = {
      ...silentLogger,
      warn: (message: string, _fields?: LogFields) => void warnings.push(message),
      child: () => silentLogger,
    }
    let given: Settings | undefined
    const serve = serveVerb(
      settings => {
        given = settings
        return Promise.resolve({ stop: () => Promise.resolve(), finished: Promise.resolve({ code: 0 }) })
      },
      () => logger,
    )
    assert.equal(await runCli(['serve'], { ...fakeShell(), env: {}, directory }, [serve]), 0)
    rmSync(path)
    assert.deepEqual([given?.nodeId, given?.port, given?.messageTimeoutMs], ['n1', 9000, 2_000])
    assert.deepEqual(warnings, [`${path}:2: GOSIP_PEER_COUNT is no setting: did you mean GOSSIP_PEER_COUNT?`])
  })
})
