import { readSettingsFile } from '../config/file.ts'
import { checkFile } from '../config.ts'
import { filesNote } from './config-show.ts'
import { outputOption } from './connection.ts'
import { printJson } from './print.ts'
import { exitCodes, type Verb } from './shell.ts'

export const configCheckVerb: Verb = {
  path: ['config', 'check'],
  summary: 'Look for mistakes in a file of settings: 0 if there are none, 78 if there are',
  group: 'node',
  positionals: [
    {
      name: 'FILE',
      kind: 'required',
      describe: 'ends in .yaml, .yml, .toml, .json or .env',
      offers: 'files',
    },
  ],
  options: outputOption,
  examples: [['config check node1.yaml', 'every mistake in it, with its line and what is accepted']],
  notes: filesNote,
  async run(input, shell) {
    const path = input.positionals[0]!
    const { mistakes, count } = checkFile(readSettingsFile(path)!)
    if (input.options.output === 'json') {
      printJson(shell.stdout, { file: path, ok: mistakes.length === 0, settings: count, mistakes })
    } else if (mistakes.length === 0) {
      shell.stdout.write(`${path}: ok, ${count} setting${count === 1 ? '' : 's'}\n`)
    } else {
      shell.stdout.write(`${mistakes.join('\n')}\n`)
    }
    return mistakes.length === 0 ? exitCodes.done : exitCodes.badConfig
  },
}
