import { thisRelease } from '../commands/release.ts'
import { RoundhouseError } from '../errors.ts'
import type { Host } from '../shard/host.ts'
import { type Controller, isPassing } from './controller.ts'
import { levelOfNode } from './feature-level.ts'
import type { FoundRequest, JoinRequest, UnfitAnswer } from './meta-commands.ts'
import { differencesOf, metaGroup, type RegisteredNode } from './meta-register.ts'
import type { NodeOptions } from './node.ts'

/**
 * How a node comes into a cluster: it founds one, joins one, or is a member already; and how it learns that it was let go.
 * Which cluster a directory belongs to is decided once and noted durably before anything is promised in it.
 */
export interface ClusterAnswer {
  /** null: the node that answers belongs to none. */
  readonly clusterId: string | null
  /** The asker was let go: what happened after that does not reach it any more. */
  readonly hasLeft: boolean
}

export interface JoinAnswer {
  readonly clusterId: string
  readonly node: RegisteredNode
  readonly nodes: readonly RegisteredNode[]
}

/** A member asks now and then whether it was let go while it was away; a leaving one with every heartbeat. */
const heartbeatsBetweenQuestions = 10
const joinPauseMs = 300
const askTimeoutMs = 3_000
const firstMetaReplica = 1
const firstShardReplica = 2

export interface MembershipOptions {
  readonly node: NodeOptions
  readonly host: Host
  readonly controller: Controller
  readonly isStopping: () => boolean
  readonly pause: (ms: number) => Promise<void>
  /** Of nodes that this one has heard of. */
  readonly addresses: () => readonly string[]
  /** Who the members are and where: until the register is here, these are the ways to the others. */
  readonly onMembers: (nodes: readonly RegisteredNode[]) => void
  readonly onLeft: () => void
  readonly onFatal: (error: Error) => void
}

export class Membership {
  clusterId: string | null
  private readonly options: NodeOptions
  private readonly host: Host
  private readonly controller: Controller
  private readonly around: MembershipOptions
  private isAnnouncing = false
  /** Addresses that the cluster's name stood for when it was last looked up. */
  private behindName: readonly string[] = []

  constructor(options: MembershipOptions) {
    this.around = options
    this.options = options.node
    this.host = options.host
    this.controller = options.controller
    this.clusterId = options.node.clusterId
  }

  async enter(): Promise<void> {
    const { log } = this.options
    if (this.clusterId === null && this.options.isBootstrap && (await this.mayFound())) {
      await this.found()
      return
    }
    const hadCluster = this.clusterId !== null
    // What an unfinished founding left leads nothing in the cluster that is joined now.
    if (!hadCluster) for (const replica of [...this.host.all()]) await this.host.destroy(replica.id)
    const node = await this.join()
    if (node === null) return
    const metaReplica =
      hadCluster && node.state !== 'joining' ? await this.anotherMetaReplica(node) : node.metaReplica
    await this.host.create(metaGroup, metaReplica)
    log.info('joined', { cluster: this.clusterId, metaReplica })
  }

  /**
   * A start that takes long without having seen the register. After a crash in the middle of joining it knows nobody:
   * whoever is asked again tells the addresses. And the replica of the meta shard may have been found damaged only after it
   * was brought back: without the register nothing else would ask for another one.
   */
  async enterAgain(): Promise<void> {
    const node = await this.join()
    if (node === null || this.host.group(metaGroup)?.halted == null) return
    await this.host.create(metaGroup, await this.anotherMetaReplica(node))
  }

  /** The seeds of a member are of its own cluster, or this is the directory of another one. Silence says nothing. */
  checkSeeds(): void {
    for (const seed of this.seeds()) {
      this.options.peers.ask(seed, 'cluster', '{}', askTimeoutMs).then(
        answer => {
          const theirs = (JSON.parse(answer) as ClusterAnswer).clusterId
          const ours = this.clusterId
          if (ours !== null && theirs !== null && theirs !== ours)
            this.around.onFatal(new RoundhouseError('WRONG_CLUSTER', { ours, theirs }))
        },
        () => {},
      )
    }
  }

  /** A member comes in without its replica of the meta shard: it is damaged, and the cluster gives it another. */
  private async anotherMetaReplica({ nodeId, metaReplica }: RegisteredNode): Promise<number> {
    const unfit = this.host.unfit()
    // Rot may have taken the record of whose it is as well: then the id tells.
    const isDamaged = unfit.has(metaReplica) || [...unfit.values()].some(({ group }) => group === metaGroup)
    // Its files could not be read at the start, and are tried again: nothing is lost.
    if (!isDamaged && this.host.knows(metaReplica)) return metaReplica
    // Not even a trace of it: the journal is lost, and with it votes and entries that others count on.
    if (!isDamaged) {
      const why = `its replica of the meta shard is gone; to rebuild the node from the others run "roundhouse replace ${nodeId} ${nodeId}", then start it with an empty directory`
      throw new RoundhouseError('STORAGE_FAILED', { what: 'journal', why })
    }
    // Asked and answered by an earlier start that came no further.
    if (!this.host.knows(metaReplica)) return metaReplica
    const request = { group: metaGroup, replica: metaReplica }
    const answer = await this.retry(() => this.controller.execute<UnfitAnswer>('META.UNFIT', request))
    return answer?.metaReplica ?? metaReplica
  }

  /**
   * A cluster is founded only after every seed said that it knows of none. Silence means wait: the seed may be a member of
   * the cluster that this node belonged to before it lost its volume.
   */
  private async mayFound(): Promise<boolean> {
    const knowNone = new Set<string>()
    for (let round = 0; !this.around.isStopping(); round++) {
      const isNameKnown = await this.lookUp(round)
      const seeds = this.seeds()
      for (const seed of seeds) {
        if (knowNone.has(seed)) continue
        try {
          const answer = await this.options.peers.ask(seed, 'cluster', '{}', askTimeoutMs)
          const { clusterId } = JSON.parse(answer) as ClusterAnswer
          if (clusterId !== null) return false
          knowNone.add(seed)
        } catch (error) {
          if (round % 20 === 0)
            this.options.log.info('waiting for a seed before founding a cluster', {
              seed,
              why: (error as Error).message,
            })
        }
      }
      // A name that stands for nobody yet is silence too.
      if (isNameKnown && seeds.every(seed => knowNone.has(seed))) return true
      await this.around.pause(joinPauseMs)
    }
    return true
  }

  /** Finds out who is behind the cluster's name now; false when it stands for nobody, and then who was there last counts. */
  private async lookUp(round: number): Promise<boolean> {
    const { discoverSeeds, log } = this.options
    if (discoverSeeds === undefined) return true
    try {
      this.behindName = await discoverSeeds()
      return this.behindName.length > 0
    } catch (error) {
      if (round % 20 === 0) log.info('waiting for the name of the cluster', { why: (error as Error).message })
      return false
    }
  }

  private seeds(): string[] {
    const { seeds, peerAddress } = this.options
    return [...new Set([...seeds, ...this.behindName])].filter(seed => seed !== peerAddress)
  }

  private async found(): Promise<void> {
    const { options, host } = this
    const clusterId = hex(options.random.bytes(16))
    const { shardCount } = options.cluster
    const groups = [
      { group: metaGroup, replica: firstMetaReplica },
      ...Array.from({ length: shardCount }, (_, shard) => ({
        group: shard,
        replica: firstShardReplica + shard,
      })),
    ]
    // A crash on the way leaves replicas without a cluster id; the next start goes on where this one was.
    await Promise.all(
      groups
        .filter(({ replica }) => host.replica(replica) === undefined)
        .map(each => host.found(each.group, each.replica)),
    )
    const request: FoundRequest = {
      clusterId,
      settings: options.cluster,
      firstReplica: firstShardReplica,
      node: { ...this.self(), metaReplica: firstMetaReplica },
    }
    await this.retry(() => this.controller.execute('META.FOUND', request))
    while (this.controller.register === null && !this.around.isStopping()) await this.around.pause(5)
    this.setCluster(this.controller.register?.clusterId ?? clusterId)
    options.log.info('founded a cluster', { cluster: this.clusterId, shards: shardCount })
  }

  private async join(): Promise<RegisteredNode | null> {
    const { options } = this
    if (this.clusterId === null && this.ways().length === 0 && options.discoverSeeds === undefined)
      throw new RoundhouseError('NOT_READY', {
        why: 'this directory belongs to no cluster: start with --bootstrap to found one, or with --seed HOST:PORT to join one',
      })
    for (let round = 0; !this.around.isStopping(); round++) {
      await this.lookUp(round)
      for (const seed of this.ways()) {
        try {
          const answer = await options.peers.ask(
            seed,
            'join',
            JSON.stringify(this.joinRequest()),
            askTimeoutMs,
          )
          const { clusterId, node, nodes } = JSON.parse(answer) as JoinAnswer
          if (this.clusterId !== null && this.clusterId !== clusterId)
            throw new RoundhouseError('WRONG_CLUSTER', { ours: this.clusterId, theirs: clusterId })
          this.setCluster(clusterId)
          this.around.onMembers(nodes)
          return node
        } catch (error) {
          if (!isPassing(error)) throw error
          if (round % 20 === 0) options.log.info('waiting to join', { seed, why: (error as Error).message })
        }
      }
      await this.around.pause(joinPauseMs)
    }
    return null
  }

  /** Whom to ask: the seeds, and who has sent a heartbeat. */
  private ways(): string[] {
    const heardOf = this.around.addresses().filter(address => address !== this.options.peerAddress)
    return [...new Set([...this.seeds(), ...heardOf])]
  }

  private joinRequest(): JoinRequest {
    const { expected } = this.options
    return expected === undefined ? this.self() : { ...this.self(), expected }
  }

  private self(): Omit<JoinRequest, 'expected'> {
    const { nodeId, storeId, peerAddress, clientAddress, zone } = this.options
    return { nodeId, storeId, peerAddress, clientAddress, zone, level: this.level }
  }

  private get level(): number {
    return (this.options.release ?? thisRelease).level
  }

  /** The others may have written what this release can't read: replicas that meet it stop, and so does the node. */
  refuseOlderRelease(): void {
    const { register } = this.controller
    if (register === null || register.level <= this.level) return
    const { nodeId: node } = this.options
    throw new RoundhouseError('RELEASE_TOO_OLD', { node, supported: this.level, level: register.level })
  }

  /**
   * A member that is started with other settings than its cluster has is refused as a joiner is: what a person wrote would
   * silently not be so, and on all nodes after a rolling restart.
   */
  refuseOtherSettings(): void {
    const { register } = this.controller
    if (register === null) return
    const differences = differencesOf(this.options.expected ?? {}, register.settings)
    if (differences !== null) throw new RoundhouseError('SETTINGS_DIFFER', { differences })
  }

  private setCluster(clusterId: string): void {
    this.clusterId = clusterId
    this.options.setClusterId(clusterId)
  }

  /**
   * Tells the register when this node's addresses, or what its release supports, are not what it holds; at each change of
   * it, for this node's copy may have been an old one at the start.
   */
  async announce(): Promise<void> {
    try {
      this.refuseOlderRelease()
    } catch (error) {
      this.around.onFatal(error as Error)
      return
    }
    const own = this.controller.register?.nodes.find(node => node.nodeId === this.options.nodeId)
    const request = this.joinRequest()
    if (own === undefined || this.isAnnouncing) return
    const isSame =
      own.peerAddress === request.peerAddress &&
      own.clientAddress === request.clientAddress &&
      own.zone === request.zone &&
      levelOfNode(own) === request.level
    if (isSame) return
    this.isAnnouncing = true
    try {
      await this.retry(() => this.controller.execute('META.JOIN', request))
    } catch (error) {
      this.around.onFatal(error as Error)
    } finally {
      this.isAnnouncing = false
    }
  }

  private async retry<Answer>(work: () => Promise<Answer>): Promise<Answer | null> {
    while (!this.around.isStopping()) {
      try {
        return await work()
      } catch (error) {
        if (!isPassing(error)) throw error
        await this.around.pause(50)
      }
    }
    return null
  }

  /** The entry that lets a node go may never reach it: it is out of the meta shard then. So it asks. */
  askWhetherLeft(address: string, heartbeat: number): void {
    const own = this.controller.register?.nodes.find(node => node.nodeId === this.options.nodeId)
    if (own?.state !== 'leaving' && heartbeat % heartbeatsBetweenQuestions !== 1) return
    this.options.peers.ask(address, 'cluster', '{}', askTimeoutMs).then(
      answer => {
        if ((JSON.parse(answer) as ClusterAnswer).hasLeft) this.around.onLeft()
      },
      () => {
        // The next heartbeat asks somebody else.
      },
    )
  }
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('')
}
