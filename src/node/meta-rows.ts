import type { Command, Reply } from '../commands/command.ts'
import { RoundhouseError } from '../errors.ts'
import type { Keyspace } from '../keyspace/keyspace.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { ClusterSettings, RegisteredNode } from './meta-register.ts'

/**
 * What the meta shard's commands are made of: rows of JSON, requests that are checked before they are believed, answers.
 *
 * Rows: `cluster` (id, settings, counters), `nodes`, `streams`, and `shard:<group>`.
 */

export interface ClusterRow {
  readonly clusterId: string
  readonly settings: ClusterSettings
  readonly epoch: number
  readonly isPaused: boolean
  /** Feature level of the cluster; absent: 1. */
  readonly level?: number
  readonly nextReplica: number
  readonly nextOperation: number
  readonly movesDone: number
  /** Id of the next stream; absent: none was made yet. */
  readonly nextStream?: number
}

export const clusterKey = fromUtf8('cluster')
export const nodesKey = fromUtf8('nodes')
export const streamsKey = fromUtf8('streams')
export const shardKey = (group: number) => fromUtf8(`shard:${group}`)

export function load<Row>(keyspace: Keyspace, key: Bytes): Row | undefined {
  const bytes = keyspace.getString(key)
  return bytes === undefined ? undefined : (JSON.parse(toUtf8(bytes)) as Row)
}

export function store(keyspace: Keyspace, key: Bytes, row: unknown): void {
  keyspace.putString(key, fromUtf8(JSON.stringify(row)), null)
}

export function loadCluster(keyspace: Keyspace): ClusterRow {
  const row = load<ClusterRow>(keyspace, clusterKey)
  if (row === undefined) throw new RoundhouseError('NOT_READY', { why: 'the cluster is being founded' })
  return row
}

export const loadNodes = (keyspace: Keyspace) => load<RegisteredNode[]>(keyspace, nodesKey) ?? []

export function storeCluster(keyspace: Keyspace, row: ClusterRow): void {
  store(keyspace, clusterKey, { ...row, epoch: row.epoch + 1 })
}

export const json = (value: unknown): Reply => ({ kind: 'value', value: fromUtf8(JSON.stringify(value)) })

/** What each field of a request must be. */
export type Shape<Request> = { readonly [Field in keyof Request]-?: (value: unknown) => boolean }

export const text = (value: unknown) => typeof value === 'string' && value.length <= textMax
export const id = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
export const flag = (value: unknown) => typeof value === 'boolean'
export const optional = (check: (value: unknown) => boolean) => (value: unknown) =>
  value === undefined || check(value)
export const fits =
  <Value>(shape: Shape<Value>) =>
  (value: unknown) =>
    typeof value === 'object' &&
    value !== null &&
    (Object.entries(shape) as [keyof Value, (field: unknown) => boolean][]).every(([field, check]) =>
      check((value as Value)[field]),
    )
export const list = (check: (value: unknown) => boolean) => (value: unknown) =>
  Array.isArray(value) && value.length <= listMax && value.every(check)
const textMax = 300
const listMax = 1_000

/**
 * A request comes from another node, so it is checked, and here: an entry that is refused is refused by every replica
 * alike, while one that throws anything else ends every node of the cluster, at every restart again.
 */
export function define<Request>(
  name: string,
  shape: Shape<Request>,
  run: (keyspace: Keyspace, request: Request) => Reply,
  access: Command['access'] = 'write',
): Command {
  return {
    name,
    summary: 'Of the meta shard',
    usage: 'json',
    arity: { min: 1, max: 1 },
    keys: 'none',
    access,
    isInternal: true,
    run: (keyspace, args) => run(keyspace, parse(name, shape, args[0])),
  }
}

function parse<Request>(name: string, shape: Shape<Request>, bytes: Bytes | undefined): Request {
  try {
    const value: unknown = JSON.parse(toUtf8(bytes ?? new Uint8Array(0)))
    if (fits(shape)(value)) return value as Request
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
  }
  const accepted = `a JSON object with ${Object.keys(shape).join(', ')}`
  throw new RoundhouseError('INVALID_ARGUMENT', { what: `request ${name}`, accepted })
}
