import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { connectionOptions } from '../../src/cli/connection.ts'
import type { Input, Verb } from '../../src/cli/shell.ts'
import { fakeShell } from './fake-cluster.ts'

/** Runs a command line against a verb that only remembers what it was given. */
async function parse(
  args: readonly string[],
  verb: Partial<Verb> = {},
): Promise<{ code: number; input: Input | undefined; out: string; err: string }> {
  const shell = fakeShell()
  let input: Input | undefined
  const probe: Verb = {
    path: ['put'],
    summary: 'Put something somewhere',
    positionals: [
      { name: 'key', kind: 'required', describe: 'the key' },
      { name: 'value', kind: 'required', describe: 'the value' },
    ],
    options: {
      node: { kind: 'list', alias: 'n', describe: 'where' },
      fast: { kind: 'boolean', describe: 'quickly' },
      output: { kind: 'text', alias: 'o', describe: 'how', choices: ['text', 'json'] },
    },
    examples: [['put a b', 'puts b under a']],
    run: given => {
      input = given
      return Promise.resolve(0)
    },
    ...verb,
  }
  const code = await runCli(args, shell, [probe])
  return { code, input, out: shell.stdout.text(), err: shell.stderr.text() }
}

describe('a command line', () => {
  it('keeps positionals as they were written', async () => {
    for (const text of ['007', '1e3', '0x10', '-5', '', '"quoted"', "'x'", 'true', 'a b', 'ключ']) {
      assert.deepEqual((await parse(['put', text, 'v'])).input?.positionals, [text, 'v'])
    }
  })

  it('takes arguments that begin with a dash after --', async () => {
    const { input } = await parse(['put', '--fast', '--', '-k', '--node'])
    assert.deepEqual(input?.positionals, ['-k', '--node'])
    assert.deepEqual(input?.options, { fast: true })
  })

  it('takes options anywhere, by their names or letters, repeated where they are lists', async () => {
    const { input } = await parse(['put', 'k', '-n', 'a:1', 'v', '--node', 'b:2', '-o', 'json'])
    assert.deepEqual(input?.positionals, ['k', 'v'])
    assert.deepEqual(input?.options, { node: ['a:1', 'b:2'], output: 'json' })
  })

  it('takes any number of arguments where a verb has many', async () => {
    const positionals = [
      { name: 'command', kind: 'required', describe: 'the command' },
      { name: 'args', kind: 'many', describe: 'its arguments' },
    ] as const
    assert.deepEqual((await parse(['put', 'PING'], { positionals })).input?.positionals, ['PING'])
    assert.deepEqual(
      (await parse(['put', 'SET', 'a', 'b', 'c'], { positionals })).input?.positionals.length,
      4,
    )
  })

  it('ends with 2 and names all that is wrong with it', async () => {
    const { code, err, input } = await parse([
      'put',
      'k',
      '--nod',
      'x',
      '-z',
      '--output',
      'xml',
      '--fast',
      '--fast',
    ])
    assert.equal(input, undefined)
    assert.equal(code, 2)
    assert.match(err, /unknown option --nod: did you mean --node\?/)
    assert.match(err, /unknown option -z/)
    assert.match(err, /--output: "xml" is not one of text, json/)
    assert.match(err, /^error: value is missing$/m)
    assert.match(err, /usage: roundhouse put key value \[options\]/)
  })

  it('refuses what is too much, and an option without its value', async () => {
    assert.match((await parse(['put', 'a', 'b', 'c'])).err, /unexpected argument "c"/)
    assert.match((await parse(['put', 'a', 'b', '--output'])).err, /--output needs a value/)
  })

  it('suggests a verb for one that does not exist', async () => {
    const { code, err } = await parse(['putt', 'a', 'b'])
    assert.equal(code, 2)
    assert.match(err, /unknown verb "putt": did you mean put\?/)
  })

  it('prints help without a verb, and for a verb its arguments and examples', async () => {
    const bare = await parse([])
    assert.equal(bare.code, 0)
    assert.match(bare.out, /^ {2}put +Put something somewhere$/m)
    assert.match(bare.out, /Exit status: 0 done/)
    const help = await parse(['put', '--help'])
    assert.equal(help.code, 0)
    assert.match(
      help.out,
      /Usage: roundhouse put key value \[options\][\s\S]*the key[\s\S]*--node[\s\S]*roundhouse put a b/,
    )
    assert.equal((await parse(['put', 'a', '-h'])).out, help.out)
  })

  it('wraps help at the width of the terminal', async () => {
    const describe = 'word '.repeat(60).trim()
    const options = { far: { kind: 'text', describe } } as const
    const { out } = await parse(['put', '--help'], { options, notes: describe })
    assert.ok(out.split('\n').every(line => line.length <= 100))
    assert.equal(out.match(/word/g)?.length, 120)
  })

  it('keeps what an argument means out of its errors', async () => {
    const { err } = await parse(['put'])
    assert.equal(
      err,
      'error: key is missing\nerror: value is missing\nusage: roundhouse put key value [options]\nhelp:  roundhouse put --help\n',
    )
  })

  it('answers what other tools call an option with its name here', async () => {
    const { code, err } = await parse(['put', 'a', 'b', '--server', 'h:1'], { options: connectionOptions })
    assert.equal(code, 2)
    assert.match(err, /unknown option --server: did you mean --node\?\n/)
    for (const other of ['--addr', '--host'])
      assert.match(
        (await parse(['put', 'a', 'b', other, 'h'], { options: connectionOptions })).err,
        /--node\?/,
      )
  })

  it('sends whoever types a command to run', async () => {
    assert.match((await parse(['hset', 'a', 'b', 'c'])).err, /the command is "roundhouse run HSET …"/)
  })

  it('leaves mistakes to a verb that reports them with its own', async () => {
    const { input } = await parse(['put', '--what', 'x', '--fast=perhaps'], { collectsMistakes: true })
    assert.deepEqual(input?.options, { fast: 'perhaps' })
    assert.equal(input?.mistakes.length, 3)
  })

  it('ends with 1 where a verb breaks, and shows where', async () => {
    const { code, err } = await parse(['put', 'a', 'b'], {
      run: () => Promise.reject(new TypeError('a bug')),
    })
    assert.equal(code, 1)
    assert.match(err, /TypeError: a bug[\s\S]*cli\.test\.ts/)
  })
})
