/** `client.atomic`: commands and appends of one hash tag as one entry, all applied or none. */
import {
  type AtomicRequest,
  type AtomicResponse,
  Read,
  type Operation as WireOperation,
} from '../gen/clusterpb/cluster.ts'
import { refused } from './call.ts'
import type { Engine } from './engine.ts'
import { type Attempt, ask, once } from './errand.ts'
import { inBandFailure } from './failure.ts'
import { toBytes } from './input.ts'
import { type Patience, partitionKey } from './partitions.ts'
import { bytesOf, type NewRecord, wireRecord } from './record.ts'
import { type Decode, readValue, type Value } from './reply.ts'
import type { Input } from './table.ts'

/** A command with its arguments, the key first. */
export type AtomicCommand = readonly [command: string, key: Input, ...args: readonly Input[]]

export interface AtomicAppend {
  readonly stream: string
  /** 0 by default. */
  readonly partition?: number
  readonly records: readonly (Input | NewRecord)[]
}

export interface AtomicResult<Data> {
  /** In the order of the operations; of an append the offset of its first record. */
  readonly replies: readonly Value<Data>[]
  /** Raft index of the entry. */
  readonly revision: number
}

const name = 'ATOMIC'

/** Rejects with CallError: CONDITION_NOT_MET where a condition (SET with nx, …) is not. */
export async function atomic<Data>(
  engine: Engine,
  operations: readonly (AtomicCommand | AtomicAppend)[],
  decode: Decode<Data>,
  patience: Patience,
): Promise<AtomicResult<Data>> {
  const wire = operations.map(wireOperation)
  const [first] = wire
  if (first === undefined) throw new TypeError(`${name}: there is no operation`)
  const ticket = engine.ticket()
  if (ticket === null) throw refused(name, 'QUEUE_FULL', 'too many writes hang')
  const request: AtomicRequest = {
    operations: wire.map(({ operation }) => operation),
    ...{ session: ticket.id, sequence: BigInt(ticket.sequence), ackedBelow: 0n },
  }
  const facts = {
    name,
    access: 'write' as const,
    key: first.key,
    isRepeatable: true,
    bytes: wire.reduce((sum, each) => sum + each.bytes, 0),
  }
  try {
    const { responses, revision } = await ask(
      engine,
      { ...facts, ...patience },
      async (link, timeoutMs, signal) => {
        request.ackedBelow = BigInt(ticket.ackedBelow())
        const attempt = await once<AtomicResponse>(link, timeoutMs, signal, (metadata, options, done) =>
          link.cluster.atomic(request, metadata, options, done),
        )
        return attempt.ok ? inBand(attempt.answer) : attempt
      },
    )
    return { replies: responses.map(each => readValue(each, decode)), revision: Number(revision) }
  } finally {
    ticket.settle()
  }
}

/** What was refused for one operation was refused for all. */
function inBand(answer: AtomicResponse): Attempt<AtomicResponse> {
  const failed = answer.responses.find(({ error, code }) => error !== '' || code !== '')
  return failed === undefined ? { ok: true, answer } : { ok: false, failure: inBandFailure(failed) }
}

interface Placed {
  readonly key: Buffer
  readonly bytes: number
  readonly operation: WireOperation
}

/** Throws TypeError. */
function wireOperation(given: AtomicCommand | AtomicAppend, place: number): Placed {
  const where = `${name}: operation ${place + 1}`
  if ('stream' in given) {
    const { stream, partition = 0 } = given
    if (!Number.isSafeInteger(partition) || partition < 0)
      throw new TypeError(`${where}: partition: an integer from 0 up is accepted, not ${String(partition)}`)
    const records = given.records.map((record, i) => wireRecord(record, {}, `${where}, record ${i + 1}`))
    return {
      key: partitionKey(stream, partition),
      bytes: records.reduce((sum, record) => sum + bytesOf(record), 0),
      operation: { operation: { $case: 'append', value: { stream, partition, records } } },
    }
  }
  const [command, ...rest] = given
  if (typeof command !== 'string') throw new TypeError(`${where} does not begin with a command's name`)
  const [keyBytes = Buffer.alloc(0), ...args] = rest.map((each, i) =>
    toBytes(each, `${where}: argument ${i + 1}`),
  )
  const value = {
    ...{ command: command.toUpperCase(), key: '', keyBytes, args, id: 0n, session: Buffer.alloc(0) },
    ...{
      sequence: 0n,
      ackedBelow: 0n,
      read: Read.LINEARIZABLE,
      noForward: false,
      hops: 0,
      transfer: undefined,
    },
  }
  return {
    key: keyBytes,
    bytes: args.reduce((sum, each) => sum + each.byteLength, keyBytes.byteLength),
    operation: { operation: { $case: 'command', value } },
  }
}
