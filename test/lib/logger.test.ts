import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { createLogger, type LoggerOptions, type RootLogger } from '../../src/lib/logger.ts'

async function written(
  options: Omit<LoggerOptions, 'descriptor'>,
  use: (logger: RootLogger) => void,
): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'roundhouse-logger-'))
  const descriptor = openSync(join(folder, 'log'), 'w')
  try {
    const logger = createLogger({ ...options, descriptor })
    use(logger)
    await logger.flush()
    return readFileSync(join(folder, 'log'), 'utf8')
  } finally {
    closeSync(descriptor)
    rmSync(folder, { recursive: true })
  }
}

describe('a logger', () => {
  for (const sync of [true, false]) {
    it(`writes one JSON object a line, with its child's facts, ${sync ? 'at once' : 'once flushed'}`, async () => {
      const text = await written({ level: 'info', pretty: false, sync }, logger => {
        logger.child({ node: 'n1' }).warn('slow sync', { ms: 12 })
        logger.debug('not shown')
        logger.error('failed', { error: new Error('why') })
      })
      const lines = text
        .trimEnd()
        .split('\n')
        .map(line => JSON.parse(line))
      assert.equal(lines.length, 2)
      assert.deepEqual(
        { ...lines[0], time: 0 },
        { level: 'warn', time: 0, node: 'n1', ms: 12, msg: 'slow sync' },
      )
      assert.deepEqual([lines[1].level, lines[1].error.message], ['error', 'why'])
    })
  }

  it('keeps the order of many lines up to its flush', async () => {
    const text = await written({ level: 'info', pretty: false }, logger => {
      for (let i = 0; i < 1_000; i++) logger.info('event', { i })
    })
    const order = text
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line).i)
    assert.deepEqual(
      order,
      Array.from({ length: 1_000 }, (_, i) => i),
    )
  })

  it('writes for people when asked', async () => {
    const text = await written({ level: 'info', pretty: true }, logger =>
      logger.info('joined', { node: 'n1' }),
    )
    assert.match(text, /INFO: joined \{"node":"n1"\}\n$/)
  })
})
