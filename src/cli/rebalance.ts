import type { StatusResponse } from '../gen/roundhouse/v1/admin.ts'
import { fetchStatus, rebalance } from './calls.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson } from './print.ts'
import { detailOf, Progress } from './progress.ts'
import { exitCodes, pause, type Shell, type Verb } from './shell.ts'
import { rebalanceJson, rebalanceText } from './status-view.ts'

const watchMs = 500
/** A new node is a member before the plan counts it: idle must last for this long, or the replicas lie evenly. */
const settledMs = 4_000

export const rebalanceVerb: Verb = {
  path: ['rebalance'],
  summary: 'Show, watch, pause or resume the moving of replicas',
  positionals: [
    {
      name: 'action',
      kind: 'optional',
      describe: 'show (as without), pause or resume',
      choices: ['show', 'pause', 'resume'],
    },
  ],
  options: {
    watch: { kind: 'boolean', alias: 'w', describe: 'A progress bar until the cluster is balanced' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['rebalance --watch', 'after dev add-node'],
    ['rebalance pause', 'moves under way are finished, no new one begins'],
  ],
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    const isJson = input.options.output === 'json'
    try {
      const action = (input.positionals[0] ?? 'show') as 'show' | 'pause' | 'resume'
      if (action !== 'show' || input.options.watch !== true) {
        const state = await rebalance(nodes, action)
        if (isJson) printJson(shell.stdout, rebalanceJson(state))
        else shell.stdout.write(`${rebalanceText(colorsFor(shell.stdout, shell.env), state)}\n`)
      }
      if (input.options.watch !== true) return exitCodes.done
      return await watchRebalance(nodes, isJson, shell)
    } finally {
      nodes.close()
    }
  },
}

/** Shows the bar until nothing is to be moved, and `isReady` too, where it is given. */
export async function watchRebalance(
  nodes: Nodes,
  isJson: boolean,
  shell: Shell,
  isReady: (status: StatusResponse) => boolean = () => true,
): Promise<number> {
  const progress = new Progress(shell.stdout, 'rebalance')
  let idleSince: number | null = null
  let last = ''
  try {
    while (!shell.signal.aborted) {
      const status = await fetchStatus(nodes)
      const state = status.rebalance
      if (state === undefined) throw new Error(`${nodes.address} answered without a rebalance status`)
      const line = JSON.stringify(rebalanceJson(state))
      if (isJson && line !== last) shell.stdout.write(`${line}\n`)
      last = line
      const hasNothing = state.state === 'idle' || (state.state === 'paused' && state.movesTotal === 0)
      const isIdle = hasNothing && isQuiet(status) && isReady(status)
      idleSince = isIdle ? (idleSince ?? Date.now()) : null
      if (!isJson && !hasNothing) {
        progress.show({ done: state.movesDone, total: state.movesTotal, detail: detailOf(state) })
      }
      if (idleSince !== null && (isEven(status) || Date.now() - idleSince >= settledMs)) {
        progress.stop()
        const paused = state.state === 'paused' ? ' (and moves are paused)' : ''
        if (!isJson) shell.stdout.write(`balanced: nothing to move${paused}\n`)
        return exitCodes.done
      }
      await pause(watchMs, shell.signal)
    }
    return exitCodes.done
  } finally {
    progress.stop()
  }
}

/** Nobody is on the way in or out. */
function isQuiet(status: StatusResponse): boolean {
  return status.nodes.every(node => node.state !== 'joining' && node.state !== 'leaving')
}

/** Every node holds its share or less, within the bound of the placement, for nodes of one weight. */
function isEven(status: StatusResponse): boolean {
  const members = status.nodes.filter(node => node.state !== 'left')
  const mean = members.reduce((sum, node) => sum + node.replicas, 0) / members.length
  return members.every(node => node.replicas <= Math.max(Math.ceil(mean), Math.floor(1.1 * mean)))
}
