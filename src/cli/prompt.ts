/**
 * The prompt: commands as they are (`SET k v`) and verbs without the program's name (`status`), one after another over
 * one connection. In a terminal with history and completion; from a pipe line by line, without either.
 */
import { createInterface, type Interface } from 'node:readline'
import { commands } from '../commands/table.ts'
import { systemReason } from '../lib/system-reason.ts'
import { runCommand, Session, withSuggestion } from './calls.ts'
import { describeError, runCli } from './cli.ts'
import { type Colors, colorsFor } from './colors.ts'
import { type CompletionTable, offerOf, tableOf } from './completion.ts'
import { connectionOptions, Nodes } from './connection.ts'
import { suggest } from './help.ts'
import { HistoryFile, historyLinesMax, historyPath } from './history-file.ts'
import { printReply } from './print.ts'
import { exitCodeOf, exitCodes, type Input, reportOf, type Shell, UsageError, type Verb } from './shell.ts'
import { splitWords, UnfinishedLine } from './words.ts'

const endWords = ['exit', 'quit']

/** `verbs`: all of them, this one included. */
export function promptVerb(verbs: () => readonly Verb[]): Verb {
  return {
    path: ['prompt'],
    group: 'tools',
    summary: 'Type commands and verbs one after another (roundhouse alone does it, in a terminal)',
    options: connectionOptions,
    examples: [
      ['prompt --node 10.0.0.1:8080', 'then: SET greeting hello, HGETALL user, status, exit'],
      ['prompt < commands.txt', 'a command a line; ends with the exit status of the last that failed'],
    ],
    notes:
      'Words are quoted as in a shell. Tab completes; Ctrl-C clears the line or stops what runs; Ctrl-D or exit ends. ' +
      'Lines are kept in ~/.roundhouse_history ($XDG_STATE_HOME/roundhouse/history where that is set, ROUNDHOUSE_HISTORY ' +
      'names another file, empty: none), but for those that begin with a space.',
    run: (input, shell) =>
      new Prompt(
        input,
        shell,
        verbs().filter(each => each.path[0] !== 'prompt'),
      ).run(),
  }
}

class Prompt {
  private readonly input: Input
  private readonly shell: Shell
  private readonly verbs: readonly Verb[]
  private readonly isTerminal: boolean
  private readonly colors: Colors
  private readonly history: HistoryFile | null
  private readonly session = new Session()
  private readonly lines: string[] = []
  private nodes: Nodes | null = null
  private running: AbortController | null = null
  private isClosed = false
  private isEnding = false
  private code: number = exitCodes.done
  private finish: () => void = () => {}

  constructor(input: Input, shell: Shell, verbs: readonly Verb[]) {
    this.input = input
    this.shell = shell
    this.verbs = verbs
    this.isTerminal = shell.stdin.isTerminal && shell.stdout.stream !== null
    this.colors = colorsFor(shell.stdout, shell.env)
    const path = historyPath(shell.env)
    this.history = this.isTerminal && path !== null ? new HistoryFile(path) : null
  }

  async run(): Promise<number> {
    const { stdin, stdout, signal } = this.shell
    if (stdin.stream === null) throw new UsageError(['there is no standard input to read from'])
    // What is wrong with --node and its like is told before the first line is read.
    this.connect().close()
    const reader = createInterface({
      input: stdin.stream,
      ...(this.isTerminal ? { output: stdout.stream! } : {}),
      terminal: this.isTerminal,
      prompt: this.colors.bold('roundhouse> '),
      history: this.loadHistory(),
      historySize: historyLinesMax,
      removeHistoryDuplicates: true,
      completer: (line: string) => completeLine(tableOf(this.verbs), line),
    })
    const finished = new Promise<void>(resolve => {
      this.finish = resolve
    })
    const close = () => {
      this.isEnding = true
      this.running?.abort()
      reader.close()
    }
    reader.on('line', line => this.take(reader, line))
    reader.on('SIGINT', () => this.interrupt(reader))
    reader.on('close', () => this.close())
    signal.addEventListener('abort', close, { once: true })
    if (signal.aborted) close()
    if (this.isTerminal && !this.isClosed) {
      stdout.write('Commands (SET k v) and verbs (status). Tab completes, help tells more, Ctrl-D ends.\n')
      reader.prompt()
    }
    await finished
    signal.removeEventListener('abort', close)
    this.nodes?.close()
    return this.isTerminal ? exitCodes.done : this.code
  }

  // --- Lines --------------------------------------------------------------------------------------------------------

  private take(reader: Interface, line: string): void {
    this.remember(line)
    this.lines.push(line)
    if (this.lines.length === 1 && this.running === null) void this.work(reader)
  }

  /** One line after another; those that come meanwhile wait. */
  private async work(reader: Interface): Promise<void> {
    // A pipe waits too; a terminal goes on reading, for Ctrl-C.
    if (!this.isTerminal) reader.pause()
    while (this.lines.length > 0 && !this.isEnding) {
      this.running = new AbortController()
      const code = await this.execute(this.lines.shift()!, this.running)
      if (code !== exitCodes.done) this.code = code
      this.running = null
    }
    if (this.isEnding) reader.close()
    if (this.isClosed) this.finish()
    else if (this.isTerminal) reader.prompt()
    else reader.resume()
  }

  private interrupt(reader: Interface): void {
    if (this.running !== null) {
      // What was typed ahead was typed for a cluster that answers.
      this.lines.length = 0
      this.running.abort()
      return
    }
    this.shell.stdout.write('^C\n')
    reader.write(null, { ctrl: true, name: 'e' })
    reader.write(null, { ctrl: true, name: 'u' })
    reader.prompt()
  }

  private close(): void {
    if (this.isClosed) return
    this.isClosed = true
    if (this.isTerminal) {
      if (!this.isEnding) this.shell.stdout.write('\n')
      this.isEnding = true
      this.running?.abort()
    }
    // A pipe that has ended may still have lines to run.
    if (this.running === null && (this.isEnding || this.lines.length === 0)) this.finish()
  }

  // --- One line -----------------------------------------------------------------------------------------------------

  private async execute(line: string, controller: AbortController): Promise<number> {
    try {
      const words = splitWords(line)
      const [first = ''] = words
      if (words.length === 0 || first.startsWith('#')) return exitCodes.done
      if (endWords.includes(first) && words.length === 1) {
        this.isEnding = true
        return exitCodes.done
      }
      if (this.isCommand(words)) return await this.runCommand(first.toUpperCase(), words.slice(1), controller)
      if (!this.verbs.some(verb => verb.path[0] === first)) {
        const known = [...this.verbs.map(verb => verb.path[0]!), ...commands.keys(), ...endWords]
        throw new RefusedLine(`${JSON.stringify(first)} is no command and no verb${suggest(first, known)}`)
      }
      return await runCli(words, this.shellOf(controller), this.verbs)
    } catch (error) {
      const { stderr, env } = this.shell
      const colors = colorsFor(stderr, env)
      if (error instanceof UnfinishedLine || error instanceof RefusedLine) {
        stderr.write(`${colors.red('error')}: ${error.message}\n`)
        return exitCodes.usage
      }
      // A write that was interrupted may have been applied, and that must be said.
      const isUnknown = reportOf(error, true).outcome === 'unknown'
      const isJustStopped = controller.signal.aborted && !isUnknown
      stderr.write(isJustStopped ? 'interrupted\n' : describeError(colors, error))
      return exitCodeOf(error)
    }
  }

  /** `set` and `get` are both: the verb where an option is given. */
  private isCommand([first = '', ...rest]: readonly string[]): boolean {
    if (!commands.has(first.toUpperCase())) return false
    const isVerb = this.verbs.some(verb => verb.path[0] === first)
    return !(isVerb && rest.some(word => word.startsWith('--') || word === '-h'))
  }

  private async runCommand(
    name: string,
    args: readonly string[],
    controller: AbortController,
  ): Promise<number> {
    this.nodes ??= this.connect()
    const { nodes } = this
    const stop = () => {
      nodes.interrupt()
      // It is given up for good; the next command connects again.
      this.nodes = null
    }
    controller.signal.addEventListener('abort', stop, { once: true })
    try {
      const access = commands.get(name)!.access
      printReply(this.shell.stdout, await runCommand(nodes, name, args, access, this.session))
      return exitCodes.done
    } catch (error) {
      throw withSuggestion(error, name)
    } finally {
      controller.signal.removeEventListener('abort', stop)
    }
  }

  private connect(): Nodes {
    return Nodes.from(this.input, { ...this.shell, signal: new AbortController().signal })
  }

  /** For verbs: they find the same nodes, and leave the keyboard to the prompt. */
  private shellOf(controller: AbortController): Shell {
    const { options } = this.input
    const given = Object.keys(connectionOptions).flatMap(name => {
      const variable = name === 'node' ? 'ROUNDHOUSE_NODE' : name.toUpperCase().replaceAll('-', '_')
      return options[name] === undefined ? [] : [[variable, [options[name]].flat().join(',')] as const]
    })
    return {
      ...this.shell,
      env: { ...this.shell.env, ...Object.fromEntries(given) },
      signal: controller.signal,
      stdin: { isTerminal: this.isTerminal, stream: null },
    }
  }

  // --- History ------------------------------------------------------------------------------------------------------

  private loadHistory(): string[] {
    try {
      return this.history?.load() ?? []
    } catch (error) {
      this.shell.stderr.write(`no history: ${systemReason(error)}\n`)
      return []
    }
  }

  private remember(line: string): void {
    try {
      this.history?.add(line)
    } catch {
      // Told when it was loaded, or a disk that has filled up since: nobody types for the history's sake.
    }
  }
}

/** A line that is neither. */
class RefusedLine extends Error {}

// --- Completion -----------------------------------------------------------------------------------------------------

/** What may stand for the last word of `line`, and that word: as readline wants it. */
export function completeLine(table: CompletionTable, line: string): [string[], string] {
  const words = line.trimStart().split(/\s+/)
  const typed = words.pop() ?? ''
  const hits = [...new Set(offered(table, words, typed))].filter(each => each.startsWith(typed))
  return [hits.length === 1 ? [`${hits[0]} `] : hits, typed]
}

function offered(table: CompletionTable, words: readonly string[], typed: string): readonly string[] {
  // Commands are written in either case.
  const inCase = (names: readonly string[]) =>
    /^[a-z]/.test(typed) ? names.map(each => each.toLowerCase()) : names
  const [first] = words
  if (first === undefined) return [...table.first, ...inCase(table.commands), ...endWords]
  const path = table.groups.includes(first) ? words.slice(0, 2) : words.slice(0, 1)
  const verb = table.verbs.find(each => each.name === path.join(' '))
  if (verb === undefined) {
    if (words.length > 1) return []
    return table.verbs
      .filter(each => each.name.startsWith(`${first} `))
      .map(each => each.name.slice(first.length + 1))
  }
  const option = verb.options.find(each => each.takesValue && isSpelled(each, words.at(-1)!))
  if (option !== undefined) return option.spec.choices ?? []
  if (typed.startsWith('-')) return verb.options.map(each => `--${each.long}`)
  const place = words.length - path.length
  const positional = verb.positionals[place] ?? verb.positionals.at(-1)
  if (positional === undefined || (place >= verb.positionals.length && positional.kind !== 'many')) return []
  const offer = offerOf(table, positional)
  if (offer?.kind !== 'words') return []
  return offer.isUpper ? inCase(offer.words) : offer.words
}

function isSpelled(option: { readonly long: string; readonly letter: string | null }, word: string): boolean {
  return word === `--${option.long}` || (option.letter !== null && word === `-${option.letter}`)
}
