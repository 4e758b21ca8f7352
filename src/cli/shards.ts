import { slotOf } from '../lib/slot.ts'
import { fetchStatus } from './calls.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson } from './print.ts'
import { exitCodes, type Verb } from './shell.ts'
import { shardJson, shardsTable } from './status-view.ts'

export const shardsVerb: Verb = {
  path: ['shards'],
  summary: 'List the shards: slots, leader, term, applied index, voters, learners',
  options: {
    key: { kind: 'text', alias: 'k', describe: 'Only the shard of this key, and the key’s slot' },
    leaderless: { kind: 'boolean', describe: 'Only shards without a leader; 1 when there are any' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['shards --key "{user1}:mail"', 'who leads the shard where a key lives'],
    ['shards --leaderless -o json', '[] when every shard has a leader'],
  ],
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    const { key, leaderless } = input.options
    try {
      const { shards } = await fetchStatus(nodes)
      const slot = key === undefined ? null : slotOf(Buffer.from(String(key)))
      const shown = shards.filter(
        shard =>
          (slot === null || (slot >= shard.slotFrom && slot < shard.slotTo)) &&
          (leaderless !== true || shard.leader === ''),
      )
      if (input.options.output === 'json') printJson(shell.stdout, shown.map(shardJson))
      else {
        if (slot !== null) shell.stdout.write(`slot ${slot}\n`)
        if (shown.length > 0)
          shell.stdout.write(`${shardsTable(colorsFor(shell.stdout, shell.env), shown)}\n`)
        else if (leaderless === true) shell.stdout.write('every shard has a leader\n')
      }
      return leaderless === true && shown.length > 0 ? exitCodes.failed : exitCodes.done
    } finally {
      nodes.close()
    }
  },
}
