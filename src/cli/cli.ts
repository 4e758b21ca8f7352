/**
 * From a command line to an exit code: yargs parses and prints help, the verb's description decides what is accepted.
 * Positionals and values stay the texts they were: `set 007 1e3` stores `1e3` under `007`.
 */
import yargs, { type Argv, type Options } from 'yargs'
import { nearest } from '../lib/nearest.ts'
import { type Colors, colorsFor } from './colors.ts'
import {
  exitCodeOf,
  exitCodes,
  type Input,
  type OptionSpec,
  type Positional,
  reportOf,
  type Shell,
  UsageError,
  type Verb,
} from './shell.ts'

const name = 'roundhouse'

type Parsed = Record<string, unknown> & { readonly _: readonly unknown[] }

/** Runs `roundhouse ...args`. Never throws; what goes wrong is on stderr (or, with `-o json`, on stdout). */
export async function runCli(args: readonly string[], shell: Shell, verbs: readonly Verb[]): Promise<number> {
  let verb: Verb | undefined
  let json = false
  try {
    const isVersion = args.length === 1 && (args[0] === '--version' || args[0] === '-v')
    const found = parse(isVersion ? ['version'] : args, verbs, Math.min(shell.stdout.columns, 110))
    if (found.kind === 'help') {
      shell.stdout.write(`${found.text}\n`)
      return exitCodes.done
    }
    verb = found.verb
    json = found.parsed.output === 'json'
    return await verb.run(inputOf(verb, found.parsed), shell)
  } catch (error) {
    if (json) shell.stdout.write(`${JSON.stringify(reportOf(error, verb?.isWrite === true))}\n`)
    else shell.stderr.write(describe(colorsFor(shell.stderr, shell.env), error, verb))
    return exitCodeOf(error)
  }
}

function describe(colors: Colors, error: unknown, verb: Verb | undefined): string {
  const { error: report } = reportOf(error, false)
  const isBug = report.code === 'INTERNAL' && error instanceof Error
  const lines = [`${colors.red('error')}: ${isBug ? (error.stack ?? report.message) : report.message}`]
  if (error instanceof UsageError) {
    const path = verb === undefined ? '' : ` ${verb.path.join(' ')}`
    if (verb !== undefined) lines.push(`usage: ${usageOf(verb)}`)
    lines.push(`help:  ${name}${path} --help`)
  }
  return `${lines.join('\n')}\n`
}

// --- Parsing --------------------------------------------------------------------------------------------------------

type Found =
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'verb'; readonly verb: Verb; readonly parsed: Parsed }

function parse(args: readonly string[], verbs: readonly Verb[], columns: number): Found {
  let chosen: { verb: Verb; parsed: Parsed } | undefined
  // Answers are taken from the callback below; the process is left alone.
  const parser = yargs()
    .scriptName(name)
    .parserConfiguration({
      'camel-case-expansion': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'dot-notation': false,
      'boolean-negation': false,
    })
    .exitProcess(false)
    .version(false)
    .help('help')
    .alias('help', 'h')
    .wrap(columns)
    .usage(`${name}: a sharded, replicated key-value store and log\n\nUsage: $0 VERB`)
  const add = (to: Argv, verb: Verb) =>
    to.command(
      verb.path.at(-1)!,
      verb.summary,
      builder => describeVerb(builder, verb),
      parsed => {
        chosen = { verb, parsed: parsed as unknown as Parsed }
      },
    )
  for (const verb of verbs) if (verb.path.length === 1) add(parser, verb)
  for (const group of new Set(verbs.filter(each => each.path.length > 1).map(each => each.path[0]!))) {
    const members = verbs.filter(each => each.path.length > 1 && each.path[0] === group)
    parser.command(group, members.map(each => `${each.path[1]}: ${each.summary}`).join('\n'), builder => {
      builder.usage(`Usage: $0 ${group} VERB`)
      for (const member of members) add(builder, member)
      return builder.epilog(epilogOf(members))
    })
  }
  let output = ''
  let failure: Error | null = null as Error | null
  parser.parse([...args], {}, (error, _parsed, text) => {
    failure = error ?? null
    output = text
  })
  if (failure !== null) {
    throw new UsageError([
      failure.message.replace(/^Not enough arguments following: (.*)$/, '--$1 needs a value'),
    ])
  }
  if (chosen !== undefined) return { kind: 'verb', ...chosen }
  if (output !== '') return { kind: 'help', text: output }
  return { kind: 'help', text: helpOf(parser, args, verbs) }
}

/** Nothing was chosen: no verb at all, a group without its second word, or a word nobody knows. */
function helpOf(parser: Argv, args: readonly string[], verbs: readonly Verb[]): string {
  const words = args.filter(arg => !arg.startsWith('-'))
  const groups = new Set(verbs.filter(each => each.path.length > 1).map(each => each.path[0]!))
  const inGroup = words[0] !== undefined && groups.has(words[0])
  const word = inGroup ? words[1] : words[0]
  const known = verbs
    .filter(each => !inGroup || each.path[0] === words[0])
    .map(each => (inGroup ? each.path[1]! : each.path[0]!))
  if (word !== undefined) {
    throw new UsageError([
      `unknown verb ${JSON.stringify(inGroup ? `${words[0]} ${word}` : word)}${suggest(word, known)}; known are ${[...new Set(known)].join(', ')}`,
    ])
  }
  if (inGroup) throw new UsageError([`${words[0]} needs a second word: ${known.join(' or ')}`])
  const unknown = args.find(arg => arg.startsWith('-'))
  if (unknown !== undefined) throw new UsageError([`a verb must be named before ${unknown}`])
  let text = ''
  parser.parse(['--help'], {}, (_error, _parsed, output) => {
    text = output
  })
  return text
}

function describeVerb(builder: Argv, verb: Verb): Argv {
  const positionals = (verb.positionals ?? []).map(each => `  ${label(each).padEnd(12)}  ${each.describe}`)
  builder.usage(
    [
      `Usage: ${usageOf(verb)}`,
      '',
      verb.summary,
      ...(positionals.length > 0 ? ['', 'Arguments:', ...positionals] : []),
    ].join('\n'),
  )
  for (const [option, spec] of Object.entries(verb.options ?? {})) {
    builder.option(option, yargsOption(spec, verb.collectsMistakes === true))
  }
  return builder.epilog(epilogOf([verb]))
}

/** Examples and notes; verbs of a group that share a note show it once. */
function epilogOf(verbs: readonly Verb[]): string {
  const examples = verbs
    .flatMap(verb => verb.examples ?? [])
    .map(([line, meaning]) => `  ${name} ${line}\n      ${meaning}`)
  const notes = new Set(verbs.flatMap(verb => (verb.notes === undefined ? [] : [verb.notes])))
  return [...(examples.length > 0 ? [`Examples:\n${examples.join('\n')}`] : []), ...notes].join('\n\n')
}

function yargsOption(spec: OptionSpec, isReadByVerb: boolean): Options {
  // yargs takes `--bootstrap=perhaps` for false; a verb that reads its options itself gets to see what was written.
  const form: Options =
    spec.kind !== 'boolean' ? { type: 'string', requiresArg: true } : isReadByVerb ? {} : { type: 'boolean' }
  return {
    describe: spec.describe,
    ...form,
    ...(spec.alias === undefined ? {} : { alias: spec.alias }),
    ...(spec.fallback === undefined ? {} : { defaultDescription: spec.fallback }),
    ...(spec.isHidden === true ? { hidden: true } : {}),
  }
}

function label(positional: Positional): string {
  const words = positional.choices?.join('|') ?? positional.name
  return positional.kind === 'required'
    ? words
    : positional.kind === 'optional'
      ? `[${words}]`
      : `[${words}...]`
}

export function usageOf(verb: Verb): string {
  return [name, ...verb.path, ...(verb.positionals ?? []).map(label), '[options]'].join(' ')
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
      mistakes.push(
        `unknown option ${dashes}${option}${suggest(option, Object.keys(specs), '--')}` +
          (verb.positionals === undefined ? '' : ' (an argument that begins with a dash goes after --)'),
      )
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
  const wrong = missing.map(each => `${each.name} is missing: ${each.describe}`)
  const hasRest = expected.at(-1)?.kind === 'many'
  if (!hasRest && given.length > expected.length) {
    const extra = given.slice(expected.length).map(each => JSON.stringify(each))
    const hint = expected.length > 0 ? ': put quotes around a value that has spaces' : ''
    wrong.push(`unexpected argument ${extra.join(' ')}${hint}`)
  }
  expected.forEach((each, place) => {
    const value = given[place]
    if (value === undefined || each.choices === undefined || each.choices.includes(value)) return
    wrong.push(
      `${JSON.stringify(value)} is not one of ${each.choices.join(', ')}${suggest(value, each.choices)}`,
    )
  })
  return wrong
}

function suggest(word: string, known: readonly string[], prefix = ''): string {
  const meant = nearest(word, known)
  return meant === null ? '' : `: did you mean ${prefix}${meant}?`
}
