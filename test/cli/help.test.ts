import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { commandList } from '../../src/cli/help.ts'
import { helpVerb } from '../../src/cli/help-verb.ts'
import { runVerb } from '../../src/cli/run.ts'
import { setVerb } from '../../src/cli/set.ts'
import type { Verb } from '../../src/cli/shell.ts'
import { commands } from '../../src/commands/table.ts'
import { fakeShell } from './fake-cluster.ts'

const verbs: readonly Verb[] = [setVerb, runVerb, helpVerb(() => verbs)]

async function help(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const shell = fakeShell()
  const code = await runCli(args, shell, verbs)
  return { code, out: shell.stdout.text(), err: shell.stderr.text() }
}

describe('help', () => {
  it('has every command once, in a family', () => {
    const names = commandList(100)
      .split('\n')
      .slice(1)
      .flatMap(line => line.match(/\b[A-Z]{2,}(\.[A-Z]+)?\b/g) ?? [])
    assert.deepEqual(names.toSorted(), [...commands.keys()].toSorted())
  })

  it('on run lists the commands and the exit status', async () => {
    const { out } = await help('run', '--help')
    assert.match(out, /Strings +SET GET .*INCR[\s\S]*Sorted sets +ZADD/)
    assert.match(out, /Exit status: .*75 try again/)
  })

  it('tells the usage and meaning of one command, by each way to ask', async () => {
    const { code, out } = await help('help', 'SET')
    assert.equal(code, 0)
    assert.match(
      out,
      /^Usage: roundhouse run SET key value \[EX seconds[\s\S]*Sets a key[\s\S]*A write; its first/,
    )
    assert.equal((await help('run', '--help', 'SET')).out, out)
    assert.equal((await help('run', 'set', '-h')).out, out)
    assert.match((await help('help', 'hgetall')).out, /^Usage: roundhouse run HGETALL key\n/)
  })

  it('tells the verb from the command of one name by its letters, and names the other', async () => {
    assert.match((await help('help', 'set')).out, /^Usage: roundhouse set [\s\S]*help SET\n$/)
  })

  it('on nothing is the overview, on commands a line for each', async () => {
    assert.equal((await help('help')).out, (await help()).out)
    const { out } = await help('help', 'commands')
    for (const name of commands.keys()) assert.match(out, new RegExp(`^ {2}${name} `, 'm'))
  })

  it('suggests a topic for one that does not exist', async () => {
    const { code, err } = await help('help', 'HGETAL')
    assert.equal(code, 2)
    assert.match(err, /no help on "HGETAL": did you mean HGETALL\?/)
  })
})
