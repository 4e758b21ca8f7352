import { formatDuration } from '../config/forms.ts'
import type { VerifyResponse } from '../gen/roundhouse/v1/admin.ts'
import { fetchStatus } from './calls.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson, table } from './print.ts'
import { Progress } from './progress.ts'
import { exitCodes, UsageError, type Verb } from './shell.ts'

const metaShard = 4096
/** Of a shard: a node waits half a minute for a replica that is late. */
const timeout = formatDuration(60_000)

export const verifyVerb: Verb = {
  path: ['verify'],
  summary: 'Compare the replicas of all shards, or of some; one that differs is quarantined and rebuilt',
  positionals: [{ name: 'shard', kind: 'many', describe: 'Numbers, or meta; all of them as without' }],
  options: {
    ...outputOption,
    ...connectionOptions,
    timeout: { kind: 'text', describe: 'How long to try each shard', fallback: timeout },
  },
  examples: [
    ['verify', 'one shard after another, with a bar'],
    ['verify 17 meta -o json', 'the digests of two of them'],
  ],
  notes: `The shards go on serving meanwhile. Ends with 0 when all replicas are equal, with 1 when some differ, with 75 when some did not answer. Every shard is verified once a day by itself (--verify-interval).`,
  async run(input, shell) {
    const options = { ...input.options, timeout: input.options.timeout ?? timeout }
    const nodes = Nodes.from({ ...input, options }, shell)
    const isJson = input.options.output === 'json'
    const progress = new Progress(shell.stdout, 'verify', 'shards')
    try {
      const { shards } = await fetchStatus(nodes)
      const wanted = input.positionals.map(each => (each === 'meta' ? metaShard : Number(each)))
      const strange = wanted.filter(each => each !== metaShard && !(each in shards))
      if (strange.length > 0 || wanted.some(each => !Number.isInteger(each)))
        throw new UsageError([`shard: accepted are 0 to ${shards.length - 1}, and meta`])
      const all = wanted.length > 0 ? wanted : [...shards.map(each => each.shardId), metaShard]
      const found: VerifyResponse[] = []
      for (const shardId of all) {
        if (shell.signal.aborted) break
        if (!isJson && shell.stdout.isTerminal)
          progress.show({ done: found.length, total: all.length, detail: '' })
        found.push(await nodes.call('read', (call, { admin }) => call(admin.verify.bind(admin), { shardId })))
      }
      progress.stop()
      if (isJson) printJson(shell.stdout, found.map(jsonOf))
      else shell.stdout.write(textOf(found, shell))
      if (found.some(each => each.verdict === 'differs')) return exitCodes.failed
      return found.some(each => each.verdict !== 'equal') ? exitCodes.tryAgain : exitCodes.done
    } finally {
      progress.stop()
      nodes.close()
    }
  },
}

const nameOf = (shard: number) => (shard === metaShard ? 'meta' : String(shard))

function textOf(found: readonly VerifyResponse[], shell: Parameters<Verb['run']>[1]): string {
  const troubled = found.filter(each => each.verdict !== 'equal')
  const rows = found
    .filter(each => each.verdict === 'equal')
    .reduce((sum, each) => sum + (each.replicas[0]?.rows ?? 0n), 0n)
  const equal = `${found.length - troubled.length} of ${found.length} shards: all replicas are equal, ${rows} rows\n`
  if (troubled.length === 0) return equal
  const lines = troubled.flatMap(({ shardId, index, replicas }) =>
    replicas.map(each => [
      nameOf(shardId),
      String(index),
      each.nodeId,
      String(each.replica),
      each.state,
      String(each.rows),
      each.digest === '' ? '-' : each.digest,
    ]),
  )
  const head = ['SHARD', 'ENTRY', 'NODE', 'REPLICA', 'STATE', 'ROWS', 'DIGEST']
  return `${equal}\n${table(colorsFor(shell.stdout, shell.env), head, lines)}\n
odd: differs from the majority, quarantined and rebuilt from the others
disputed: there is no majority; nothing was done, see docs/operations.md
silent: its node does not answer; waiting: it was too late; both are left out
`
}

function jsonOf({ shardId, index, verdict, replicas }: VerifyResponse): Record<string, unknown> {
  return {
    shard: shardId === metaShard ? 'meta' : shardId,
    index: Number(index),
    verdict,
    replicas: replicas.map(each => ({
      node_id: each.nodeId,
      replica: Number(each.replica),
      state: each.state,
      rows: Number(each.rows),
      digest: each.digest === '' ? null : each.digest,
    })),
  }
}
