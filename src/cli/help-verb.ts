import { pageColumns, topicHelp } from './help.ts'
import { exitCodes, type Verb } from './shell.ts'

/** `verbs`: all of them, this one included. */
export function helpVerb(verbs: () => readonly Verb[]): Verb {
  return {
    path: ['help'],
    group: 'tools',
    summary: 'Help on a verb or a command',
    positionals: [
      { name: 'topic', kind: 'many', describe: 'A verb, a command, or commands', offers: 'topics' },
    ],
    examples: [
      ['help SET', 'the command and its arguments'],
      ['help set', 'the verb'],
      ['help commands', 'all commands, with what they do'],
    ],
    async run(input, shell) {
      shell.stdout.write(`${topicHelp(input.positionals, verbs(), pageColumns(shell.stdout.columns))}\n`)
      return exitCodes.done
    },
  }
}
