/** What the log, the sessions and the register hold, and what peers ask of the register. */
import { type Answer, decodeAnswer, encodeAnswer } from '../../src/commands/answer.ts'
import type { Reply } from '../../src/commands/command.ts'
import { decodeEnvelope, encodeEnvelope } from '../../src/commands/envelope.ts'
import { StateMachine } from '../../src/commands/machine.ts'
import { supportedLevel } from '../../src/commands/release.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'
import { metaCommands, RegisterReader } from '../../src/node/meta-commands.ts'
import { metaGroup, type Register } from '../../src/node/meta-register.ts'
import {
  birthConfiguration,
  decodeChange,
  decodeConfiguration,
  encodeChange,
  encodeConfiguration,
} from '../../src/shard/configuration.ts'
import { SimCluster } from '../sim/sim-cluster.ts'
import { decodes, type Family, settles } from './family.ts'
import { damagedJson, Mutator } from './mutate.ts'

const envelopes: Family = {
  name: 'envelope',
  refuses: 'CORRUPT, UNSUPPORTED_ENTRY',
  share: 1,
  open: async random => {
    const session = { id: random.bytes(16), sequence: 300, ackedBelow: 299 }
    const operations = [
      { command: 'SET', args: [fromUtf8('k'), random.bytes(40)] },
      { command: 'DEL', args: [fromUtf8('k'), fromUtf8('k2')] },
    ]
    const timestampMs = 1_700_000_000_000
    const corpus = [
      encodeEnvelope({ timestampMs, session, operations }),
      encodeEnvelope({ timestampMs, session: null, operations: operations.slice(1) }),
      encodeEnvelope({ timestampMs: 0, session: null, operations: [] }),
    ]
    const mutator = new Mutator(corpus)
    return {
      run: each => decodes(['CORRUPT', 'UNSUPPORTED_ENTRY'], () => decodeEnvelope(mutator.next(each))),
    }
  },
}

function replies(random: Prng): Reply[] {
  return [
    { kind: 'nil' },
    { kind: 'value', value: random.bytes(30) },
    { kind: 'success', success: true, integer: 7 },
    { kind: 'count', count: -(2n ** 63n) },
    { kind: 'list', items: [{ key: fromUtf8('f') }, { value: random.bytes(9) }, {}], cursor: fromUtf8('4') },
  ]
}

/** Of a session's row. The row has a checksum of its own, so bad bytes here are a fault of the one who wrote them. */
const answers: Family = {
  name: 'answer',
  refuses: 'CORRUPT',
  share: 1,
  open: async random => {
    const error = new RoundhouseError('NOT_INTEGER', { what: 'x' })
    const all: Answer[] = [
      { kind: 'replies', revision: 5_000, replies: replies(random) },
      { kind: 'replies', revision: 5_001, replies: [{ kind: 'value', value: random.bytes(5_000) }] },
      { kind: 'refused', revision: 5_002, error, operation: 1 },
    ]
    const mutator = new Mutator(all.map(encodeAnswer), { isText: true })
    return { run: each => decodes(['CORRUPT'], () => decodeAnswer(mutator.next(each))) }
  },
}

const configurations: Family = {
  name: 'configuration',
  refuses: 'CORRUPT',
  share: 1,
  open: async () => {
    const first = birthConfiguration(3, { replica: 7, node: 'node1' })
    const forced = { ...first, quarantined: 'rot', forced: { at: 5, applied: { index: 3, term: 2 } } }
    const change = { operation: 4, expectedIndex: 77, added: [{ replica: 9, node: 'node2' }] }
    const bytes = new Mutator([first, forced].map(encodeConfiguration), { isText: true })
    const changes = new Mutator([encodeChange(change)], { isText: true })
    return {
      run: each => {
        switch (each.below(4)) {
          case 0:
            return decodes(['CORRUPT'], () => decodeConfiguration(bytes.next(each)))
          case 1:
            return decodes(['CORRUPT'], () => decodeChange(changes.next(each)))
          case 2: {
            const odd = fromUtf8(JSON.stringify(damagedJson(forced, each)))
            return decodes(['CORRUPT'], () => {
              // Whoever reads one goes on to these.
              const { members, confState, forced: by } = decodeConfiguration(odd)
              for (const { replica, node } of members) void (replica + node.length)
              for (const ids of [confState.voters, confState.learners]) void ids.length
              if (by !== undefined) void by.applied.index
            })
          }
          default: {
            const odd = fromUtf8(JSON.stringify(damagedJson(change, each)))
            return decodes(['CORRUPT'], () => {
              for (const { replica, node } of decodeChange(odd)?.added ?? []) void (replica + node.length)
            })
          }
        }
      },
    }
  },
}

// --- The meta shard -------------------------------------------------------------------------------------------------

const settings = { shardCount: 4, replicationFactor: 3, vNodeCount: 128 }
const address = { peerAddress: '10.0.0.1:8080', clientAddress: 'a.example:8080', zone: 'a' }
const founder = { nodeId: 'node1', storeId: 'f'.repeat(32), ...address, metaReplica: 1 }
const joiner = { nodeId: 'node2', storeId: 'e'.repeat(32), ...address, level: supportedLevel }
const voters = [{ replica: 2, node: 'node1' }]

/** A good request of each command, one after another on a cluster that was just founded. */
const requests: readonly (readonly [command: string, request: unknown])[] = [
  ['META.FOUND', { clusterId: 'c1', settings, node: founder, firstReplica: 2 }],
  ['META.JOIN', { ...joiner, expected: { shardCount: 4 } }],
  ['META.STATE', { nodeId: 'node2', state: 'member' }],
  ['META.OPEN', { group: 0, replaces: 0, voters, learners: [{ node: 'node2', replica: null }] }],
  ['META.CLOSE', { group: 0, operation: 1, voters, learners: [{ replica: 7, node: 'node2' }], index: 9 }],
  [
    'META.REPORT',
    { group: 1, voters: [{ replica: 3, node: 'node1' }], learners: [], index: 12, forcedAt: 99 },
  ],
  ['META.UNFIT', { group: 2, replica: 4 }],
  ['META.UNFIT', { group: metaGroup, replica: 1 }],
  ['META.REPLACE', { nodeId: 'node2' }],
  ['META.PAUSE', { isPaused: true }],
]

const isId = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
const areMembers = (value: unknown) =>
  Array.isArray(value) && value.every(each => isId(each?.replica) && typeof each?.node === 'string')

/** What all who read the register take for granted. */
function registerTrouble(register: Register): string | null {
  const { clusterId, nodes, shards, nextReplica, nextOperation, isPaused } = register
  if (clusterId !== 'c1' || JSON.stringify(register.settings) !== JSON.stringify(settings)) return 'cluster'
  if (!isId(nextReplica) || !isId(nextOperation) || typeof isPaused !== 'boolean') return 'counters'
  if (shards.size !== settings.shardCount + 1) return 'shards'
  for (const { nodeId, storeId, peerAddress, clientAddress, zone, state, metaReplica } of nodes) {
    const texts = [nodeId, storeId, peerAddress, clientAddress, zone]
    if (!texts.every(each => typeof each === 'string') || !isId(metaReplica)) return `node ${nodeId}`
    if (!['joining', 'member', 'leaving', 'left'].includes(state)) return `state ${state} of ${nodeId}`
  }
  for (const [group, record] of shards) {
    const lists = [record.voters, record.learners, record.former, record.operation?.voters ?? []]
    if (![...lists, record.operation?.learners ?? []].every(areMembers)) return `members of ${group}`
    if (!isId(record.index) || !record.unfit.every(isId)) return `record of ${group}`
  }
  return null
}

/** Damaged requests, applied as an entry of the meta shard would be: a refusal at worst, and a register that can be read. */
const metaRequests: Family = {
  name: 'meta-command',
  refuses: 'a refusal, the same on every replica',
  share: 0.1,
  open: async () => ({
    run: each => {
      const rows = new MemoryRows()
      const machine = new StateMachine(rows, metaCommands)
      const upTo = 1 + each.below(requests.length - 1)
      let index = 0
      const apply = (command: string, args: string) => {
        const operations = [{ command, args: [fromUtf8(args)] }]
        return machine.apply(++index, encodeEnvelope({ timestampMs: index, session: null, operations }))
      }
      for (const [command, request] of requests.slice(0, upTo)) apply(command, JSON.stringify(request))
      const [command, request] = requests[each.below(requests.length)]!
      const noise = ['', '{', 'null', '[]', '"x"', '7']
      const args =
        each.below(10) === 0
          ? noise[each.below(noise.length)]!
          : (JSON.stringify(damagedJson(request, each)) ?? 'null')
      const applied = apply(command, args)
      const read = metaCommands.get('META.READ')!
      const register = new RegisterReader().read(key => {
        const answer = machine.read(read, [key], { wallNowMs: null })
        return answer.kind === 'reply' && answer.reply.kind === 'value' ? answer.reply.value : undefined
      })
      const trouble = register === null ? 'it is gone' : registerTrouble(register)
      if (trouble !== null)
        throw new Error(`${command} ${args.slice(0, 300)} leaves a register with bad ${trouble}`)
      return applied.kind === 'refused' ? 'refused' : 'taken'
    },
  }),
}

const bodies: readonly (readonly [method: string, body: unknown])[] = [
  ['cluster', {}],
  ['join', { ...joiner, expected: { shardCount: 4 } }],
  ['verify', { group: 1 }],
  ['digest', { group: 1, replica: 2, index: 3 }],
  ['odd', { group: 1, replica: 2, index: 3 }],
  ['transfer', { group: 1, to: 'n2' }],
  ['snapshot-failed', { group: 1, receiver: 5 }],
  ['meta', { command: 'META.READ', request: 'nodes' }],
  ['meta', { command: 'META.STREAM.FIND', request: { name: 'orders' } }],
  ['STREAM.WAIT', { shard: 0, id: 1, partition: 0, offset: 0, timeoutMs: 20 }],
  [
    'WATCH.READ',
    { shard: 0, after: 0, target: { kind: 'prefix', prefix: 'k' }, bytesMax: 1_000, waitMs: 20 },
  ],
  ['nobody-knows', {}],
]

/** Questions of peers to a real node, of all methods but those that a register takes (`meta-command`). */
const peerQuestions: Family = {
  name: 'peer-ask',
  refuses: 'one of our codes',
  share: 0.05,
  isStateful: true,
  open: async () => {
    const cluster = new SimCluster(1, { shardCount: 4 })
    if (!(await cluster.boot(1))) throw new Error('the cluster does not come up')
    const { world } = cluster
    const { node } = cluster.machines[0]!
    const { clusterId } = JSON.parse(
      await node!.ask({ clusterId: '', nodeId: 'n2', storeId: 's2' }, 'cluster', '{}'),
    ) as { clusterId: string }
    const from = { clusterId, nodeId: 'node2', storeId: joiner.storeId }
    return {
      run: async each => {
        const [method, good] = bodies[each.below(bodies.length)]!
        let body = JSON.stringify(damagedJson(good, each)) ?? ''
        if (each.below(10) === 0) body = body.slice(0, each.below(body.length + 1))
        let isSettled = false
        const asked = settles(
          [
            ...([
              'INVALID_ARGUMENT',
              'UNKNOWN_COMMAND',
              'NOT_LEADER',
              'NOT_READY',
              'NO_META_LEADER',
            ] as const),
            ...(['SETTINGS_DIFFER', 'STORE_MISMATCH', 'NOT_MEMBER', 'WRONG_CLUSTER'] as const),
            'RELEASE_TOO_OLD' as const,
            'NO_SUCH_STREAM' as const,
          ],
          node!.ask(from, method, body),
        ).finally(() => {
          isSettled = true
        })
        // What is under way when the next one comes is looked at all the same.
        asked.catch(() => {})
        await world.run(world.nowMs + 60_000, () => isSettled)
        const { ended } = cluster.machines[0]!
        if (ended !== null || cluster.machines[0]!.node !== node) throw new Error(`the node ended: ${ended}`)
        return asked
      },
    }
  },
}

export const stateFamilies: readonly Family[] = [
  envelopes,
  answers,
  configurations,
  metaRequests,
  peerQuestions,
]
