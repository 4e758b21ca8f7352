import { fetchStatus } from './calls.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson } from './print.ts'
import { detailOf, Progress } from './progress.ts'
import { exitCodes, pause, type Shell, type Verb } from './shell.ts'

const watchMs = 500

export const leaveVerb: Verb = {
  path: ['leave'],
  summary: 'Drain a node and let it go: its replicas move to the others first',
  positionals: [{ name: 'node', kind: 'required', describe: 'A node id, as status shows it' }],
  options: {
    'allow-under-replicated': {
      kind: 'boolean',
      describe: 'Also when too few nodes stay for the replication factor',
    },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [['leave node4', 'shows a bar until node4 is out; its process then ends with 0']],
  notes: 'Ctrl-C stops watching, not leaving.',
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    const node = input.positionals[0]!
    try {
      const before = await fetchStatus(nodes)
      // The one that leaves won't be there to say that it has left.
      nodes.also(
        before.nodes
          .filter(each => each.nodeId !== node && each.clientAddress !== '')
          .map(each => each.clientAddress),
      )
      const request = { nodeId: node, allowUnderReplicated: input.options['allow-under-replicated'] === true }
      await nodes.call('read', (call, { admin }) => call(admin.leave.bind(admin), request))
      const replicas = before.nodes.find(each => each.nodeId === node)?.replicas ?? 0
      return await watchLeaving(nodes, node, replicas, input.options.output === 'json', shell)
    } finally {
      nodes.close()
    }
  },
}

export async function watchLeaving(
  nodes: Nodes,
  node: string,
  replicas: number,
  isJson: boolean,
  shell: Shell,
): Promise<number> {
  const progress = new Progress(shell.stdout, `${node} leaves`)
  let total = replicas
  let last = ''
  try {
    while (!shell.signal.aborted) {
      const status = await fetchStatus(nodes)
      const leaver = status.nodes.find(each => each.nodeId === node)
      const left = leaver === undefined || leaver.state === 'left' ? 0 : leaver.replicas
      total = Math.max(total, left)
      const isOut = leaver === undefined || leaver.state === 'left'
      const line = JSON.stringify({
        node_id: node,
        state: leaver?.state ?? 'left',
        moved: total - left,
        total,
      })
      if (isJson && line !== last) shell.stdout.write(`${line}\n`)
      last = line
      if (!isJson) {
        const detail = isOut || status.rebalance === undefined ? '' : detailOf(status.rebalance)
        progress.show({ done: total - left, total, detail })
      }
      if (isOut) {
        progress.stop()
        if (!isJson) shell.stdout.write(`${node} has left\n`)
        return exitCodes.done
      }
      await pause(watchMs, shell.signal)
    }
    progress.stop()
    if (isJson) printJson(shell.stdout, { node_id: node, state: 'leaving', moved: null, total })
    else shell.stdout.write(`${node} goes on leaving: roundhouse status shows how far it is\n`)
    return exitCodes.done
  } finally {
    progress.stop()
  }
}
