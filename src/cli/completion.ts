/**
 * Completion for bash, zsh and fish: three scripts written from one table, the verbs' descriptions. Everything is in the
 * script, so that Tab starts no process; a new version prints a new script.
 *
 * Each script finds the verb (one word or two, options and their values stepped over), then offers, in this order: the
 * values of the option before the cursor, options where a dash is typed, what the argument at this place may be.
 */
import { commands } from '../commands/table.ts'
import { programName } from './help.ts'
import { exitCodes, type OptionSpec, type Positional, type Verb } from './shell.ts'

const shells = ['bash', 'zsh', 'fish'] as const
type ShellName = (typeof shells)[number]

/** `verbs`: all of them, this one included. */
export function completionVerb(verbs: () => readonly Verb[]): Verb {
  return {
    path: ['completion'],
    group: 'tools',
    summary: 'Print a script that completes verbs, options and commands in a shell',
    positionals: [{ name: 'shell', kind: 'required', describe: 'bash, zsh or fish', choices: shells }],
    examples: [
      ['completion bash >> ~/.bashrc', 'or: source <(roundhouse completion bash)'],
      ['completion zsh >> ~/.zshrc', 'after compinit; or into a file _roundhouse on the fpath'],
      ['completion fish > ~/.config/fish/completions/roundhouse.fish', 'works at once'],
    ],
    notes: 'The scripts complete "roundhouse"; with npx alone, first: alias roundhouse="npx roundhouse".',
    async run(input, shell) {
      shell.stdout.write(completionScript(input.positionals[0] as ShellName, verbs()))
      return exitCodes.done
    },
  }
}

export function completionScript(shell: ShellName, verbs: readonly Verb[]): string {
  const table = tableOf(verbs)
  return shell === 'bash' ? bashScript(table) : shell === 'zsh' ? zshScript(table) : fishScript(table)
}

// --- The table ------------------------------------------------------------------------------------------------------

export interface CompletionTable {
  readonly verbs: readonly VerbRow[]
  /** First words of verbs that have two. */
  readonly groups: readonly string[]
  /** First words of all. */
  readonly first: readonly string[]
  /** Every spelling of an option that takes a value, whatever verb it belongs to. */
  readonly withValue: readonly string[]
  readonly commands: readonly string[]
  readonly topics: readonly string[]
}

interface VerbRow {
  /** `dev start`. */
  readonly name: string
  readonly summary: string
  readonly options: readonly OptionRow[]
  readonly positionals: readonly Positional[]
}

interface OptionRow {
  readonly long: string
  readonly letter: string | null
  readonly takesValue: boolean
  readonly spec: OptionSpec
}

export function tableOf(verbs: readonly Verb[]): CompletionTable {
  const rows = verbs.map(verb => ({
    name: verb.path.join(' '),
    summary: verb.summary,
    positionals: verb.positionals ?? [],
    options: Object.entries({ ...verb.options, help: helpOption })
      .filter(([, spec]) => spec.isHidden !== true)
      .map(([long, spec]) => ({
        long,
        letter: spec.alias ?? null,
        takesValue: spec.kind !== 'boolean',
        spec,
      })),
  }))
  const withValue = rows.flatMap(row => row.options.filter(option => option.takesValue).flatMap(spellings))
  const names = [...commands.values()].filter(each => each.isInternal !== true).map(each => each.name)
  return {
    verbs: rows,
    groups: [...new Set(verbs.filter(each => each.path.length > 1).map(each => each.path[0]!))],
    first: [...new Set(verbs.map(each => each.path[0]!))],
    withValue: [...new Set(withValue)],
    commands: names,
    topics: [...new Set([...verbs.map(each => each.path[0]!), 'commands']), ...names],
  }
}

const helpOption: OptionSpec = { kind: 'boolean', alias: 'h', describe: 'Help on this verb' }

function spellings({ long, letter }: OptionRow): string[] {
  return [`--${long}`, ...(letter === null ? [] : [`-${letter}`])]
}

type Offer =
  | { readonly kind: 'files' }
  | { readonly kind: 'words'; readonly words: readonly string[]; readonly isUpper: boolean }

/** null: anything may stand here. */
export function offerOf(table: CompletionTable, { choices, offers }: Positional): Offer | null {
  if (choices !== undefined) return { kind: 'words', words: choices, isUpper: false }
  if (offers === 'files') return { kind: 'files' }
  if (offers === 'commands') return { kind: 'words', words: table.commands, isUpper: true }
  if (offers === 'topics') return { kind: 'words', words: table.topics, isUpper: true }
  return null
}

// --- bash (3.2, as on macOS, does) -------------------------------------------------------------------------------------

function bashScript(table: CompletionTable): string {
  const values = valueCases(table, bashOffer)
  return `# bash completion of ${programName}; written by "${programName} completion bash"
_${programName}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} verb='' value='' word i place=0 isPlain=''
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ -n $value ]]; then value=''; continue; fi
    if [[ -z $isPlain && $word == -* ]]; then
      case $word in
        --) isPlain=1 ;;
        ${table.withValue.join('|')}) value=$word ;;
      esac
      continue
    fi
    if [[ -z $verb ]]; then verb=$word; continue; fi
    case $verb in
      ${table.groups.join('|')}) verb="$verb $word" ;;
      *) place=$((place + 1)) ;;
    esac
  done
  if [[ -n $value ]]; then
    case "$verb:$value" in
${values}
    esac
    return
  fi
  if [[ -z $isPlain && $cur == -* ]]; then
    case $verb in
${table.verbs
  .map(
    verb =>
      `      ${quote(verb.name)}) _${programName}_words ${quote(verb.options.map(each => `--${each.long}`).join(' '))} ;;`,
  )
  .join('\n')}
    esac
    return
  fi
  case "$verb:$place" in
    :0) _${programName}_words ${quote(table.first.join(' '))} ;;
${table.groups.map(group => `    ${group}:0) _${programName}_words ${quote(secondWords(table, group).join(' '))} ;;`).join('\n')}
${placeCases(table, bashOffer)}
  esac
}
# Commands are found in either case.
_${programName}_words() {
  if [[ $2 == upper && $cur == [a-z]* ]]; then
    COMPREPLY=($(compgen -W "$(printf '%s' "$1" | tr '[:upper:]' '[:lower:]')" -- "$cur"))
  else
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
  fi
}
complete -o bashdefault -F _${programName} ${programName}
`
}

function bashOffer(offer: Offer): string {
  if (offer.kind === 'files') return 'COMPREPLY=($(compgen -f -- "$cur"))'
  return `_${programName}_words ${quote(offer.words.join(' '))}${offer.isUpper ? ' upper' : ''}`
}

function secondWords(table: CompletionTable, group: string): string[] {
  return table.verbs.flatMap(({ name }) =>
    name.startsWith(`${group} `) ? [name.slice(group.length + 1)] : [],
  )
}

/** `'set:--file') … ;;` for every option of whose values something is known. */
function valueCases(table: CompletionTable, write: (offer: Offer) => string): string {
  const cases = table.verbs.flatMap(verb =>
    verb.options.flatMap(option => {
      const { choices, isFile } = option.spec
      if (choices === undefined && isFile !== true) return []
      const patterns = spellings(option)
        .map(each => quote(`${verb.name}:${each}`))
        .join('|')
      const offer: Offer =
        choices === undefined ? { kind: 'files' } : { kind: 'words', words: choices, isUpper: false }
      return [`      ${patterns}) ${write(offer)} ;;`]
    }),
  )
  return cases.join('\n')
}

/** `'run:0') … ;;` for every argument that something is known of; the last takes all places where it is many. */
function placeCases(table: CompletionTable, write: (offer: Offer) => string): string {
  const cases = table.verbs.flatMap(verb =>
    verb.positionals.flatMap((positional, place) => {
      const offer = offerOf(table, positional)
      if (offer === null) return []
      const pattern =
        positional.kind === 'many' ? `${quote(`${verb.name}:`)}*` : quote(`${verb.name}:${place}`)
      return [`    ${pattern}) ${write(offer)} ;;`]
    }),
  )
  return cases.join('\n')
}

// --- zsh ------------------------------------------------------------------------------------------------------------

function zshScript(table: CompletionTable): string {
  const described = (pairs: readonly (readonly [string, string])[]) =>
    pairs.map(([word, text]) => quote(`${word.replaceAll(':', '\\:')}:${text}`)).join(' ')
  const firstWords = table.first.map((word): readonly [string, string] => {
    const own = table.verbs.find(verb => verb.name === word)
    return [word, own?.summary ?? secondWords(table, word).join(', ')]
  })
  return `#compdef ${programName}
# zsh completion of ${programName}; written by "${programName} completion zsh"
_${programName}() {
  local cur=\${words[CURRENT]} verb='' value='' word isPlain=''
  local -i i place=0
  local -a offers
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
    if [[ -n $value ]]; then value=''; continue; fi
    if [[ -z $isPlain && $word == -* ]]; then
      case $word in
        (--) isPlain=1 ;;
        (${table.withValue.join('|')}) value=$word ;;
      esac
      continue
    fi
    if [[ -z $verb ]]; then verb=$word; continue; fi
    case $verb in
      (${table.groups.join('|')}) verb="$verb $word" ;;
      (*) place+=1 ;;
    esac
  done
  if [[ -n $value ]]; then
    case "$verb:$value" in
${valueCases(table, zshOffer)}
    esac
    return
  fi
  if [[ -z $isPlain && $cur == -* ]]; then
    case $verb in
${table.verbs
  .map(verb => {
    const options = verb.options.map((each): readonly [string, string] => [
      `--${each.long}`,
      each.spec.describe,
    ])
    return `      ${quote(verb.name)}) offers=(${described(options)}) ;;`
  })
  .join('\n')}
    esac
    _describe -o option offers
    return
  fi
  case "$verb:$place" in
    :0) offers=(${described(firstWords)}); _describe verb offers ;;
${table.groups
  .map(group => {
    const pairs = secondWords(table, group).map((word): readonly [string, string] => [
      word,
      table.verbs.find(verb => verb.name === `${group} ${word}`)!.summary,
    ])
    return `    ${group}:0) offers=(${described(pairs)}); _describe verb offers ;;`
  })
  .join('\n')}
${placeCases(table, zshOffer)}
  esac
}
if [[ $funcstack[1] == _${programName} ]]; then _${programName} "$@"; else compdef _${programName} ${programName}; fi
`
}

function zshOffer(offer: Offer): string {
  if (offer.kind === 'files') return '_files'
  const match = offer.isUpper ? "-M 'm:{a-z}={A-Z}' " : ''
  return `compadd ${match}-- ${offer.words.join(' ')}`
}

// --- fish -----------------------------------------------------------------------------------------------------------

function fishScript(table: CompletionTable): string {
  const at = (verb: string, place: string) =>
    `-n ${quote(`__${programName}_at ${quoteInner(verb)} ${place}`)}`
  const line = (rest: string) => `complete -c ${programName} ${rest}`
  const lines = [
    line('-f'),
    ...table.first.map(word => {
      const own = table.verbs.find(verb => verb.name === word)
      return line(
        `${at('', '0')} -a ${word} -d ${fishQuote(own?.summary ?? secondWords(table, word).join(', '))}`,
      )
    }),
    ...table.groups.flatMap(group =>
      secondWords(table, group).map(word => {
        const { summary } = table.verbs.find(verb => verb.name === `${group} ${word}`)!
        return line(`${at(group, '0')} -a ${word} -d ${fishQuote(summary)}`)
      }),
    ),
    ...table.verbs.flatMap(verb => [
      ...verb.options.map(option => {
        const letter = option.letter === null ? '' : ` -s ${option.letter}`
        const { choices, isFile } = option.spec
        const value = !option.takesValue
          ? ''
          : choices !== undefined
            ? ` -x -a ${fishQuote(choices.join(' '))}`
            : isFile === true
              ? ' -r -F'
              : ' -x'
        return line(
          `${at(verb.name, 'any')} -l ${option.long}${letter}${value} -d ${fishQuote(option.spec.describe)}`,
        )
      }),
      ...verb.positionals.flatMap((positional, place) => {
        const offer = offerOf(table, positional)
        if (offer === null) return []
        const where = at(verb.name, positional.kind === 'many' ? 'any' : String(place))
        return [
          line(offer.kind === 'files' ? `${where} -F` : `${where} -a ${fishQuote(offer.words.join(' '))}`),
        ]
      }),
    ]),
  ]
  return `# fish completion of ${programName}; written by "${programName} completion fish"
# Whether the cursor is behind the verb $argv[1], at the place $argv[2] among its arguments.
function __${programName}_at
  set -l verb
  set -l place 0
  set -l value ''
  for word in (commandline -opc)[2..-1]
    if test -n "$value"
      set value ''
      continue
    end
    switch $word
      case ${table.withValue.join(' ')}
        set value $word
      case '-*'
      case '*'
        if test -z "$verb"
          set verb $word
        else if contains -- "$verb" ${table.groups.join(' ')}
          set verb "$verb $word"
        else
          set place (math $place + 1)
        end
    end
  end
  test "$verb" = "$argv[1]"; and test "$argv[2]" = any -o "$argv[2]" = "$place"
end
${lines.join('\n')}
`
}

/** For all three: in single quotes. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

/** Inside what will be quoted once more. */
function quoteInner(text: string): string {
  return `"${text}"`
}

/** In fish's single quotes backslashes escape. */
function fishQuote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
