import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { after, describe, it } from 'node:test'
import { status } from '@grpc/grpc-js'
import fc from 'fast-check'
import { runCli } from '../../src/cli/cli.ts'
import { tableOf } from '../../src/cli/completion.ts'
import { devAddNodeVerb } from '../../src/cli/dev-add-node.ts'
import { devStartVerb } from '../../src/cli/dev-start.ts'
import { getVerb } from '../../src/cli/get.ts'
import { helpVerb } from '../../src/cli/help-verb.ts'
import { HistoryFile, historyLinesMax, historyPath } from '../../src/cli/history-file.ts'
import { completeLine, promptVerb } from '../../src/cli/prompt.ts'
import { setVerb } from '../../src/cli/set.ts'
import type { Shell, Verb } from '../../src/cli/shell.ts'
import { statusVerb } from '../../src/cli/status.ts'
import { splitWords, UnfinishedLine } from '../../src/cli/words.ts'
import {
  count,
  type FakeAnswers,
  type FakeNode,
  fakeNode,
  fakeShell,
  refusal,
  statusOf,
  success,
  value,
} from './fake-cluster.ts'

const verbs: readonly Verb[] = [
  ...[setVerb, getVerb, statusVerb, devStartVerb, devAddNodeVerb],
  helpVerb(() => verbs),
  promptVerb(() => verbs),
]
const folder = mkdtempSync(join(tmpdir(), 'roundhouse-prompt-'))
const open: FakeNode[] = []
after(() => {
  for (const node of open) node.close()
  rmSync(folder, { recursive: true })
})
const deadlineMs = 10_000
const [ctrlC, ctrlD, enter, tab, up] = ['\x03', '\x04', '\r', '\t', '\x1b[A']

async function start(answers: FakeAnswers): Promise<FakeNode> {
  const node = await fakeNode(answers)
  open.push(node)
  return node
}

/** A person at a terminal. */
class Person {
  readonly ended: Promise<number>
  private readonly keys = new PassThrough()
  private screen = ''
  private seen = 0

  constructor(
    node: FakeNode,
    env: Record<string, string> = { ROUNDHOUSE_HISTORY: '' },
    args: readonly string[] = [],
  ) {
    const output = Object.assign(new PassThrough(), { isTTY: true, columns: 100, rows: 40 })
    output.setEncoding('utf8')
    output.on('data', (text: string) => {
      this.screen += text
    })
    const stream = output as unknown as NodeJS.WriteStream
    const terminal = {
      isTerminal: true,
      columns: 100,
      stream,
      write: (data: string | Uint8Array) => void output.write(data),
    }
    const shell: Shell = {
      ...fakeShell({ ROUNDHOUSE_NODE: node.address, NO_COLOR: '1', ...env }),
      stdin: { isTerminal: true, stream: this.keys },
      ...{ stdout: terminal, stderr: terminal },
    }
    this.ended = runCli(args, shell, verbs)
  }

  type(text: string): void {
    this.keys.write(text)
  }

  /** What came to the screen since the last time, once it has `wanted`. */
  async sees(wanted: string | RegExp): Promise<string> {
    const deadline = Date.now() + deadlineMs
    for (;;) {
      const news = this.screen.slice(this.seen)
      const found = typeof wanted === 'string' ? news.indexOf(wanted) : news.search(wanted)
      if (found !== -1) {
        this.seen = this.screen.length
        return news
      }
      if (Date.now() > deadline) assert.fail(`not seen: ${wanted}; the screen has ${JSON.stringify(news)}`)
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  }

  async enter(line: string, wanted: string | RegExp): Promise<string> {
    this.type(line + enter)
    return await this.sees(wanted)
  }
}

describe('the prompt', () => {
  it('is what roundhouse alone is in a terminal, and runs commands and verbs over one session', async () => {
    const node = await start({
      command: ({ command }) =>
        command === 'GET' ? value('hello') : command === 'SET' ? success(true) : count(3n),
      status: () => statusOf({ n1: 'a:1' }),
    })
    const person = new Person(node)
    await person.sees('roundhouse> ')
    await person.enter('SET greeting "hello world" EX 5', 'OK\n')
    await person.enter('get greeting', 'hello\n')
    await person.enter("incrby 'n 1' -5", '(integer) 3\n')
    await person.enter('set k v --ex 7', 'OK\n')
    await person.enter('status', /cluster c1, epoch 5/)
    person.type(ctrlD)
    assert.equal(await person.ended, 0)
    assert.deepEqual(
      node.requests.map(({ command, key, args }) => [command, key, ...args.map(String)]),
      [
        ['SET', 'greeting', 'hello world', 'EX', '5'],
        ['GET', 'greeting'],
        ['INCRBY', 'n 1', '-5'],
        ['SET', 'k', 'v', 'EX', '7'],
      ],
    )
    const [set, , incr] = node.requests
    assert.deepEqual(incr!.session, set!.session)
    assert.deepEqual([set!.sequence, incr!.sequence, incr!.ackedBelow], [1n, 2n, 2n])
  })

  it('goes on after what it does not understand and after refusals', async () => {
    const node = await start({
      command: () => refusal(status.FAILED_PRECONDITION, 'WRONG_TYPE', 'WRONGTYPE it is a hash'),
    })
    const person = new Person(node)
    await person.sees('roundhouse> ')
    await person.enter('stauts', '"stauts" is no command and no verb: did you mean status?')
    await person.enter('SET k "v', 'a " that is not closed')
    await person.enter('INCR user', 'error: WRONGTYPE it is a hash\n')
    await person.enter('set k - --nx', 'standard input is the prompt here')
    await person.enter('prompt', '"prompt" is no command and no verb')
    await person.enter('help HGETALL', 'Usage: roundhouse run HGETALL key')
    await person.enter('exit', '')
    assert.equal(await person.ended, 0)
  })

  it('clears the line at Ctrl-C, and stops what runs', async () => {
    const node = await start({ command: ({ key }) => (key === 'slow' ? 'silence' : value('fast')) })
    const person = new Person(node)
    await person.sees('roundhouse> ')
    person.type(`SET half a li${ctrlC}`)
    await person.sees('^C')
    await person.enter('GET k', 'fast\n')
    person.type(`GET slow${enter}`)
    while (!node.requests.some(({ key }) => key === 'slow'))
      await new Promise(resolve => setTimeout(resolve, 5))
    person.type(ctrlC)
    await person.sees('interrupted\n')
    await person.enter('GET k', 'fast\n')
    person.type(ctrlD)
    assert.equal(await person.ended, 0)
    assert.deepEqual([...new Set(node.requests.map(({ command }) => command))], ['GET'])
  })

  it('says of a write that was stopped that it may have been applied', async () => {
    const node = await start({ command: () => 'silence' })
    const person = new Person(node)
    await person.sees('roundhouse> ')
    person.type(`SET k v${enter}`)
    while (node.requests.length === 0) await new Promise(resolve => setTimeout(resolve, 5))
    person.type(ctrlC)
    await person.sees('outcome unknown')
    person.type(ctrlD)
    await person.ended
  })

  it('completes with Tab', async () => {
    const node = await start({ command: () => count(9n) })
    const person = new Person(node)
    await person.sees('roundhouse> ')
    person.type(`hinc${tab}`)
    await person.sees('rby ')
    await person.enter('h f 1', '(integer) 9\n')
    assert.equal(node.requests[0]!.command, 'HINCRBY')
    person.type(ctrlC + ctrlD)
    await person.ended
  })

  it('keeps its history for the next time, but for lines that begin with a space', async () => {
    const node = await start({ command: ({ key }) => value(`<${key}>`) })
    const path = join(folder, 'state', 'roundhouse', 'history')
    const first = new Person(node, { XDG_STATE_HOME: join(folder, 'state') })
    await first.sees('roundhouse> ')
    await first.enter('GET one', '<one>')
    await first.enter(' GET secret', '<secret>')
    first.type(ctrlD)
    await first.ended
    assert.equal(readFileSync(path, 'utf8'), 'GET one\n')
    assert.equal(statSync(path).mode & 0o777, 0o600)
    const second = new Person(node, { XDG_STATE_HOME: join(folder, 'state') })
    await second.sees('roundhouse> ')
    await second.enter(up, '<one>')
    second.type(ctrlD)
    await second.ended
  })

  it('runs a pipe line by line, without a prompt, and ends with what failed last', async () => {
    const node = await start({
      command: ({ key }) =>
        key === 'bad' ? refusal(status.FAILED_PRECONDITION, 'WRONG_TYPE', 'WRONGTYPE no') : value(key),
    })
    const run = async (text: string) => {
      const input = new PassThrough()
      input.end(text)
      const shell = fakeShell({ ROUNDHOUSE_NODE: node.address }, false, input)
      const code = await runCli(['prompt'], shell, verbs)
      return [code, shell.stdout.text(), shell.stderr.text()]
    }
    assert.deepEqual(await run('GET a\n\n# a comment\nGET b'), [0, 'a\nb\n', ''])
    assert.deepEqual(await run('GET bad\nGET b\n'), [1, 'b\n', 'error: WRONGTYPE no\n'])
    assert.deepEqual(await run('GET a\nexit\nGET b\n'), [0, 'a\n', ''])
    assert.equal((await run('nonsense\n'))[0], 2)
  })

  it('ends when the process is told to, whatever it waits for', async () => {
    const node = await start({ command: () => 'silence' })
    const input = new PassThrough()
    const shell = fakeShell({ ROUNDHOUSE_NODE: node.address }, false, input)
    const ended = runCli(['prompt'], shell, verbs)
    input.write('GET a\nGET b\n')
    while (node.requests.length === 0) await new Promise(resolve => setTimeout(resolve, 5))
    shell.controller.abort()
    assert.equal(await ended, 75)
    assert.equal(shell.stderr.text(), 'interrupted\n')
    assert.equal(node.requests.length, 1)
  })

  it('is help where nobody sits at a terminal', async () => {
    const shell = fakeShell()
    assert.equal(await runCli([], shell, verbs), 0)
    assert.match(shell.stdout.text(), /^roundhouse: a sharded/)
  })

  it('takes the nodes for its verbs too', async () => {
    const node = await start({ command: () => value('x'), status: () => statusOf({ n1: 'a:1' }) })
    const nowhere = await start({})
    const person = new Person(nowhere, { ROUNDHOUSE_HISTORY: '' }, ['prompt', '--node', node.address])
    await person.sees('roundhouse> ')
    await person.enter('GET k', 'x\n')
    await person.enter('status', 'cluster c1')
    person.type(ctrlD)
    await person.ended
    assert.equal(nowhere.requests.length, 0)
  })
})

describe('completion at the prompt', () => {
  const offers = (line: string) => completeLine(tableOf(verbs), line)

  it('knows verbs and commands, in the letters that are typed', () => {
    assert.deepEqual(offers('HG'), [['HGET', 'HGETALL'], 'HG'])
    assert.deepEqual(offers('hg'), [['hget', 'hgetall'], 'hg'])
    assert.deepEqual(offers('stat'), [['status '], 'stat'])
    assert.deepEqual(offers('dev '), [['start', 'add-node'], ''])
    assert.deepEqual(offers('exi'), [['exists', 'exit'], 'exi'])
  })

  it('knows options, their values, and topics of help', () => {
    assert.deepEqual(offers('set k v --e'), [['--ex '], '--e'])
    assert.deepEqual(offers('status -o '), [['text', 'json'], ''])
    assert.deepEqual(offers('help HGETA'), [['HGETALL '], 'HGETA'])
    assert.deepEqual(offers('GET some'), [[], 'some'])
    assert.deepEqual(offers('nonsense x'), [[], 'x'])
  })
})

describe('words of a line', () => {
  it('are quoted as in a shell', () => {
    assert.deepEqual(splitWords(`  SET  k "two words" 'it "is"' a\\ b "say \\"x\\" \\\\ \\n" '' x'y'"z"`), [
      ...['SET', 'k', 'two words', 'it "is"', 'a b', 'say "x" \\ \\n', '', 'xyz'],
    ])
    assert.deepEqual(splitWords(' \t '), [])
    for (const line of ['"', "a 'b", 'a\\']) assert.throws(() => splitWords(line), UnfinishedLine)
  })

  it('come back from single quotes, whatever they are', () => {
    const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`
    fc.assert(
      fc.property(fc.array(fc.string()), words => {
        assert.deepEqual(splitWords(words.map(quoted).join(' ')), words)
      }),
    )
  })
})

describe('a history file', () => {
  it('is where the variables say, or in the home directory, or nowhere', () => {
    assert.equal(historyPath({}, '/home/ada'), '/home/ada/.roundhouse_history')
    assert.equal(historyPath({ XDG_STATE_HOME: '/state' }, '/home/ada'), '/state/roundhouse/history')
    assert.equal(historyPath({ XDG_STATE_HOME: '/state', ROUNDHOUSE_HISTORY: '/h' }, '/home/ada'), '/h')
    assert.equal(historyPath({ ROUNDHOUSE_HISTORY: '' }, '/home/ada'), null)
  })

  it('is closed to others, has the newest first, and no line twice in a row', () => {
    const path = join(folder, 'history')
    const history = new HistoryFile(path)
    assert.deepEqual(history.load(), [])
    for (const line of ['a', 'a', 'b', '  ', ' hidden', 'a']) history.add(line)
    assert.equal(readFileSync(path, 'utf8'), 'a\nb\na\n')
    chmodSync(path, 0o644)
    assert.deepEqual(new HistoryFile(path).load(), ['a', 'b', 'a'])
    assert.equal(statSync(path).mode & 0o777, 0o600)
  })

  it('does not grow for ever', () => {
    const path = join(folder, 'long')
    const lines = Array.from({ length: 2 * historyLinesMax + 1 }, (_, place) => `line ${place}`)
    writeFileSync(path, `${lines.join('\n')}\n`)
    assert.equal(new HistoryFile(path).load()[0], `line ${2 * historyLinesMax}`)
    assert.equal(readFileSync(path, 'utf8').trimEnd().split('\n').length, historyLinesMax)
    assert.ok(!existsSync(`${path}.new`))
  })
})
