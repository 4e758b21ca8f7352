/** The calls that more than one verb makes. */
import { randomBytes } from 'node:crypto'
import { isErrorCode, RemoteError } from '../errors.ts'
import type { CommandResponse } from '../gen/clusterpb/cluster.ts'
import { CommandRequest } from '../gen/clusterpb/cluster.ts'
import type { RebalanceStatus, StatusResponse } from '../gen/roundhouse/v1/admin.ts'
import type { Nodes } from './connection.ts'

export function fetchStatus(nodes: Nodes): Promise<StatusResponse> {
  return nodes.call('read', (call, { admin }) => call(admin.status.bind(admin), {}))
}

export async function rebalance(nodes: Nodes, action: 'show' | 'pause' | 'resume'): Promise<RebalanceStatus> {
  const response = await nodes.call('read', (call, { admin }) =>
    call(admin.rebalance.bind(admin), { action }),
  )
  if (response.rebalance === undefined)
    throw new Error(`${nodes.address} answered without a rebalance status`)
  return response.rebalance
}

/**
 * Runs one command. With a session of its own, a write that is sent again through another node is applied once; reads
 * don't need one.
 */
export async function runCommand(
  nodes: Nodes,
  command: string,
  args: readonly string[],
  access: 'read' | 'write',
): Promise<CommandResponse> {
  const [key = '', ...rest] = args
  const request = CommandRequest.fromPartial({
    command,
    key,
    // An empty `key` stands for none, so an empty first argument travels among the others.
    args: (key === '' ? args : rest).map(each => Buffer.from(each)),
    ...(access === 'write' ? { session: newSession(Date.now()), sequence: 1n } : {}),
  })
  return await nodes.call(access, async (call, { cluster, address }) => {
    const response = await call(cluster.runCommand.bind(cluster), request)
    if (response.error === '') return response
    if (isErrorCode(response.code))
      throw new RemoteError(response.code, response.error, response.leader || null)
    throw new Error(`${address} refused: ${response.error}`)
  })
}

/** 16 bytes: creation time in ms, six bytes big-endian, then ten random ones. */
export function newSession(wallMs: number): Buffer {
  const session = Buffer.alloc(16)
  session.writeUIntBE(wallMs, 0, 6)
  randomBytes(10).copy(session, 6)
  return session
}
