/**
 * `run --atomic FILE`: a file of commands as one entry. A line a command, words as in a shell; PRODUCE appends a record to
 * a partition of a stream.
 */
import { readFileSync } from 'node:fs'
import { isErrorCode, RemoteError } from '../errors.ts'
import {
  AtomicRequest,
  type AtomicResponse,
  CommandRequest,
  type Operation,
} from '../gen/clusterpb/cluster.ts'
import { systemReason } from '../lib/system-reason.ts'
import { ownOrShared } from './calls.ts'
import type { Nodes } from './connection.ts'
import { UsageError } from './shell.ts'
import { splitWords, UnfinishedLine } from './words.ts'

/** A file that is longer is no list of commands for one entry: that has 8 MiB of arguments. */
const fileBytesMax = 16 * 2 ** 20
const produceUsage = 'PRODUCE STREAM[/PARTITION] VALUE [KEY]'

/** Throws UsageError, which names the line. */
export function readOperations(path: string): Operation[] {
  let text: string
  try {
    text = readFileSync(path === '-' ? 0 : path, 'utf8')
  } catch (error) {
    throw new UsageError([`--atomic ${path}: ${systemReason(error)}`])
  }
  if (text.length > fileBytesMax)
    throw new UsageError([`--atomic ${path}: longer than ${fileBytesMax} bytes`])
  const operations: Operation[] = []
  for (const [i, line] of text.split('\n').entries()) {
    const where = `--atomic ${path}, line ${i + 1}`
    try {
      const words = line.trimStart().startsWith('#') ? [] : splitWords(line)
      if (words.length > 0) operations.push(operationOf(words, where))
    } catch (error) {
      if (error instanceof UnfinishedLine) throw new UsageError([`${where}: ${error.message}`])
      throw error
    }
  }
  if (operations.length === 0) throw new UsageError([`--atomic ${path}: there is no command in it`])
  return operations
}

function operationOf([command = '', ...args]: readonly string[], where: string): Operation {
  const bytes = args.map(each => Buffer.from(each))
  if (command.toUpperCase() !== 'PRODUCE') {
    const [keyBytes = Buffer.alloc(0), ...rest] = bytes
    const value = CommandRequest.fromPartial({ command, keyBytes, args: rest })
    return { operation: { $case: 'command', value } }
  }
  const [place = ''] = args
  const [value, key] = bytes.slice(1)
  const match = /^(.+)\/(\d+)$/.exec(place)
  if (place === '' || value === undefined || args.length > 3)
    throw new UsageError([`${where}: usage ${produceUsage}`])
  const record = { value, headers: [], type: 0, ...(key === undefined ? {} : { key }) }
  const [stream, partition] = match === null ? [place, 0] : [match[1]!, Number(match[2])]
  return { operation: { $case: 'append', value: { stream, partition, records: [emptyRecord(record)] } } }
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

/** All of them or none; sent again through another node, they are applied once. */
export async function runAtomic(nodes: Nodes, operations: Operation[]): Promise<AtomicResponse> {
  const request = AtomicRequest.fromPartial({ operations, ...ownOrShared(nodes) })
  return await nodes.call('write', async (call, { cluster, address }) => {
    const response = await call(cluster.atomic.bind(cluster), request)
    const failed = response.responses.find(({ error }) => error !== '')
    if (failed === undefined) return response
    if (isErrorCode(failed.code)) throw new RemoteError(failed.code, failed.error, null)
    throw new Error(`${address} refused: ${failed.error}`)
  })
}
