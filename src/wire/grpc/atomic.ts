import { atomicArgs, repliesOf } from '../../commands/atomic.ts'
import type { Operation } from '../../commands/envelope.ts'
import { keysOf } from '../../commands/scatter.ts'
import { parseCall } from '../../commands/table.ts'
import { RoundhouseError } from '../../errors.ts'
import type { AtomicRequest, Append as WireAppend } from '../../gen/clusterpb/cluster.ts'
import { AtomicResponse } from '../../gen/clusterpb/cluster.ts'
import { limits } from '../../keyspace/limits.ts'
import type { CallResult, Service, Session } from '../../node/ports.ts'
import { readRequest, readSession, writeResponse } from '../../peer/call-codec.ts'
import { encodeMessage } from '../../peer/proto-io.ts'

/**
 * clusterpb.ClusterNode/Atomic: commands and appends of records as the arguments of one ATOMIC call, and its replies apart
 * again.
 */
export interface RequestedAtomic {
  readonly command: 'ATOMIC'
  readonly args: readonly Uint8Array[]
  readonly session: Session | null
}

/** Throws INVALID_ARGUMENT, NO_SUCH_STREAM, NO_SUCH_PARTITION, and what each command is refused with at the door. */
export async function readAtomic(
  request: AtomicRequest,
  service: Service,
  isKeyed: (command: string) => boolean,
): Promise<RequestedAtomic> {
  const { length } = request.operations
  if (length === 0 || length > limits.operationsMax)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `${length} operations`,
      accepted: `1 to ${limits.operationsMax}`,
    })
  const operations: Operation[] = []
  for (const { operation } of request.operations) {
    if (operation?.$case === 'command') {
      const { command, args, session, read, forward, hops } = readRequest(operation.value, isKeyed)
      if (session !== null || read !== 'linearizable' || !forward || hops > 0)
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: `${command} in an atomic entry with a session, read, no_forward or hops of its own`,
          accepted: 'a session of the whole; it runs where and when the others do',
        })
      operations.push({ command, args })
    } else if (operation?.$case === 'append') operations.push(await appendOf(operation.value, service))
    else
      throw new RoundhouseError('INVALID_ARGUMENT', { what: 'operation', accepted: 'a command or an append' })
  }
  const { command, args } = operations[0]!
  const [key] = keysOf(parseCall(command, args).command, args)
  if (key === undefined)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `${command} in an atomic entry`,
      accepted: 'commands on keys, of one hash tag',
    })
  return { command: 'ATOMIC', args: atomicArgs(key, operations), session: readSession(request) }
}

function appendOf({ stream, partition, records }: WireAppend, service: Service): Promise<Operation> {
  const produced = records.map(({ value, key, headers, type, crc }) => ({
    ...{ value, key: key ?? null, headers, type },
    ...(crc === undefined ? {} : { crc }),
  }))
  return service.streams.operationOf(stream === '' ? 'default' : stream, partition, produced)
}

export function writeAtomic(result: CallResult): Buffer {
  const { reply, revision } = result
  const responses = repliesOf(reply).map(each => writeResponse({ ...result, reply: each }, 0n))
  return encodeMessage(AtomicResponse, { responses, revision: BigInt(revision) })
}
