import type { NodeStatus, StatsResponse } from '../gen/roundhouse/v1/admin.ts'
import { fetchStats, fetchStatus } from './calls.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { bytesText, printJson, secondsText, table } from './print.ts'
import { exitCodes, type Input, type Shell, type Verb } from './shell.ts'
import { nodeJson, stateText } from './status-view.ts'

/** A node that does not tell its figures in this time is shown without them. */
const statsMsMax = 2_000

export const nodesVerb: Verb = {
  path: ['nodes'],
  summary: 'List the nodes: state, zone, replicas, leaders, memory, processor time',
  options: { ...outputOption, ...connectionOptions },
  examples: [
    ['nodes', 'UP, CPU and MEMORY are - for a node that does not answer from here'],
    ['nodes -o json | jq -r \'.[] | select(.state == "alive") | .client_address\'', 'where to connect'],
  ],
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    try {
      const status = await fetchStatus(nodes)
      const all = await Promise.all(
        status.nodes.map(async node => ({ node, stats: await statsOf(node, input, shell) })),
      )
      if (input.options.output === 'json') {
        printJson(
          shell.stdout,
          all.map(({ node, stats }) => ({ ...nodeJson(node), ...statsJson(stats) })),
        )
        return exitCodes.done
      }
      const colors = colorsFor(shell.stdout, shell.env)
      const head = [
        'NODE',
        'CLIENTS',
        'PEERS',
        'STATE',
        'ZONE',
        'REPLICAS',
        'LEADERS',
        'LEVEL',
        'UP',
        'CPU',
        'MEMORY',
      ]
      const lines = all.map(({ node, stats }) => [
        node.nodeId,
        node.clientAddress,
        node.address,
        stateText(colors, node),
        node.zone === '' ? '-' : node.zone,
        node.replicas,
        node.leaders,
        // A node of an older release tells none.
        node.featureLevel === 0 ? '-' : node.featureLevel,
        ...(stats === null
          ? ['-', '-', '-']
          : [
              secondsText(Math.floor(stats.uptimeS)),
              secondsText(stats.cpuS),
              bytesText(Number(stats.rssBytes)),
            ]),
      ])
      shell.stdout.write(`${table(colors, head, lines)}\n`)
      return exitCodes.done
    } finally {
      nodes.close()
    }
  },
}

/** null: it does not answer. */
async function statsOf(node: NodeStatus, input: Input, shell: Shell): Promise<StatsResponse | null> {
  if (node.clientAddress === '' || node.state === 'left') return null
  const timeout = `${statsMsMax}ms`
  const only = Nodes.from(
    { ...input, options: { ...input.options, node: node.clientAddress, timeout } },
    shell,
  )
  try {
    const stats = await fetchStats(only)
    // Behind one address for several nodes another one may answer.
    return stats.nodeId === node.nodeId ? stats : null
  } catch {
    return null
  } finally {
    only.close()
  }
}

function statsJson(stats: StatsResponse | null): Record<string, unknown> {
  if (stats === null) return { uptime_s: null, cpu_s: null, rss_bytes: null }
  return { uptime_s: stats.uptimeS, cpu_s: stats.cpuS, rss_bytes: Number(stats.rssBytes) }
}
