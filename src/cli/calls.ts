/** The calls that more than one verb makes. */
import { randomBytes } from 'node:crypto'
import { commands } from '../commands/table.ts'
import { isErrorCode, RemoteError } from '../errors.ts'
import type { CommandResponse } from '../gen/clusterpb/cluster.ts'
import { CommandRequest } from '../gen/clusterpb/cluster.ts'
import type { RebalanceStatus, StatsResponse, StatusResponse } from '../gen/roundhouse/v1/admin.ts'
import type { Access, Nodes } from './connection.ts'
import { suggest } from './help.ts'
import { type Carried, mayGoWithout, sharedSession, sharedTimeoutMsMax } from './one-shot.ts'

export function fetchStatus(nodes: Nodes): Promise<StatusResponse> {
  return nodes.call('read', (call, { admin }) => call(admin.status.bind(admin), {}))
}

/** Of one node, by its address for clients. */
export function fetchStats(nodes: Nodes): Promise<StatsResponse> {
  return nodes.call('read', (call, { admin }) => call(admin.stats.bind(admin), {}))
}

export async function rebalance(nodes: Nodes, action: 'show' | 'pause' | 'resume'): Promise<RebalanceStatus> {
  const response = await nodes.call('read', (call, { admin }) =>
    call(admin.rebalance.bind(admin), { action }),
  )
  if (response.rebalance === undefined)
    throw new Error(`${nodes.address} answered without a rebalance status`)
  return response.rebalance
}

/** Text stands for its UTF-8. */
export type Argument = string | Uint8Array

/**
 * Writes in order, each applied once however often it is sent: a write is begun when the one before it is settled, so
 * everything below its sequence is acknowledged.
 */
export class Session {
  private id = Buffer.alloc(0)
  private startedMs = Number.NEGATIVE_INFINITY
  private sequence = 0n

  /** What the next write carries. */
  next(wallMs: number): Carried {
    if (wallMs - this.startedMs > sessionMsMax) {
      this.id = newSession(wallMs)
      this.startedMs = wallMs
      this.sequence = 0n
    }
    this.sequence += 1n
    // 0 says nothing, as 1 does.
    return {
      session: this.id,
      sequence: this.sequence,
      ackedBelow: this.sequence === 1n ? 0n : this.sequence,
    }
  }
}

/** Shards that never saw a session take it for new only while it is younger than 55 min. */
const sessionMsMax = 30 * 60_000

/**
 * Runs one command. With a session, a write that is sent again through another node is applied once; without one it is
 * sent once. Reads don't need any. A write that comes alone takes that of one-shot.ts.
 */
export async function runCommand(
  nodes: Nodes,
  command: string,
  args: readonly Argument[],
  access: 'read' | 'write',
  session?: Session,
): Promise<CommandResponse> {
  const [first = '', ...rest] = args
  const hasKey = first.length > 0
  const request = CommandRequest.fromPartial({
    command,
    ...(!hasKey ? {} : typeof first === 'string' ? { key: first } : { keyBytes: Buffer.from(first) }),
    // An empty `key` stands for none, so an empty first argument travels among the others.
    args: (hasKey ? rest : args).map(each => Buffer.from(each as string)),
  })
  const send = (mode: Access, carried: Partial<Carried>) =>
    nodes.call(mode, async (call, { cluster, address }) => {
      const response = await call(cluster.runCommand.bind(cluster), { ...request, ...carried })
      if (response.error === '') return response
      if (isErrorCode(response.code))
        throw new RemoteError(response.code, response.error, response.leader || null)
      throw new Error(`${address} refused: ${response.error}`)
    })
  if (access === 'read') return await send('read', {})
  if (session !== undefined) return await send('write', session.next(Date.now()))
  try {
    return await send('write', ownOrShared(nodes))
  } catch (error) {
    if (!mayGoWithout(error, command, args.length)) throw error
    return await send('once', {})
  }
}

/** For a write that comes alone. */
export function ownOrShared(nodes: Nodes): Carried {
  return nodes.timeoutMs <= sharedTimeoutMsMax ? sharedSession(Date.now()) : new Session().next(Date.now())
}

/** A refusal that lists every command becomes one that names what was probably meant. */
export function withSuggestion(error: unknown, command: string): unknown {
  if (!(error instanceof RemoteError) || error.code !== 'UNKNOWN_COMMAND') return error
  const meant = suggest(command, [...commands.keys()])
  return new RemoteError(
    error.code,
    `ERR unknown command '${command}'${meant}${meant === '' ? ':' : ''} "roundhouse help commands" has them all`,
  )
}

/** 16 bytes: creation time in ms, six bytes big-endian, then ten random ones. */
export function newSession(wallMs: number): Buffer<ArrayBuffer> {
  const session = Buffer.alloc(16)
  session.writeUIntBE(wallMs, 0, 6)
  randomBytes(10).copy(session, 6)
  return session
}
