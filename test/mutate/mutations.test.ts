import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { applyMutation } from './apply.ts'
import { mutations } from './mutations.ts'

const root = join(import.meta.dirname, '../..')

describe('the deliberate bugs', () => {
  it('are at least 30, each under its own name', () => {
    assert.ok(mutations.length >= 30)
    assert.equal(new Set(mutations.map(({ name }) => name)).size, mutations.length)
  })

  for (const mutation of mutations) {
    it(`${mutation.name} fits the source: its text stands once, and the change is one line`, () => {
      const before = readFileSync(join(root, mutation.file), 'utf8')
      const after = applyMutation(mutation, before)
      assert.notEqual(after, before)
      assert.ok(
        !mutation.replace.trim().includes('\n') ||
          mutation.replace.split('\n').length <= mutation.find.split('\n').length,
      )
    })
  }
})
