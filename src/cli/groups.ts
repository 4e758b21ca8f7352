/** `stream groups`: who reads a stream in which group, how far, and how far behind; and setting that back or forth. */
import type { DescribedGroup } from '../commands/group-describe.ts'
import { RemoteError } from '../errors.ts'
import type { CommandResponse } from '../gen/clusterpb/cluster.ts'
import type { DescribeStreamResponse } from '../gen/roundhouse/v1/streams.ts'
import { runCommand, Session } from './calls.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, type Nodes, outputOption } from './connection.ts'
import { printJson, table } from './print.ts'
import { type Input, type Shell, UsageError, type Verb } from './shell.ts'
import { integerOf, streamOf, withNodes } from './streams.ts'

export const groupsVerb: Verb = {
  path: ['stream', 'groups'],
  summary: 'Consumer groups of a stream: members, committed offsets and lag; or reset them',
  group: 'streams',
  isWrite: true,
  positionals: [{ name: 'stream', kind: 'required', describe: 'Its name' }],
  options: {
    group: { kind: 'text', alias: 'g', describe: 'Only this one', elsewhere: ['group-id', 'name'] },
    reset: {
      kind: 'text',
      describe: 'Set its offsets of this stream: earliest, latest, an offset, or none to forget them',
      elsewhere: ['reset-offsets', 'to-offset', 'seek'],
    },
    partition: { kind: 'text', alias: 'p', describe: 'Reset only this partition' },
    force: { kind: 'boolean', describe: 'Reset though members read: they are taken out and join again' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['stream groups orders', 'all that read it, or did'],
    ['stream groups orders --group billing --reset earliest', 'from the beginning again'],
  ],
  notes:
    'LAG is how many records were not committed yet. A group without members keeps its offsets for 30 days.',
  run: (input, shell) =>
    withNodes(input, shell, async nodes => {
      const name = streamOf(input)
      const described = await nodes.call('read', (call, { streams }) =>
        call(streams.describe.bind(streams), { name }),
      )
      if (input.options.reset !== undefined) await reset(input, nodes, described)
      await show(input, shell, nodes, described)
    }),
}

/** The items of a list by key and value. */
export function pairsOf({ response }: CommandResponse): [key: string, value: string][] {
  if (response?.$case !== 'list') return []
  return response.value.list.map(({ key, value }) => [key ?? '', value?.toString() ?? ''])
}

async function reset(input: Input, nodes: Nodes, { stream, partitions }: DescribeStreamResponse) {
  const { group, partition, force } = input.options
  if (group === undefined) throw new UsageError(['--reset is for one group: name it with --group'])
  const to = String(input.options.reset)
  const only = partition === undefined ? null : integerOf(partition, '--partition', 0, partitions.length - 1)
  const offsets = partitions
    .filter(each => only === null || each.partition === only)
    .flatMap(({ partition, startOffset, endOffset, error }) => {
      if (error !== '') throw new Error(`partition ${partition} can't be asked where it ends: ${error}`)
      return [String(stream?.id), String(partition), offsetOf(to, startOffset, endOffset)]
    })
  const args = [String(group), ...(force === true ? ['FORCE'] : []), ...offsets]
  await runCommand(nodes, 'GROUP.RESET', args, 'write', new Session())
}

/** Throws UsageError. */
function offsetOf(to: string, start: bigint, end: bigint): string {
  if (to === 'earliest') return String(start)
  if (to === 'latest') return String(end)
  if (to === 'none') return 'NONE'
  const offset = BigInt(integerOf(to, '--reset (earliest, latest, none or)', 0, Number.MAX_SAFE_INTEGER))
  return String(offset < start ? start : offset > end ? end : offset)
}

async function show(
  input: Input,
  shell: Shell,
  nodes: Nodes,
  { stream, partitions }: DescribeStreamResponse,
) {
  const id = Number(stream?.id)
  const listed =
    input.options.group === undefined
      ? pairsOf(await runCommand(nodes, 'GROUP.LIST', [String(id)], 'read')).map(([name]) => name)
      : [String(input.options.group)]
  const found: { name: string; group: DescribedGroup; rows: ReturnType<typeof rowsOf> }[] = []
  for (const name of listed) {
    const group = await describe(nodes, name, input.options.group === undefined)
    if (group !== null) found.push({ name, group, rows: rowsOf(group, id, partitions) })
  }
  if (input.options.output === 'json') {
    const groups = found.map(({ name, group: { generation, strategy, state, members }, rows }) => ({
      ...{ group: name, generation, strategy, state, lag: lagOf(rows), partitions: rows },
      members: members.map(({ member, lastHeartbeatMs }) => ({
        member,
        last_heartbeat: new Date(lastHeartbeatMs).toISOString(),
      })),
    }))
    printJson(shell.stdout, groups)
    return
  }
  if (found.length === 0) {
    shell.stdout.write(`nobody reads ${stream?.name} in a group: "roundhouse consume --group NAME" does\n`)
    return
  }
  for (const { name, group, rows } of found) {
    const { state, strategy, generation, members } = group
    const head = ['PARTITION', 'COMMITTED', 'END', 'LAG', 'MEMBER']
    const text = rows.map(each => [
      each.partition,
      each.committed ?? '-',
      each.end ?? '?',
      each.lag ?? '?',
      each.member === null ? '-' : `${each.member}${each.awaited_by === null ? '' : ` → ${each.awaited_by}`}`,
    ])
    shell.stdout.write(
      `${name}: ${state}, ${members.length} ${members.length === 1 ? 'member' : 'members'}, ` +
        `generation ${generation}, ${strategy}, lag ${lagOf(rows)}\n` +
        `${table(colorsFor(shell.stdout, shell.env), head, text)}\n`,
    )
  }
}

/** null: it went meanwhile. */
async function describe(nodes: Nodes, name: string, mayBeGone: boolean): Promise<DescribedGroup | null> {
  try {
    const { response } = await runCommand(nodes, 'GROUP.DESCRIBE', [name], 'read')
    if (response?.$case !== 'value') throw new Error(`${nodes.address} answered without a group`)
    return JSON.parse(response.value.toString())
  } catch (error) {
    if (mayBeGone && error instanceof RemoteError && error.code === 'NO_SUCH_GROUP') return null
    throw error
  }
}

/** Of each partition how far the group is. Nothing committed: all that there is lies before it. */
function rowsOf(group: DescribedGroup, id: number, partitions: DescribeStreamResponse['partitions']) {
  return partitions.map(({ partition, startOffset, endOffset, error }) => {
    const has = (parts: DescribedGroup['members'][number]['assigned']) =>
      parts.some(each => each.stream === id && each.partitions.includes(partition))
    const row = group.offsets.find(each => each.stream === id && each.partition === partition)
    const committed = row?.offset ?? null
    const end = error === '' ? Number(endOffset) : null
    const from = Math.max(committed ?? 0, Number(startOffset))
    return {
      partition,
      committed,
      end,
      lag: end === null ? null : Math.max(0, end - from),
      member: group.members.find(each => has(each.assigned) || has(each.revoked))?.member ?? null,
      awaited_by: group.members.find(each => has(each.awaited))?.member ?? null,
    }
  })
}

function lagOf(rows: readonly { readonly lag: number | null }[]): number {
  return rows.reduce((sum, { lag }) => sum + (lag ?? 0), 0)
}
