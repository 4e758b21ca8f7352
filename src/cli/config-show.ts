import { type Origin, originText } from '../config/table.ts'
import { readFiles, type SettingRow, settingRows } from '../config.ts'
import { openFilesMax } from '../lib/open-files.ts'
import { connectionsWithin } from '../wire/grpc/options.ts'
import { colorsFor } from './colors.ts'
import { outputOption } from './connection.ts'
import { printJson, table } from './print.ts'
import { settingOptions } from './serve.ts'
import { exitCodes, type Verb } from './shell.ts'

export const filesNote = `Settings come from, the first that has one wins:
  1. flags            --message-timeout 2s
  2. variables        MESSAGE_TIMEOUT=2s
  3. .env             the same, in a file of that name in the working directory
  4. a file           named by --config-file or CONFIG_FILE; .yaml, .toml, .json or .env
  5. defaults
A key in a file is the flag's name with _ or -, such as message_timeout; in .env it is the variable.
Durations are 250ms, 10s, 1h30m; sizes 64KiB, 512MiB, 2GiB; lists have commas, or are lists.
An empty value is none. Unknown keys are refused; those in the working directory's .env may be other programs'.

  node_id: n1                      # n1.yaml
  host: 127.0.0.1
  port: 8081
  seed: [127.0.0.1:8082, 127.0.0.1:8083]
  message_timeout: 2s

All keys, with what is accepted: roundhouse config show, and roundhouse serve --help.`

export const configShowVerb: Verb = {
  path: ['config', 'show'],
  summary: 'Show every setting as serve would take it, and where its value comes from',
  group: 'node',
  collectsMistakes: true,
  options: { ...outputOption, ...settingOptions() },
  examples: [
    ['config show', 'from variables and .env'],
    ['config show --config-file node1.yaml --port 9000', 'takes what serve takes'],
    ['config show -o json', '{"port": {"value": 9000, "source": "flag", "name": "--port"}, …}'],
  ],
  notes: filesNote,
  async run(input, shell) {
    const { output = 'text', ...flags } = input.options
    const isOutputKnown = output === 'text' || output === 'json'
    const mistakes = isOutputKnown
      ? input.mistakes
      : ['--output: accepted are text and json', ...input.mistakes]
    const rows = settingRows(flags, shell.env, mistakes, readFiles(flags, shell.env, shell.directory))
    if (output === 'json') {
      printJson(shell.stdout, Object.fromEntries(rows.map(row => [row.key, jsonOf(row)])))
      return exitCodes.done
    }
    const colors = colorsFor(shell.stdout, shell.env)
    const lines = rows.map(({ key, text, origin }) => [
      key,
      text === '' ? '-' : text,
      origin === null ? 'default' : originText(origin),
    ])
    shell.stdout.write(`${table(colors, ['SETTING', 'VALUE', 'FROM'], lines)}\n`)
    shell.stdout.write(`${connectionsNote(openFilesMax())}\n`)
    return exitCodes.done
  },
}

/** Not a setting, and to be known before a node is started here. */
export function connectionsNote(openFiles: number | null): string {
  const max = connectionsWithin(openFiles)
  const open =
    openFiles === null ? 'without a limit of open files' : `with ${openFiles} open files (ulimit -Hn)`
  return `A node that is started here, ${open}, takes ${max} connections.`
}

function jsonOf({ value, origin }: SettingRow): Record<string, unknown> {
  return { value: value === '' ? null : value, ...sourceOf(origin) }
}

function sourceOf(origin: Origin | null): Record<string, unknown> {
  if (origin === null) return { source: 'default' }
  if (origin.kind !== 'file') return { source: origin.kind, name: origin.name }
  const { path, line, name } = origin
  return { source: 'file', name, file: path, ...(line === null ? {} : { line }) }
}
