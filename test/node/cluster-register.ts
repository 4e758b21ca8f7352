import xxhash from 'xxhash-wasm'
import { encodeEnvelope } from '../../src/commands/envelope.ts'
import type { Applied } from '../../src/commands/machine.ts'
import { StateMachine } from '../../src/commands/machine.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import {
  type FoundRequest,
  type JoinRequest,
  metaCommands,
  RegisterReader,
} from '../../src/node/meta-commands.ts'
import type { ClusterSettings, Operation, Register, RegisteredNode } from '../../src/node/meta-register.ts'

const { h64 } = await xxhash()
export const hash64 = (text: string) => h64(text)

export const settings: ClusterSettings = { shardCount: 8, replicationFactor: 3, vNodeCount: 32 }

export const joinRequest = (nodeId: string, changed: Partial<JoinRequest> = {}): JoinRequest => ({
  nodeId,
  storeId: `store-${nodeId}`,
  peerAddress: `${nodeId}:1`,
  clientAddress: `${nodeId}:2`,
  zone: '',
  ...changed,
})

export const foundRequest = (changed: Partial<FoundRequest> = {}): FoundRequest => ({
  clusterId: 'c1',
  settings,
  firstReplica: 2,
  node: { ...joinRequest('node1'), metaReplica: 1 },
  ...changed,
})

/** The meta shard's state machine without Raft: requests in, answers out, the register as nodes read it. */
export class MetaShard {
  readonly rows = new MemoryRows()
  private readonly machine = new StateMachine(this.rows, metaCommands)
  private readonly reader = new RegisterReader()
  private index = 0

  apply(command: string, request: unknown): Applied {
    const operations = [{ command, args: [fromUtf8(JSON.stringify(request))] }]
    return this.machine.apply(++this.index, encodeEnvelope({ timestampMs: 0, session: null, operations }))
  }

  /** Answers what the command answers; throws what it refuses with. */
  run<Answer>(command: string, request: unknown): Answer {
    const applied = this.apply(command, request)
    if (applied.kind === 'refused') throw applied.error
    const reply = applied.replies[0]
    if (reply?.kind !== 'value') throw new Error(`${command} answers no JSON`)
    return JSON.parse(toUtf8(reply.value)) as Answer
  }

  found(changed: Partial<FoundRequest> = {}): this {
    this.run('META.FOUND', foundRequest(changed))
    return this
  }

  join(nodeId: string, changed: Partial<JoinRequest> = {}): RegisteredNode {
    return this.run('META.JOIN', joinRequest(nodeId, changed))
  }

  /** Joins and is let in. */
  admit(...nodeIds: readonly string[]): this {
    for (const nodeId of nodeIds) {
      this.join(nodeId)
      this.run('META.STATE', { nodeId, state: 'member' })
    }
    return this
  }

  open(request: unknown): Operation | null {
    return this.run<{ operation: Operation | null }>('META.OPEN', request).operation
  }

  /** Closes the group's operation as if all its steps had been taken. */
  close(group: number, index = 100): void {
    const operation = this.register.shards.get(group)?.operation
    if (operation === undefined || operation === null) throw new Error(`nothing is open at ${group}`)
    const { id, voters, learners } = operation
    this.run('META.CLOSE', { group, operation: id, voters, learners, index })
  }

  get known(): Register | null {
    const command = metaCommands.get('META.READ')!
    return this.reader.read(key => {
      const result = this.machine.read(command, [key], { wallNowMs: null })
      return result.kind === 'reply' && result.reply.kind === 'value' ? result.reply.value : undefined
    })
  }

  get register(): Register {
    const { known } = this
    if (known === null) throw new Error('no cluster was founded')
    return known
  }
}
