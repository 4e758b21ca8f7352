import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { systemClock } from '../../src/lib/clock.ts'
import { deferred } from '../../src/lib/deferred.ts'
import { Prng } from '../../src/lib/prng.ts'
import { FileDisk } from '../../src/log/file-disk.ts'
import { Journal } from '../../src/storage/journal.ts'
import { programArguments } from '../lib/program.ts'
import { entryOf, killOptions } from './journal-kill-batches.ts'

const root = mkdtempSync(join(tmpdir(), 'journal-'))
after(() => rmSync(root, { recursive: true }))

/** Runs a writer from batch `from` on, kills it with -9 at about its `count`th; returns the last acknowledged batch. */
async function writeAndKill(from: number, count: number): Promise<number> {
  const script = join(import.meta.dirname, 'journal-child.ts')
  const child = spawn(process.execPath, [...programArguments(script), root, String(from)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let printed = ''
  let lines = 0
  child.stdout.setEncoding('latin1').on('data', (text: string) => {
    printed += text
    lines += text.split('\n').length - 1
    if (lines >= count) child.kill('SIGKILL')
  })
  const ended = deferred<string | null>()
  child.on('close', (_, signal) => ended.resolve(signal))
  assert.equal(await ended.promise, 'SIGKILL')
  // The last line may be half of one.
  return Number(printed.split('\n').at(-2))
}

describe('the journal on a real disk', () => {
  it('has after kill -9 every batch that was acknowledged, bytes and all', async () => {
    let next = 1
    for (const count of [1, 37, 400]) {
      const acknowledged = await writeAndKill(next, count)
      assert.ok(acknowledged >= next + count - 1)
      const { journal, recovered, damage } = Journal.open({
        disk: new FileDisk(root),
        clock: systemClock,
        random: new Prng(acknowledged),
        ...killOptions,
      })
      assert.deepEqual(damage, [])
      assert.deepEqual(recovered.map(found => found.replica).sort(), [1, 2, 3])
      for (const { replica, lastIndex, hardState, damaged } of recovered) {
        assert.equal(damaged, null)
        // One batch may have been written and not yet acknowledged.
        assert.ok(
          lastIndex === acknowledged || lastIndex === acknowledged + 1,
          `${lastIndex}, ${acknowledged}`,
        )
        assert.deepEqual(hardState, { term: 1, vote: replica, commit: lastIndex - 1 })
        const entries = journal.entries(replica, journal.firstIndex(replica), lastIndex + 1, 1e9)
        for (const entry of entries) {
          assert.equal(Buffer.compare(entry.data, entryOf(replica, entry.index).data), 0)
        }
      }
      next = recovered[0]!.lastIndex + 1
      const closed = deferred<Error | null>()
      journal.close(closed.resolve)
      assert.equal(await closed.promise, null)
    }
    assert.ok(next > 438)
  })
})
