/**
 * From a command line to an exit code: yargs parses, the verb's description decides what is accepted. Positionals and
 * values stay the texts they were: `set 007 1e3` stores `1e3` under `007`.
 */
import yargs, { type Argv, type Options } from 'yargs'
import { commands } from '../commands/table.ts'
import { type Colors, colorsFor } from './colors.ts'
import {
  groupHelp,
  overview,
  pageColumns,
  programName,
  suggest,
  topicHelp,
  usageOf,
  verbHelp,
} from './help.ts'
import {
  exitCodeOf,
  exitCodes,
  type Input,
  Interrupted,
  type OptionSpec,
  type Positional,
  reportOf,
  type Shell,
  UsageError,
  type Verb,
} from './shell.ts'

type Parsed = Record<string, unknown> & { readonly _: readonly unknown[] }

/** Runs `roundhouse ...args`. Never throws; what goes wrong is on stderr (or, with `-o json`, on stdout). */
export async function runCli(args: readonly string[], shell: Shell, verbs: readonly Verb[]): Promise<number> {
  let verb: Verb | undefined
  let json = false
  try {
    const found = parse(meant(args, shell, verbs), verbs, pageColumns(shell.stdout.columns))
    if (found.kind === 'help') {
      shell.stdout.write(`${found.text}\n`)
      return exitCodes.done
    }
    verb = found.verb
    json = found.parsed.output === 'json'
    return await verb.run(inputOf(verb, found.parsed), shell)
  } catch (error) {
    if (json) shell.stdout.write(`${JSON.stringify(reportOf(error, verb?.isWrite === true))}\n`)
    else shell.stderr.write(describeError(colorsFor(shell.stderr, shell.env), error, verb))
    return exitCodeOf(error)
  }
}

/** Nothing typed in a terminal is the prompt, elsewhere it asks for help. */
function meant(args: readonly string[], shell: Shell, verbs: readonly Verb[]): readonly string[] {
  if (args.length === 1 && (args[0] === '--version' || args[0] === '-v')) return ['version']
  const isTerminal = shell.stdin.isTerminal && shell.stdout.isTerminal
  const hasPrompt = verbs.some(verb => verb.path[0] === 'prompt')
  return args.length === 0 && isTerminal && hasPrompt ? ['prompt'] : args
}

/** What people read of an error, with the way to help where the command line was not understood. */
export function describeError(colors: Colors, error: unknown, verb?: Verb): string {
  const label = `${colors.red('error')}: `
  if (error instanceof UsageError) {
    const path = verb === undefined ? '' : ` ${verb.path.join(' ')}`
    const usage = verb === undefined ? [] : [`usage: ${usageOf(verb)}`]
    const lines = [
      ...error.mistakes.map(each => `${label}${each}`),
      ...usage,
      `help:  ${programName}${path} --help`,
    ]
    return `${lines.join('\n')}\n`
  }
  if (error instanceof Interrupted) return `${error.message}\n`
  const { error: report } = reportOf(error, false)
  const isBug = report.code === 'INTERNAL' && error instanceof Error
  return `${label}${isBug ? (error.stack ?? report.message) : report.message}\n`
}

// --- Parsing --------------------------------------------------------------------------------------------------------

type Found =
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'verb'; readonly verb: Verb; readonly parsed: Parsed }

function parse(args: readonly string[], verbs: readonly Verb[], columns: number): Found {
  let chosen: { verb: Verb; parsed: Parsed } | undefined
  // Answers are taken from the callback below; the process is left alone.
  const parser = yargs()
    .scriptName(programName)
    .parserConfiguration({
      'camel-case-expansion': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'dot-notation': false,
      'boolean-negation': false,
    })
    .exitProcess(false)
    .version(false)
    .help(false)
    .option('help', { alias: 'h', type: 'boolean' })
  const add = (to: Argv, verb: Verb) =>
    to.command(
      verb.path.at(-1)!,
      verb.summary,
      builder => acceptOptions(builder, verb),
      parsed => {
        chosen = { verb, parsed: parsed as unknown as Parsed }
      },
    )
  for (const verb of verbs) if (verb.path.length === 1) add(parser, verb)
  for (const group of groupsOf(verbs)) {
    parser.command(group, group, builder => {
      for (const verb of verbs) if (verb.path.length > 1 && verb.path[0] === group) add(builder, verb)
      return builder
    })
  }
  let failure: Error | null = null as Error | null
  try {
    parser.parse([...args], {}, error => {
      failure = error ?? null
    })
  } catch {
    // yargs itself stumbles over some: `--constructor`, which it finds in its own tables, or `----`.
    const odd = args.find(isOdd) ?? args.join(' ')
    throw new UsageError([`not an option: ${JSON.stringify(odd.slice(0, 100))}`])
  }
  if (failure !== null) {
    throw new UsageError([
      failure.message.replace(/^Not enough arguments following: (.*)$/, '--$1 needs a value'),
    ])
  }
  if (chosen === undefined) return { kind: 'help', text: helpOf(args, verbs, columns) }
  const { verb, parsed } = chosen
  if (parsed.help !== true) return { kind: 'verb', verb, parsed }
  const topic = parsed._.slice(verb.path.length).map(String)
  const offers = verb.positionals?.[0]?.offers
  // `run --help set` asks for the command, whatever verbs there are.
  if (topic.length > 0 && offers === 'commands')
    return { kind: 'help', text: topicHelp([topic[0]!.toUpperCase()], verbs, columns) }
  if (topic.length > 0 && offers === 'topics') return { kind: 'help', text: topicHelp(topic, verbs, columns) }
  return { kind: 'help', text: verbHelp(verb, columns) }
}

/** Dashes and no name, or the name of a property of every object. */
function isOdd(arg: string): boolean {
  const name = arg.split('=', 1)[0]!.trim().replace(/^-+/, '')
  return arg.startsWith('-') && (name === '' ? arg.trim().length > 2 : name in Object.prototype)
}

function groupsOf(verbs: readonly Verb[]): Set<string> {
  return new Set(verbs.filter(each => each.path.length > 1).map(each => each.path[0]!))
}

/** Nothing was chosen: no verb at all, a group without its second word, or a word nobody knows. */
function helpOf(args: readonly string[], verbs: readonly Verb[], columns: number): string {
  const words = args.filter(arg => !arg.startsWith('-'))
  const isHelp = args.includes('--help') || args.includes('-h')
  const inGroup = words[0] !== undefined && groupsOf(verbs).has(words[0])
  const word = inGroup ? words[1] : words[0]
  const known = verbs
    .filter(each => !inGroup || each.path[0] === words[0])
    .map(each => (inGroup ? each.path[1]! : each.path[0]!))
  if (word !== undefined) {
    const asked = inGroup ? `${words[0]} ${word}` : word
    const list = inGroup ? `: ${words[0]} knows ${known.join(', ')}` : ''
    throw new UsageError([
      `unknown verb ${JSON.stringify(asked)}${commandHint(word) || suggest(word, known) || list}`,
    ])
  }
  if (inGroup && isHelp) return groupHelp(words[0]!, verbs, columns)
  if (inGroup) throw new UsageError([`${words[0]} needs a second word: ${known.join(' or ')}`])
  const unknown = args.find(arg => arg.startsWith('-') && arg !== '--help' && arg !== '-h')
  if (unknown !== undefined) throw new UsageError([`a verb must be named before ${unknown}`])
  return overview(verbs, columns)
}

/** Whoever types `roundhouse hget …` meant a command. */
function commandHint(word: string): string {
  const name = word.toUpperCase()
  return commands.has(name) ? `: the command is "${programName} run ${name} …"` : ''
}

function acceptOptions(builder: Argv, verb: Verb): Argv {
  for (const [option, spec] of Object.entries(verb.options ?? {})) {
    builder.option(option, yargsOption(spec, verb.collectsMistakes === true))
  }
  return builder
}

function yargsOption(spec: OptionSpec, isReadByVerb: boolean): Options {
  // yargs takes `--bootstrap=perhaps` for false; a verb that reads its options itself gets to see what was written.
  const form: Options =
    spec.kind !== 'boolean' ? { type: 'string', requiresArg: true } : isReadByVerb ? {} : { type: 'boolean' }
  return { ...form, ...(spec.alias === undefined ? {} : { alias: spec.alias }) }
}

// --- Checking -------------------------------------------------------------------------------------------------------

/** Throws UsageError with every mistake, unless the verb reports the options' mistakes together with its own. */
function inputOf(verb: Verb, parsed: Parsed): Input {
  const specs = verb.options ?? {}
  const aliases = Object.values(specs).flatMap(spec => (spec.alias === undefined ? [] : [spec.alias]))
  const known = new Set([...Object.keys(specs), ...aliases, 'help', 'h', '_', '$0'])
  const mistakes: string[] = []
  const options: Record<string, unknown> = {}
  for (const [option, value] of Object.entries(parsed)) {
    if (!known.has(option)) {
      const dashes = option.length === 1 ? '-' : '--'
      const meant = meantBy(option, specs)
      const dashHint =
        verb.positionals === undefined ? '' : '; an argument that begins with a dash goes after --'
      mistakes.push(`unknown option ${dashes}${option}${meant === '' ? dashHint : meant}`)
    } else if (option in specs && value !== undefined) {
      options[option] = value
    }
  }
  if (verb.collectsMistakes !== true) {
    for (const [option, spec] of Object.entries(specs))
      mistakes.push(...optionMistakes(option, spec, options[option]))
  }
  const positionals = parsed._.slice(verb.path.length).map(String)
  mistakes.push(...positionalMistakes(verb.positionals ?? [], positionals))
  if (mistakes.length > 0 && verb.collectsMistakes !== true) throw new UsageError(mistakes)
  return { positionals, options, mistakes }
}

function optionMistakes(option: string, spec: OptionSpec, value: unknown): string[] {
  if (value === undefined) return []
  if (Array.isArray(value) && spec.kind !== 'list')
    return [`--${option} is given ${value.length} times: once is accepted`]
  if (spec.choices !== undefined && !spec.choices.includes(String(value))) {
    return [`--${option}: ${JSON.stringify(value)} is not one of ${spec.choices.join(', ')}`]
  }
  return []
}

function positionalMistakes(expected: readonly Positional[], given: readonly string[]): string[] {
  const missing = expected.filter((each, place) => each.kind === 'required' && given[place] === undefined)
  const wrong = missing.map(each => `${each.name} is missing`)
  const hasRest = expected.at(-1)?.kind === 'many'
  if (!hasRest && given.length > expected.length) {
    const extra = given.slice(expected.length).map(each => JSON.stringify(each))
    const hint = expected.length > 0 ? ': put quotes around a value that has spaces' : ''
    wrong.push(`unexpected argument ${extra.join(' ')}${hint}`)
  }
  expected.forEach((each, place) => {
    for (const value of each.kind === 'many' ? given.slice(place) : given.slice(place, place + 1)) {
      if (each.choices === undefined || each.choices.includes(value)) continue
      const known = each.choices.join(', ')
      wrong.push(`${JSON.stringify(value)} is not one of ${known}${suggest(value, each.choices)}`)
    }
  })
  return wrong
}

function meantBy(option: string, specs: Readonly<Record<string, OptionSpec>>): string {
  const known = Object.entries(specs).find(([, spec]) => spec.elsewhere?.includes(option) === true)
  return known === undefined
    ? suggest(option, [...Object.keys(specs), 'help'], '--')
    : `: did you mean --${known[0]}?`
}
