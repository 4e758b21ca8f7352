/** `getservers --addr`, as the seeds print it. */
import { connectionOptions, outputOption } from './connection.ts'
import { printJson } from './print.ts'
import type { Verb } from './shell.ts'
import { integerOf, withNodes } from './streams.ts'

export const getServersVerb: Verb = {
  path: ['getservers'],
  summary: 'The nodes with their addresses, and which one leads a partition',
  group: 'streams',
  options: {
    addr: { kind: 'list', describe: 'Another name of --node' },
    stream: { kind: 'text', describe: 'Whose leader', fallback: 'default' },
    partition: { kind: 'text', describe: 'Which of its partitions', fallback: '0' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [['getservers --addr 127.0.0.1:8081', 'of partition 0 of the stream default']],
  run: (input, shell) => {
    const { addr, stream = '', partition = '0' } = input.options
    const asked = addr === undefined ? input : { ...input, options: { ...input.options, node: addr } }
    return withNodes(asked, shell, async nodes => {
      const request = { stream: String(stream), partition: integerOf(partition, '--partition', 0, 1023) }
      const { servers } = await nodes.call('read', (call, { log }) => call(log.getServers.bind(log), request))
      if (input.options.output === 'json') {
        printJson(
          shell.stdout,
          servers.map(({ id, rpcAddr, isLeader }) => ({ id, rpc_addr: rpcAddr, is_leader: isLeader })),
        )
        return
      }
      shell.stdout.write('servers:\n')
      for (const { id, rpcAddr, isLeader } of servers)
        shell.stdout.write(`\t- id:"${id}" rpc_addr:"${rpcAddr}"${isLeader ? ' is_leader:true' : ''}\n`)
    })
  },
}
