import { fetchStatus } from './calls.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { watchLeaving } from './leave.ts'
import { watchRebalance } from './rebalance.ts'
import type { Verb } from './shell.ts'

export const replaceVerb: Verb = {
  path: ['replace'],
  summary: 'Give up a dead node whose disk or machine is lost, and rebuild its replicas',
  positionals: [
    { name: 'dead', kind: 'required', describe: 'The dead node, as status shows it' },
    {
      name: 'new',
      kind: 'required',
      describe: 'The same name, to come back with an empty directory; or a member that has joined for it',
    },
  ],
  options: { ...outputOption, ...connectionOptions },
  examples: [
    ['replace node2 node2', 'then start node2 with an empty directory: its replicas are rebuilt there'],
    ['replace node2 node4', 'node4 has joined: what node2 held goes there'],
  ],
  notes: 'What the dead node has on its disk never counts again. Ctrl-C stops watching, not replacing.',
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    const [dead, replacement] = [input.positionals[0]!, input.positionals[1]!]
    const isJson = input.options.output === 'json'
    try {
      const before = await fetchStatus(nodes)
      nodes.also(
        before.nodes
          .filter(each => each.nodeId !== dead && each.clientAddress !== '')
          .map(each => each.clientAddress),
      )
      const request = { nodeId: dead, replacement }
      await nodes.call('read', (call, { admin }) => call(admin.replace.bind(admin), request))
      if (dead !== replacement) {
        const replicas = before.nodes.find(each => each.nodeId === dead)?.replicas ?? 0
        return await watchLeaving(nodes, dead, replicas, isJson, shell)
      }
      if (!isJson) {
        shell.stdout.write(
          `what ${dead} had on its disk is given up: start ${dead} with an empty data directory now\n`,
        )
      }
      const isBack = (state: string | undefined) => state === 'alive'
      return await watchRebalance(nodes, isJson, shell, status =>
        isBack(status.nodes.find(each => each.nodeId === dead)?.state),
      )
    } finally {
      nodes.close()
    }
  },
}
