import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, it } from 'node:test'
import { runScript, scriptsUnder } from './scripts/run.ts'

const root = resolve(import.meta.dirname, '../..')
const reference = resolve(root, process.env.ROUNDHOUSE_REFERENCE ?? '../shared/reference', 'etcd-raft')

for (const folder of ['quorum', 'confchange', 'interaction']) {
  const path = join(reference, folder)
  if (!existsSync(path)) {
    it.skip(`no public ${folder} scripts at ${path}`)
    continue
  }
  describe(`the public ${folder} scripts`, () => {
    for (const name of scriptsUnder(path)) {
      it(`answers ${name} line by line`, () => assert.deepEqual(runScript(path, name), []))
    }
  })
}
