import { fetchStatus } from './calls.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { exitCodes, pause, type Verb } from './shell.ts'
import { statusJson, statusText } from './status-view.ts'

const watchMs = 1_000
const clearScreen = '\x1b[H\x1b[2J'

export const statusVerb: Verb = {
  path: ['status'],
  summary: 'Show nodes, shards, leaders, replication and rebalancing',
  options: {
    shards: { kind: 'boolean', describe: 'Every shard on a line of its own' },
    watch: {
      kind: 'boolean',
      alias: 'w',
      describe: 'Again every second until Ctrl-C (in a pipe: on every change)',
    },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['status --shards', 'who leads and who votes, shard by shard'],
    ["status -o json | jq '.shards[] | select(.leader == null)'", 'shards without a leader'],
  ],
  notes: 'Works without a leader of the meta shard: nodes are then shown as gossip knows them.',
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    const isJson = input.options.output === 'json'
    const watch = input.options.watch === true
    const colors = colorsFor(shell.stdout, shell.env)
    let last = ''
    try {
      do {
        const status = await fetchStatus(nodes)
        const shown = isJson
          ? JSON.stringify(statusJson(status))
          : `${statusText(colors, status, input.options.shards === true)}${watch ? `\n\n${nodes.address} answered` : ''}`
        if (watch && !isJson && shell.stdout.isTerminal) shell.stdout.write(`${clearScreen}${shown}\n`)
        else if (shown !== last) shell.stdout.write(`${shown}\n`)
        last = shown
        if (watch) await pause(watchMs, shell.signal)
      } while (watch && !shell.signal.aborted)
      return exitCodes.done
    } catch (error) {
      if (watch && shell.signal.aborted) return exitCodes.done
      throw error
    } finally {
      nodes.close()
    }
  },
}
