import { RoundhouseError } from '../errors.ts'
import { outputOption } from './connection.ts'
import { ask, socketPath } from './dev-socket.ts'
import { dataOption } from './dev-start.ts'
import { printJson } from './print.ts'
import { exitCodes, type Verb } from './shell.ts'

export const devAddNodeVerb: Verb = {
  path: ['dev', 'add-node'],
  summary: 'Add a node to the cluster of a running npm start',
  group: 'node',
  options: { ...dataOption, ...outputOption },
  examples: [
    ['dev add-node', 'returns when the node is a member; "rebalance --watch" shows it taking its share'],
  ],
  async run(input, shell) {
    const dataDir = String(input.options.data ?? dataOption.data!.fallback)
    const isJson = input.options.output === 'json'
    const answer = await ask(
      socketPath(dataDir),
      { kind: 'add-node' },
      text => {
        if (!isJson) shell.stdout.write(`${text}\n`)
      },
      shell.signal,
    )
    if (answer === null) {
      throw new RoundhouseError('UNREACHABLE', {
        address: `a cluster in ${dataDir}/`,
        why: 'no "npm start" runs on that directory; start one, or name its directory with --data',
      })
    }
    if (answer.kind !== 'added')
      throw new Error(answer.kind === 'failed' ? answer.why : `not understood: ${answer.kind}`)
    if (isJson) printJson(shell.stdout, { node_id: answer.node, address: answer.address })
    else {
      shell.stdout.write(
        `${answer.node} is a member at ${answer.address}; "npx roundhouse rebalance --watch" shows it taking its share\n`,
      )
    }
    return exitCodes.done
  },
}
