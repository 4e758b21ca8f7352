/**
 * Help, made from what verbs and commands say of themselves. Pages are plain text, wrapped at the width of whoever reads
 * them; yargs parses and is not asked for help, because it takes the indentation away.
 */
import type { Command } from '../commands/command.ts'
import { commands } from '../commands/table.ts'
import { nearest } from '../lib/nearest.ts'
import {
  exitCodesText,
  type OptionSpec,
  type Positional,
  UsageError,
  type Verb,
  type VerbGroup,
  verbGroups,
} from './shell.ts'

export const programName = 'roundhouse'
/** Lines longer than this are hard to read, however wide the terminal is. */
const columnsMax = 110
const columnsMin = 40

// --- Pages ----------------------------------------------------------------------------------------------------------

/** What `roundhouse --help` prints. */
export function overview(verbs: readonly Verb[], columns: number): string {
  const groups = Object.keys(verbGroups) as VerbGroup[]
  const lists = groups.map(group => {
    const members = verbs.filter(verb => (verb.group ?? 'cluster') === group)
    return [
      `${verbGroups[group]}:`,
      ...rows(
        members.map(verb => [verb.path.join(' '), verb.summary]),
        columns,
      ),
    ].join('\n')
  })
  return [
    `${programName}: a sharded, replicated key-value store and log`,
    `Usage: ${programName} VERB [arguments] [options]\n       ${programName}                 a prompt, in a terminal`,
    ...lists,
    [
      'More:',
      ...rows(
        [
          [`${programName} VERB --help`, 'arguments, options and examples of a verb'],
          [
            `${programName} help commands`,
            `the ${commands.size} commands that run takes, by what they work on`,
          ],
          [`${programName} help SET`, 'one of them'],
        ],
        columns,
      ),
    ].join('\n'),
    [
      'Variables:',
      ...rows(
        [
          ['ROUNDHOUSE_NODE', 'nodes to ask, as --node'],
          ['TLS_CA_PATH', 'and TLS_CERT_PATH, TLS_KEY_PATH: as --tls-ca-path and its like'],
          ['ROUNDHOUSE_HISTORY', "file of the prompt's history; empty: none is kept"],
          ['NO_COLOR', 'not empty: no colours in a terminal either'],
        ],
        columns,
      ),
    ].join('\n'),
    exitStatus(columns),
  ].join('\n\n')
}

/** What `roundhouse VERB --help` prints. */
export function verbHelp(verb: Verb, columns: number): string {
  const options = Object.entries(verb.options ?? {}).filter(([, spec]) => spec.isHidden !== true)
  const positionals = verb.positionals ?? []
  return [
    `Usage: ${usageOf(verb)}`,
    ...wrap(verb.summary, columns),
    ...section(
      'Arguments',
      rows(
        positionals.map(each => [label(each), each.describe]),
        columns,
      ),
    ),
    ...section('Options', rows([...options.map(optionRow), ['-h, --help', 'This page']], columns)),
    ...section('Examples', examplesOf([verb])),
    ...(verb.notes === undefined ? [] : [notesText(verb.notes, columns)]),
    ...(positionals.some(each => each.offers === 'commands') ? [commandList(columns)] : []),
    exitStatus(columns),
  ].join('\n\n')
}

/** What `roundhouse dev --help` prints: the verbs that share a first word. */
export function groupHelp(word: string, verbs: readonly Verb[], columns: number): string {
  const members = verbs.filter(verb => verb.path.length > 1 && verb.path[0] === word)
  const notes = new Set(members.flatMap(verb => (verb.notes === undefined ? [] : [verb.notes])))
  return [
    `Usage: ${programName} ${word} VERB [arguments] [options]`,
    rows(
      members.map(verb => [verb.path.join(' '), verb.summary]),
      columns,
    ).join('\n'),
    ...section('Examples', examplesOf(members)),
    ...[...notes].map(each => notesText(each, columns)),
    exitStatus(columns),
  ].join('\n\n')
}

/** What `roundhouse help SET` prints. */
export function commandHelp(command: Command): string {
  return [
    `Usage: ${programName} run ${`${command.name} ${command.usage}`.trim()}`,
    command.summary,
    `A ${command.access}; ${keysText[command.keys]}.`,
  ].join('\n\n')
}

const keysText: Readonly<Record<Command['keys'], string>> = {
  none: 'it has no key and any node answers it',
  first: 'its first argument is the key',
  pair: 'its first two arguments are keys, which must be in one slot: {tag}a and {tag}b are',
  all: 'all its arguments are keys; over several shards each shard’s part is atomic, the whole is not',
  alternate:
    'every other argument is a key; over several shards each shard’s part is atomic, the whole is not',
  'every-shard': 'it asks every shard',
  'shard-by-shard': 'it goes from shard to shard',
}

/** All commands by family: which one a command belongs to is the letter or the place that Redis gave it. */
export function commandList(columns: number): string {
  const names = [...commands.values()].filter(each => each.isInternal !== true)
  const families = new Map<string, string[]>()
  for (const command of names) {
    const family = familyOf(command)
    families.set(family, [...(families.get(family) ?? []), command.name])
  }
  const list = [...families].map(([family, members]): readonly [string, string] => [
    family,
    members.join(' '),
  ])
  return `Commands (${programName} help NAME tells more of one):\n${rows(list, columns).join('\n')}`
}

/** All commands with what they do. */
export function commandSummaries(columns: number): string {
  const families = new Map<string, (readonly [string, string])[]>()
  for (const command of commands.values()) {
    if (command.isInternal === true) continue
    const family = familyOf(command)
    families.set(family, [...(families.get(family) ?? []), [command.name, command.summary]])
  }
  return [...families]
    .map(([family, members]) => [`${family}:`, ...rows(members, columns)].join('\n'))
    .join('\n\n')
}

const stringCommands = ['SET', 'GET', 'GETDEL', 'MSET', 'MGET', 'APPEND', 'STRLEN']

function familyOf({ name, keys }: Command): string {
  if (keys === 'none') return 'Connection'
  if (stringCommands.includes(name) || /^(INCR|DECR)/.test(name)) return 'Strings'
  if (/^H/.test(name)) return 'Hashes'
  if (/^[LR](PUSH|POP|LEN|RANGE|INDEX|SET|TRIM|REM)$/.test(name)) return 'Lists'
  if (/^(SADD|SREM|SMEMBERS|SISMEMBER|SCARD|SSCAN)$/.test(name)) return 'Sets'
  if (/^Z/.test(name)) return 'Sorted sets'
  if (/^STREAM\./.test(name)) return 'Streams'
  if (/^GROUP\./.test(name)) return 'Consumer groups'
  return 'Keys'
}

/**
 * The page that `words` name: nothing → the overview, a verb, a group of verbs, `commands`, or a command. What is written
 * as a verb is one; SET is the command, set the verb. Throws UsageError.
 */
export function topicHelp(words: readonly string[], verbs: readonly Verb[], columns: number): string {
  const [first] = words
  if (first === undefined) return overview(verbs, columns)
  const verb = verbs.find(each => each.path.join(' ') === words.join(' '))
  if (verb !== undefined) {
    const command = commands.get(first.toUpperCase())
    const page = verbHelp(verb, columns)
    return command === undefined || words.length > 1
      ? page
      : `${page}\n\nThe command behind it: ${programName} help ${command.name}`
  }
  if (words.length === 1) {
    if (verbs.some(each => each.path.length > 1 && each.path[0] === first))
      return groupHelp(first, verbs, columns)
    if (first.toLowerCase() === 'commands') return commandSummaries(columns)
    const command = commands.get(first.toUpperCase())
    if (command !== undefined && command.isInternal !== true) return commandHelp(command)
  }
  const known = [...verbs.map(each => each.path.join(' ')), 'commands', ...commands.keys()]
  throw new UsageError([`no help on ${JSON.stringify(words.join(' '))}${suggest(words.join(' '), known)}`])
}

// --- Parts ----------------------------------------------------------------------------------------------------------

export function usageOf(verb: Verb): string {
  const hasOptions = Object.keys(verb.options ?? {}).length > 0
  return [
    programName,
    ...verb.path,
    ...(verb.positionals ?? []).map(label),
    ...(hasOptions ? ['[options]'] : []),
  ].join(' ')
}

/** `: did you mean …?`, or nothing. Letter case is no mistake of its own. */
export function suggest(word: string, known: readonly string[], prefix = ''): string {
  const byLower = new Map(known.map(each => [each.toLowerCase(), each]))
  const meant = known.includes(word) ? word : nearest(word.toLowerCase(), [...byLower.keys()])
  return meant === null ? '' : `: did you mean ${prefix}${byLower.get(meant) ?? meant}?`
}

/** Of a terminal that does not know its width (0) it is what terminals have had for ever. */
export function pageColumns(columns: number): number {
  return Math.max(columnsMin, Math.min(columns === 0 ? 80 : columns, columnsMax))
}

function label({ name, kind, choices }: Positional): string {
  if (kind === 'many') return `[${name}...]`
  const words = choices?.join('|') ?? name
  return kind === 'required' ? words : `[${words}]`
}

function optionRow([name, spec]: readonly [string, OptionSpec]): readonly [string, string] {
  const letter = spec.alias === undefined ? '    ' : `-${spec.alias}, `
  const value =
    spec.kind === 'boolean'
      ? ''
      : spec.choices !== undefined
        ? ` ${spec.choices.join('|')}`
        : ` ${valueWord(spec)}`
  const fallback = spec.fallback === undefined ? '' : ` [default: ${spec.fallback}]`
  return [`${letter}--${name}${value}`, `${spec.describe}${fallback}`]
}

function valueWord(spec: OptionSpec): string {
  return spec.isFile === true ? 'FILE' : 'VALUE'
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [[`${title}:`, ...lines].join('\n')]
}

function examplesOf(verbs: readonly Verb[]): string[] {
  return verbs
    .flatMap(verb => verb.examples ?? [])
    .map(([line, meaning]) => `  ${programName} ${line}\n      ${meaning}`)
}

/** Lines that begin with a space are figures and stay as they are. */
function notesText(notes: string, columns: number): string {
  return notes
    .split('\n')
    .flatMap(line => (line === '' || line.startsWith(' ') ? [line] : wrap(line, columns)))
    .join('\n')
}

function exitStatus(columns: number): string {
  return wrap(`Exit status: ${exitCodesText}.`, columns).join('\n')
}

/** Two columns, the second wrapped; a first one that is too long has a line of its own. */
function rows(pairs: readonly (readonly [string, string])[], columns: number): string[] {
  const firstMax = Math.min(34, Math.floor(columns / 2.5))
  const width = Math.max(0, ...pairs.map(([first]) => first.length).filter(length => length <= firstMax))
  return pairs.flatMap(([first, second]) => {
    const lines = wrap(second, columns - width - 4)
    const isLong = first.length > width
    const rest = isLong ? lines : lines.slice(1)
    return [
      ...(isLong ? [`  ${first}`] : [`  ${first.padEnd(width)}  ${lines[0] ?? ''}`.trimEnd()]),
      ...rest.map(line => `${' '.repeat(width + 4)}${line}`),
    ]
  })
}

function wrap(text: string, columns: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return line === '' ? lines : [...lines, line]
}
