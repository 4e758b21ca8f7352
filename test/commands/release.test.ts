import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { levelOf, supportedLevel, thisRelease } from '../../src/commands/release.ts'
import { metaCommands } from '../../src/node/meta-commands.ts'

describe('this release', () => {
  it('supports the level of every command that it has', () => {
    for (const { name, since = 1 } of [...thisRelease.commands.values(), ...metaCommands.values()])
      assert.ok(since >= 1 && since <= supportedLevel, `${name} is of level ${since}`)
  })
})

describe('the level of an entry', () => {
  const command = thisRelease.commands.get('SET')!
  const table = new Map([
    ['OLD', command],
    ['NEW', { ...command, since: 3 }],
  ])

  it('is that of its youngest command', () => {
    assert.equal(levelOf([{ command: 'OLD' }], table), 1)
    assert.equal(levelOf([{ command: 'OLD' }, { command: 'NEW' }, { command: 'OLD' }], table), 3)
  })
})
