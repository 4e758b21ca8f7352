import { runCommand, withSuggestion } from './calls.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson, printReply, replyJson } from './print.ts'
import { placeLines, readLines, runAtomic } from './run-atomic.ts'
import { exitCodes, UsageError, type Verb } from './shell.ts'

export const runVerb: Verb = {
  path: ['run'],
  summary: 'Run any command: SET, HGETALL, INCR, …',
  group: 'data',
  isWrite: true,
  positionals: [
    {
      name: 'command',
      kind: 'optional',
      describe: 'One of those below; case does not matter',
      offers: 'commands',
    },
    { name: 'args', kind: 'many', describe: 'The key first, where the command has one' },
  ],
  options: {
    atomic: {
      kind: 'text',
      isFile: true,
      describe: 'Run the commands in a file, a line each, as one entry: all are applied or none',
    },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['run HSET user name Ada', 'prints (integer) 1'],
    ['run HGETALL user', 'one line a field'],
    ['run INCRBY counter -- -5', 'arguments that begin with a dash go after --'],
    ['run --atomic order.txt', 'keys of one hash tag: SET {u1}order 7 NX, PRODUCE orders{u1} "7 is new"'],
  ],
  async run(input, shell) {
    const [command = '', ...args] = input.positionals
    const { atomic } = input.options
    if ((command === '') === (atomic === undefined))
      throw new UsageError(['give a command, or a file of commands with --atomic FILE'])
    const lines = atomic === undefined ? null : readLines(String(atomic))
    const nodes = Nodes.from(input, shell)
    try {
      if (lines !== null) {
        const { responses, revision } = await runAtomic(nodes, await placeLines(nodes, lines))
        if (input.options.output === 'json')
          printJson(shell.stdout, {
            outcome: 'applied',
            revision: Number(revision),
            replies: responses.map(replyJson),
          })
        else for (const response of responses) printReply(shell.stdout, response)
        return exitCodes.done
      }
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
