import { createInterface } from 'node:readline/promises'
import { colorsFor } from './colors.ts'
import { outputOption } from './connection.ts'
import { printJson, table } from './print.ts'
import { exitCodes, type Shell, UsageError, type Verb } from './shell.ts'

/** What a stopped node's directory holds of groups whose majority may be lost. */
export interface Survivors {
  readonly nodeId: string
  readonly clusterId: string
  /** Nodes that the directory's replicas know, without its own. */
  readonly known: readonly string[]
  readonly groups: readonly SurvivingGroup[]
  /** Makes every replica that is `forced` its group's only voter, durably. */
  force(): Promise<void>
  close(): Promise<void>
}

export type SurvivingGroup = {
  readonly group: number | null
  readonly isMeta: boolean
  readonly replica: number
  readonly lastIndex: number
  readonly term: number
  /** As far as this replica knew. */
  readonly commit: number
} & (
  | { readonly kind: 'healthy' }
  | { readonly kind: 'forced'; readonly lost: readonly string[] }
  | { readonly kind: 'others'; readonly nodes: readonly string[] }
  | { readonly kind: 'unusable'; readonly why: string }
)

/** `wins`: also where voters are left on other nodes. Throws DATA_DIR and what the journal and the state refuse with. */
export type OpenSurvivors = (path: string, lost: ReadonlySet<string>, wins: boolean) => Promise<Survivors>

export function recoverVerb(open: OpenSurvivors): Verb {
  return {
    path: ['recover'],
    summary: 'Make a stopped node go on alone with what it has, when the majority is lost for good',
    options: {
      unsafe: { kind: 'boolean', describe: 'You know that acknowledged writes may be lost' },
      'data-dir': { kind: 'text', describe: 'Of a node that is stopped' },
      lost: { kind: 'list', describe: 'Nodes that will never come back: node2,node3' },
      'this-node-wins': {
        kind: 'boolean',
        describe: 'Also for groups that have voters left on other nodes: what is here counts, theirs is lost',
      },
      yes: { kind: 'boolean', describe: 'Do not ask' },
      ...outputOption,
    },
    examples: [
      ['recover --unsafe --data-dir data/node1 --lost node2,node3', 'shows what would happen, then asks'],
    ],
    notes: `Last resort. As long as the lost nodes' disks may come back, bring them back instead.
Afterwards start the node, and replace or let go the lost ones: roundhouse replace node2 node2.
Never start a lost node again with its old directory: it does not know that it was given up.`,
    async run(input, shell) {
      const { unsafe, yes, output } = input.options
      // Text, or a list where it was repeated.
      const lost = [input.options.lost ?? []].flat().flatMap(each => String(each).split(','))
      const path = input.options['data-dir']
      const isJson = output === 'json'
      const missing = [
        ...(unsafe === true ? [] : ['--unsafe: say that acknowledged writes may be lost']),
        ...(typeof path === 'string' && path !== '' ? [] : ['--data-dir: the directory of a stopped node']),
        ...(lost.length > 0 ? [] : ['--lost: the nodes that will never come back']),
      ]
      if (missing.length > 0) throw new UsageError(missing)
      const names = new Set(lost.map(each => each.trim()).filter(each => each !== ''))
      const survivors = await open(path as string, names, input.options['this-node-wins'] === true)
      try {
        const unknown = [...names].filter(name => !survivors.known.includes(name))
        if (unknown.length > 0)
          throw new UsageError([
            `--lost: ${unknown.join(', ')} is not known here; accepted: ${survivors.known.join(', ') || 'none, this node stands alone already'}`,
          ])
        const forced = survivors.groups.filter(group => group.kind === 'forced')
        if (!isJson) shell.stdout.write(describe(survivors, shell))
        const goesOn = forced.length > 0 && (yes === true || (await confirmed(survivors.nodeId, shell)))
        if (goesOn) await survivors.force()
        if (isJson) printJson(shell.stdout, jsonOf(survivors, goesOn))
        else if (forced.length === 0) shell.stdout.write('nothing to force\n')
        else if (goesOn)
          shell.stdout.write(`done: start ${survivors.nodeId}, then replace ${[...names].join(', ')}\n`)
        else shell.stdout.write('nothing was changed\n')
        return forced.length === 0 || goesOn ? exitCodes.done : exitCodes.failed
      } finally {
        await survivors.close()
      }
    },
  }
}

function describe({ nodeId, clusterId, groups }: Survivors, shell: Shell): string {
  const rows = groups.map(group => [
    group.isMeta ? 'meta' : String(group.group ?? '?'),
    String(group.replica),
    String(group.term),
    String(group.lastIndex),
    String(Math.max(0, group.lastIndex - group.commit)),
    whatHappens(group),
  ])
  const head = ['SHARD', 'REPLICA', 'TERM', 'LAST ENTRY', 'UNSURE', 'WHAT HAPPENS']
  const count = groups.filter(group => group.kind === 'forced').length
  return `${nodeId} of cluster ${clusterId}

${table(colorsFor(shell.stdout, shell.env), head, rows)}

What may be lost: every write to these ${count} shards that was acknowledged by the lost nodes and never reached ${nodeId}.
What may be gained: entries that are UNSURE here (not known to be committed) will count, acknowledged or not.
`
}

function whatHappens(group: SurvivingGroup): string {
  switch (group.kind) {
    case 'healthy':
      return 'nothing: enough voters are left'
    case 'forced':
      return `becomes the only voter; lost: ${group.lost.join(', ')}`
    case 'others':
      return `nothing: voters are left on ${group.nodes.join(', ')}; recover there, or --this-node-wins`
    case 'unusable':
      return `nothing: not usable, ${group.why}`
  }
}

/** Typing a word is harder to do by mistake than pressing a key. */
async function confirmed(nodeId: string, shell: Shell): Promise<boolean> {
  if (!process.stdin.isTTY || !shell.stdout.isTerminal)
    throw new UsageError(['there is no terminal to ask at: --yes goes on without asking'])
  const prompt = createInterface({ input: process.stdin, output: process.stdout })
  try {
    const answer = await prompt.question(`Type ${nodeId} to go on: `, { signal: shell.signal })
    return answer.trim() === nodeId
  } finally {
    prompt.close()
  }
}

function jsonOf({ nodeId, clusterId, groups }: Survivors, isDone: boolean): Record<string, unknown> {
  return {
    node_id: nodeId,
    cluster_id: clusterId,
    forced: isDone,
    shards: groups.map(group => ({
      shard: group.isMeta ? 'meta' : group.group,
      replica: group.replica,
      term: group.term,
      last_index: group.lastIndex,
      commit: group.commit,
      action: group.kind,
      ...(group.kind === 'forced' ? { lost: group.lost } : {}),
      ...(group.kind === 'others' ? { voters_on: group.nodes } : {}),
      ...(group.kind === 'unusable' ? { why: group.why } : {}),
    })),
  }
}
