/**
 * `run --atomic FILE`: a file of commands as one entry. A line a command, words as in a shell; PRODUCE appends a record to
 * a partition of a stream: the one that is named, else the one that `produce` would put the key into.
 */
import { isUtf8 } from 'node:buffer'
import { readFileSync } from 'node:fs'
import xxhash from 'xxhash-wasm'
import { isErrorCode, RemoteError } from '../errors.ts'
import {
  AtomicRequest,
  type AtomicResponse,
  CommandRequest,
  type Operation,
} from '../gen/clusterpb/cluster.ts'
import { systemReason } from '../lib/system-reason.ts'
import { partitionOfKey } from '../node/stream-batch.ts'
import { ownOrShared } from './calls.ts'
import type { Access, Nodes } from './connection.ts'
import { type Carried, isOfSession } from './one-shot.ts'
import { UsageError } from './shell.ts'
import { partitionsOf } from './streams.ts'
import { splitWords, UnfinishedLine } from './words.ts'

/** A file that is longer is no list of commands for one entry: that has 8 MiB of arguments. */
const fileBytesMax = 16 * 2 ** 20
/** What the wire can carry; how many there are is for the stream. */
const partitionMax = 0xffff_ffff
const produceUsage = 'PRODUCE STREAM[/PARTITION] VALUE [KEY]'

type Command = Extract<NonNullable<Operation['operation']>, { $case: 'command' }>['value']

/** What a line asks for. The partition is null where the key decides. */
export type Line =
  | { readonly kind: 'command'; readonly command: Command }
  | {
      readonly kind: 'produce'
      readonly where: string
      readonly stream: string
      readonly partition: number | null
      readonly value: Buffer
      readonly key: Buffer | undefined
    }

/** Throws UsageError, which names the line. */
export function readLines(path: string): Line[] {
  let bytes: Buffer
  try {
    bytes = readFileSync(path === '-' ? 0 : path)
  } catch (error) {
    throw new UsageError([`--atomic ${path}: ${systemReason(error)}`])
  }
  // What is read as U+FFFD would be written so.
  if (!isUtf8(bytes)) throw new UsageError([`--atomic ${path}: it is not UTF-8`])
  return parseLines(bytes.toString(), path)
}

/** `path` is for what is said of mistakes. Throws UsageError. */
export function parseLines(text: string, path: string): Line[] {
  if (text.length > fileBytesMax)
    throw new UsageError([`--atomic ${path}: longer than ${fileBytesMax} bytes`])
  const lines: Line[] = []
  for (const [i, line] of text.split('\n').entries()) {
    const where = `--atomic ${path}, line ${i + 1}`
    try {
      const words = line.trimStart().startsWith('#') ? [] : splitWords(line)
      if (words.length > 0) lines.push(lineOf(words, where))
    } catch (error) {
      if (error instanceof UnfinishedLine) throw new UsageError([`${where}: ${error.message}`])
      throw error
    }
  }
  if (lines.length === 0) throw new UsageError([`--atomic ${path}: there is no command in it`])
  return lines
}

function lineOf([command = '', ...args]: readonly string[], where: string): Line {
  const bytes = args.map(each => Buffer.from(each))
  if (command.toUpperCase() !== 'PRODUCE') {
    const [keyBytes = Buffer.alloc(0), ...rest] = bytes
    return { kind: 'command', command: CommandRequest.fromPartial({ command, keyBytes, args: rest }) }
  }
  const [place = ''] = args
  const [value, key] = bytes.slice(1)
  const match = /^(.+)\/(\d+)$/.exec(place)
  if (place === '' || value === undefined || args.length > 3)
    throw new UsageError([`${where}: usage ${produceUsage}`])
  const [stream, partition] = match === null ? [place, null] : [match[1]!, Number(match[2])]
  if (partition !== null && partition > partitionMax)
    throw new UsageError([`${where}: partition ${match![2]}, which is more than ${partitionMax}`])
  return { kind: 'produce', where, stream, partition, value, key }
}

/** With a partition for each record. Throws UsageError where a stream has several and nothing says which. */
export async function placeLines(nodes: Nodes, lines: readonly Line[]): Promise<Operation[]> {
  const { h64 } = await xxhash()
  const known = new Map<string, number>()
  const operations: Operation[] = []
  for (const line of lines) {
    if (line.kind === 'command') {
      operations.push({ operation: { $case: 'command', value: line.command } })
      continue
    }
    const { where, stream, value, key } = line
    let { partition } = line
    if (partition === null) {
      // A stream that is not there is for the cluster to say.
      const partitions = known.get(stream) ?? (await partitionsOf(nodes, stream)) ?? 1
      known.set(stream, partitions)
      if (partitions > 1 && key === undefined)
        throw new UsageError([
          `${where}: ${stream} has ${partitions} partitions: name one (${stream}/0) or give a key`,
        ])
      partition = key === undefined ? 0 : partitionOfKey(text => h64(text), key, partitions)
    }
    const record = { value, headers: [], type: 0, ...(key === undefined ? {} : { key }) }
    const append = { stream, partition, records: [emptyRecord(record)] }
    operations.push({ operation: { $case: 'append', value: append } })
  }
  return operations
}

type WireRecord = Extract<
  NonNullable<Operation['operation']>,
  { $case: 'append' }
>['value']['records'][number]

function emptyRecord(
  given: Pick<WireRecord, 'value' | 'headers' | 'type'> & { readonly key?: Buffer },
): WireRecord {
  return { offset: 0n, term: 0n, timestampMs: 0n, crc: undefined, key: undefined, ...given }
}

/**
 * All of them or none; sent again through another node, they are applied once. One entry is of one shard, so where it is
 * refused for its session it goes without one, and once.
 */
export async function runAtomic(nodes: Nodes, operations: Operation[]): Promise<AtomicResponse> {
  const send = (mode: Access, carried: Partial<Carried>) =>
    nodes.call(mode, async (call, { cluster, address }) => {
      const request = AtomicRequest.fromPartial({ operations, ...carried })
      const response = await call(cluster.atomic.bind(cluster), request)
      const failed = response.responses.find(({ error }) => error !== '')
      if (failed === undefined) return response
      if (isErrorCode(failed.code)) throw new RemoteError(failed.code, failed.error, null)
      throw new Error(`${address} refused: ${failed.error}`)
    })
  try {
    return await send('write', ownOrShared(nodes))
  } catch (error) {
    if (!isOfSession(error)) throw error
    return await send('once', {})
  }
}
