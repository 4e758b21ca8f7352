import { runCommand } from './calls.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { jsonOf, printJson, printReply } from './print.ts'
import { exitCodes, type Verb } from './shell.ts'

export const getVerb: Verb = {
  path: ['get'],
  summary: 'Print the value of a key',
  group: 'data',
  positionals: [{ name: 'key', kind: 'required', describe: 'As it was stored' }],
  options: {
    raw: { kind: 'boolean', describe: 'The bytes alone, without a line break; 1 when the key is missing' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['get greeting', 'prints the value and a line break'],
    ['get photo --raw > photo.jpg', 'what set photo --file photo.jpg stored'],
    ['get greeting -o json', 'tells a missing key (null) from the text (nil)'],
  ],
  notes:
    'A missing key prints (nil) and ends with 0. Values go byte for byte to a pipe or a file; a terminal gets those in quotes that could steer it.',
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    try {
      const response = await runCommand(nodes, 'GET', input.positionals, 'read')
      if (input.options.output === 'json') {
        const value = response.response?.$case === 'value' ? jsonOf(response.response.value) : null
        printJson(shell.stdout, { key: input.positionals[0], value, revision: Number(response.revision) })
      } else if (input.options.raw === true) {
        if (response.response?.$case !== 'value') return exitCodes.failed
        shell.stdout.write(response.response.value)
      } else {
        printReply(shell.stdout, response)
      }
      return exitCodes.done
    } finally {
      nodes.close()
    }
  },
}
