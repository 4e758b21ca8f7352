import assert from 'node:assert/strict'
import { createReadStream, existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, it } from 'node:test'
import { check } from '../../src/history/check.ts'
import { models, readHistory } from '../../src/history/read-history.ts'

const root = resolve(import.meta.dirname, '../..')
const reference = resolve(root, process.env.ROUNDHOUSE_REFERENCE ?? '../shared/reference', 'histories')

if (existsSync(join(reference, 'expected.json'))) {
  const expected = JSON.parse(readFileSync(join(reference, 'expected.json'), 'utf8')) as Record<
    string,
    Record<string, boolean>
  >
  for (const model of models) {
    describe(`the public ${model} histories`, () => {
      for (const [name, isRight] of Object.entries(expected[model] ?? {})) {
        it(`${name} is ${isRight ? 'linearizable' : 'not'}`, async () => {
          const history = await readHistory(createReadStream(join(reference, model, name)), {
            model,
            format: null,
          })
          const verdict = check(history.operations, history.model)
          assert.equal(verdict.kind, isRight ? 'linearizable' : 'not-linearizable')
          if (verdict.kind !== 'not-linearizable') return
          assert.ok(verdict.window.isSmallest)
          assert.ok(verdict.window.operations.length <= 10, `${verdict.window.operations.length} operations`)
        })
      }
    })
  }
} else {
  it.skip(`no public histories at ${reference}`)
}
