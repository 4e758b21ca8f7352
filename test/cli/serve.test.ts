import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { type RunningNode, type StartNode, serveVerb } from '../../src/cli/serve.ts'
import type { Settings } from '../../src/config/table.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { deferred } from '../../src/lib/deferred.ts'
import { type LogFields, type RootLogger, silentLogger } from '../../src/lib/logger.ts'
import { fakeShell } from './fake-cluster.ts'

interface Line {
  readonly level: string
  readonly message: string
  readonly fields: LogFields | undefined
}

function recorder(lines: Line[]): RootLogger {
  const at = (level: string) => (message: string, fields?: LogFields) => {
    lines.push({ level, message, fields })
  }
  const logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    flush: () => Promise.resolve(),
  }
  return { ...logger, child: () => ({ ...logger, child: () => silentLogger }) }
}

function serve(startNode: StartNode, ...args: string[]) {
  const shell = fakeShell()
  const lines: Line[] = []
  const ended = runCli(['serve', '--node-id', 'n1', ...args], shell, [
    serveVerb(startNode, () => recorder(lines)),
  ])
  return { shell, lines, ended }
}

const never = new Promise<never>(() => {})

describe('serve', () => {
  it('hands its node the settings and ends with 0 when it has stopped it', async () => {
    let given: Settings | undefined
    const events: string[] = []
    const started = deferred<void>()
    const node: RunningNode = {
      stop: () => {
        events.push('stopped')
        return Promise.resolve()
      },
      finished: never,
    }
    const { shell, ended } = serve(
      settings => {
        given = settings
        queueMicrotask(() => started.resolve())
        return Promise.resolve(node)
      },
      ...['--host', '127.0.0.1', '--port', '9', '--seed', 'a:1', '--seed', 'b:2', '--bootstrap'],
    )
    await started.promise
    shell.controller.abort()
    assert.equal(await ended, 0)
    assert.deepEqual(events, ['stopped'])
    assert.deepEqual([given!.port, given!.seed, given!.bootstrap], [9, ['a:1', 'b:2'], true])
  })

  it('ends as its node ends: 0 when it has left, its code when it failed', async () => {
    for (const code of [0, 1]) {
      const node = { stop: () => Promise.resolve(), finished: Promise.resolve({ code }) }
      assert.equal(await serve(() => Promise.resolve(node)).ended, code)
    }
  })

  it('ends with 1 and one line that names the port in use, the data directory, or whatever stands in the way', async () => {
    const error = new RoundhouseError('PORT_IN_USE', { address: '0.0.0.0:8080' })
    const { ended, lines } = serve(() => Promise.reject(error))
    assert.equal(await ended, 1)
    assert.deepEqual(lines.at(-1), {
      level: 'error',
      message: error.message,
      fields: { code: 'PORT_IN_USE' },
    })
  })

  it('ends with 2 at wrong settings, before any node is started', async () => {
    const { ended, shell } = serve(() => assert.fail('started'), '--port', '0', '--shard-cout', '1')
    assert.equal(await ended, 2)
    assert.match(
      shell.stderr.text(),
      /unknown option --shard-cout: did you mean --shard-count\?[\s\S]*--port: "0"/,
    )
  })

  it('stops a node whose start was still under way', async () => {
    const starting = deferred<RunningNode>()
    let stops = 0
    const { shell, ended } = serve(() => starting.promise)
    shell.controller.abort()
    starting.resolve({
      stop: () => {
        stops += 1
        return Promise.resolve()
      },
      finished: never,
    })
    assert.equal(await ended, 0)
    assert.equal(stops, 1)
  })

  it('does not wait for a stop that takes longer than 8 s', async context => {
    context.mock.timers.enable({ apis: ['setTimeout'] })
    const { shell, ended, lines } = serve(() => Promise.resolve({ stop: () => never, finished: never }))
    shell.controller.abort()
    while (!lines.some(line => line.message === 'stopping')) await Promise.resolve()
    await Promise.resolve()
    context.mock.timers.tick(8_000)
    assert.equal(await ended, 1)
  })

  it('warns once that it listens on all addresses without TLS, and not on one address', async () => {
    const end: StartNode = () =>
      Promise.resolve({ stop: () => Promise.resolve(), finished: Promise.resolve({ code: 0 }) })
    const warnings = async (...args: string[]) => {
      const { ended, lines } = serve(end, ...args)
      await ended
      return lines.filter(line => line.level === 'warn').length
    }
    assert.deepEqual(
      [await warnings(), await warnings('--host', '::'), await warnings('--host', '127.0.0.1')],
      [1, 1, 0],
    )
  })
})
