import { runCommand, withSuggestion } from './calls.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson, printReply, replyJson } from './print.ts'
import { exitCodes, type Verb } from './shell.ts'

export const runVerb: Verb = {
  path: ['run'],
  summary: 'Run any command: SET, HGETALL, INCR, …',
  group: 'data',
  isWrite: true,
  positionals: [
    {
      name: 'command',
      kind: 'required',
      describe: 'One of those below; case does not matter',
      offers: 'commands',
    },
    { name: 'args', kind: 'many', describe: 'The key first, where the command has one' },
  ],
  options: { ...outputOption, ...connectionOptions },
  examples: [
    ['run HSET user name Ada', 'prints (integer) 1'],
    ['run HGETALL user', 'one line a field'],
    ['run INCRBY counter -- -5', 'arguments that begin with a dash go after --'],
  ],
  async run(input, shell) {
    const [command = '', ...args] = input.positionals
    const nodes = Nodes.from(input, shell)
    try {
      // What is a write is the cluster's to know; a session does no harm to a read.
      const response = await runCommand(nodes, command, args, 'write')
      if (input.options.output === 'json')
        printJson(shell.stdout, { outcome: 'applied', ...replyJson(response) })
      else printReply(shell.stdout, response)
      return exitCodes.done
    } catch (error) {
      throw withSuggestion(error, command)
    } finally {
      nodes.close()
    }
  },
}
