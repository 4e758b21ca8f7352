import { runCommand } from './calls.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson, printReply, replyJson } from './print.ts'
import { exitCodes, type Verb } from './shell.ts'

export const setVerb: Verb = {
  path: ['set'],
  summary: 'Store a value under a key; done when it is on the disks of a majority',
  group: 'data',
  isWrite: true,
  positionals: [
    { name: 'key', kind: 'required', describe: 'Up to 1024 bytes' },
    { name: 'value', kind: 'required', describe: 'Up to 1 MiB' },
  ],
  options: {
    ex: { kind: 'text', describe: 'Expire after so many seconds' },
    px: { kind: 'text', describe: 'Expire after so many milliseconds' },
    nx: { kind: 'boolean', describe: 'Only if the key does not exist' },
    xx: { kind: 'boolean', describe: 'Only if the key exists' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['set greeting hello', 'prints OK'],
    ['set token x1y2 --ex 60', 'gone after a minute'],
    ['set -- -key -value', 'arguments that begin with a dash'],
  ],
  notes: 'Prints OK, or (nil) when --nx or --xx left the key as it was.',
  async run({ positionals, options }, shell) {
    const args = [...positionals]
    if (options.ex !== undefined) args.push('EX', String(options.ex))
    if (options.px !== undefined) args.push('PX', String(options.px))
    if (options.nx === true) args.push('NX')
    if (options.xx === true) args.push('XX')
    const nodes = Nodes.from({ positionals, options, mistakes: [] }, shell)
    try {
      const response = await runCommand(nodes, 'SET', args, 'write')
      if (options.output !== 'json') printReply(shell.stdout, response)
      else printJson(shell.stdout, { outcome: 'applied', ...replyJson(response) })
      return exitCodes.done
    } finally {
      nodes.close()
    }
  },
}
