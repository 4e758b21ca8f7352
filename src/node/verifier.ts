import { RoundhouseError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Random } from '../lib/prng.ts'
import type { Host } from '../shard/host.ts'
import type { RowsDigest } from '../shard/ports.ts'
import type { Replica } from '../shard/replica.ts'
import type { Peers, ReplicaDigest, VerifyResult } from './ports.ts'

/**
 * Whether the replicas of a shard hold the same rows. The leader commits a VERIFY entry; each replica checkpoints exactly
 * there and notes the digest of its rows, which depends on the rows alone. What is compared is so the same point of one
 * history, while the shard goes on serving. A replica that differs from the majority is quarantined and replaced: applying
 * is deterministic, so it is damaged, or found a bug; which of several minorities is right nobody can know.
 */
export interface VerifierOptions {
  readonly nodeId: string
  readonly host: Host
  readonly peers: Peers
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  /** Between two verifications of a shard by itself, ms; 0: never. */
  readonly intervalMs: number
  readonly addressOf: (node: string) => string | null
  /** Of no use to ask: it is held for dead. */
  readonly isDown: (node: string) => boolean
  readonly leaderOf: (group: number) => string | null
}

export interface DigestRequest {
  readonly group: number
  readonly replica: number
  readonly index: number
}

export type DigestAnswer =
  | { readonly state: 'given'; readonly digest: RowsDigest }
  /** Not applied, or not checkpointed yet. */
  | { readonly state: 'waiting' }
  /** It went past the entry without a digest (a snapshot, a restart), has no such replica, or keeps it mute. */
  | { readonly state: 'passed' | 'unknown' | 'quarantined' }
  /** Nobody is there to be asked. */
  | { readonly state: 'silent' }

const askTimeoutMs = 2_000
const pollMs = 100
/** A replica that is this late is left out. */
const patienceMs = 30_000
/** So is one whose node answers nothing for so long. */
const silenceMs = 3_000
/** How often a node looks whether one of the shards that it leads is due. */
export const dueLookMs = 10_000

export class Verifier {
  private readonly options: VerifierOptions
  /** By group led here: when it is verified next. */
  private readonly due = new Map<number, number>()
  private isBusy = false

  constructor(options: VerifierOptions) {
    this.options = options
  }

  /** Verifies a shard (or the meta shard) wherever it is led. Rejects with NOT_LEADER and what asking rejects with. */
  async verify(group: number, hops = 0): Promise<VerifyResult> {
    const { host, peers, leaderOf, addressOf, nodeId } = this.options
    const replica = host.group(group)
    if (replica?.isLeader) return this.verifyHere(replica)
    const leader = leaderOf(group)
    const address = leader === null || leader === nodeId || hops > 0 ? null : addressOf(leader)
    if (address === null) throw new RoundhouseError('NOT_LEADER', { shard: group, leader, address: null })
    const answer = await peers.ask(address, 'verify', JSON.stringify({ group }), 2 * patienceMs)
    return JSON.parse(answer) as VerifyResult
  }

  /** One shard at a time, each at its own hour. */
  lookForDue(): void {
    const { intervalMs, clock, random, host, log } = this.options
    if (intervalMs === 0 || this.isBusy) return
    const now = clock.now()
    for (const replica of host.all()) {
      if (!replica.isLeader) {
        this.due.delete(replica.group)
        continue
      }
      const dueMs = this.due.get(replica.group)
      // Nobody remembers when it was verified last: the first time is anywhere in the interval.
      if (dueMs === undefined) this.due.set(replica.group, now + random.next() * intervalMs)
      else if (dueMs <= now) {
        this.due.set(replica.group, now + intervalMs)
        this.isBusy = true
        this.verifyHere(replica)
          .catch((error: Error) => log.info('not verified', { group: replica.group, why: error.message }))
          .finally(() => {
            this.isBusy = false
          })
        return
      }
    }
  }

  /** What this node's replica has to say about an entry. */
  digestAt({ group, replica: id, index }: DigestRequest): DigestAnswer {
    const replica = this.options.host.replica(id)
    if (replica === undefined || replica.group !== group) return { state: 'unknown' }
    if (replica.halted !== null) return { state: 'quarantined' }
    if (replica.verified?.index === index) return { state: 'given', digest: replica.verified.digest }
    if (replica.appliedIndex < index || replica.isMarking(index)) return { state: 'waiting' }
    return { state: 'passed' }
  }

  private async verifyHere(replica: Replica): Promise<VerifyResult> {
    const { host, log, clock } = this.options
    const index = replica.proposeVerify()
    host.touch(replica)
    const { group, configuration } = replica
    if (index === null) throw replica.notLeader()
    const untilMs = clock.now() + patienceMs
    const replicas = await Promise.all(
      configuration.members.map(async ({ node, replica: id }): Promise<ReplicaDigest> => {
        const answer = await this.digestOf(node, { group, replica: id, index }, untilMs)
        return answer.state === 'given'
          ? { node, replica: id, state: 'equal', digest: answer.digest }
          : { node, replica: id, state: answer.state, digest: null }
      }),
    )
    const result = judge(group, index, replicas)
    if (result.verdict === 'differs') {
      log.error('replicas of a shard differ', { group, index, replicas: result.replicas })
      for (const odd of result.replicas.filter(each => each.state === 'odd'))
        await this.quarantine(odd, result)
    }
    return result
  }

  private async digestOf(node: string, request: DigestRequest, untilMs: number): Promise<DigestAnswer> {
    const { nodeId, peers, clock, addressOf, isDown } = this.options
    let heardMs = clock.now()
    for (;;) {
      let answer: DigestAnswer = { state: 'silent' }
      if (node === nodeId) answer = this.digestAt(request)
      else {
        const address = addressOf(node)
        const body = JSON.stringify(request)
        if (address === null || isDown(node)) return answer
        answer = await peers.ask(address, 'digest', body, askTimeoutMs).then(
          text => JSON.parse(text) as DigestAnswer,
          () => answer,
        )
      }
      const now = clock.now()
      if (answer.state !== 'silent') heardMs = now
      const isOver = answer.state === 'silent' ? now - heardMs >= silenceMs : answer.state !== 'waiting'
      if (isOver || now >= untilMs) return answer
      await new Promise<void>(resolve => void clock.after(pollMs, resolve))
    }
  }

  private async quarantine(
    { node, replica }: ReplicaDigest,
    { shard: group, index }: VerifyResult,
  ): Promise<void> {
    const { nodeId, peers, addressOf } = this.options
    if (node === nodeId) {
      this.halt({ group, replica, index })
      return
    }
    const address = addressOf(node)
    if (address === null) return
    await peers.ask(address, 'odd', JSON.stringify({ group, replica, index }), askTimeoutMs).catch(() => {
      // Whoever leads next finds the same.
    })
  }

  /** This node's replica differed from the majority at that entry. */
  halt({ group, replica: id, index }: DigestRequest): void {
    const replica = this.options.host.replica(id)
    // Only what this node knows itself to have said: its digest at that very entry.
    if (replica === undefined || replica.group !== group || replica.verified?.index !== index) return
    replica.halt(`its rows differ from those of the other replicas at entry ${index}`)
    this.options.host.touch(replica)
  }
}

/** The digest that more than half of those who gave one agree on is right. */
function judge(group: number, index: number, replicas: readonly ReplicaDigest[]): VerifyResult {
  const given = replicas.filter(each => each.digest !== null)
  const votes = new Map<string, number>()
  for (const { digest } of given) votes.set(textOf(digest), (votes.get(textOf(digest)) ?? 0) + 1)
  if (votes.size <= 1) {
    const verdict = given.length === replicas.length ? 'equal' : 'incomplete'
    return { shard: group, index, verdict, replicas }
  }
  const right = [...votes].find(([, count]) => count * 2 > given.length)?.[0] ?? null
  return {
    shard: group,
    index,
    verdict: 'differs',
    replicas: replicas.map(each =>
      each.digest !== null && right !== null && textOf(each.digest) !== right
        ? { ...each, state: 'odd' }
        : each.digest !== null && right === null
          ? { ...each, state: 'disputed' }
          : each,
    ),
  }
}

function textOf(digest: RowsDigest | null): string {
  return JSON.stringify(digest)
}
