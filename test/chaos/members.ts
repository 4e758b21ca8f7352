/**
 * The nodes of a chaos run: real processes that reach each other through proxies and their disks through
 * `disk-faults.mjs`, while clients reach them directly. Who runs, who is a member, whose disk was hurt, and which ends of
 * processes nobody asked for.
 */
import { closeSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { StatusResponse } from '../../src/gen/roundhouse/v1/admin.ts'
import type { Random } from '../../src/lib/prng.ts'
import { Client } from '../lib/cluster-client.ts'
import { eventually } from '../lib/cluster-harness.ts'
import { type Exit, freePort, NodeProcess, removeDirectory, temporaryDirectory } from '../lib/cluster-node.ts'
import { Network, type NodeProxy } from './network.ts'

const preload = pathToFileURL(join(import.meta.dirname, 'disk-faults.mjs')).href
const wheelBytes = 32
/** A process that ended by itself is started again after so long, ms. */
const restartMs = 500
/** Between two looks at a cluster with a hurt disk, ms. */
const lookAgainMs = 1_000
/** After so many that no fault explains they are left alone: the run has failed. */
const deathsMax = 10

export type Wheel = 'stall' | 'failSync' | 'full' | 'slowMs' | 'failed'
const wheelPlaces: Readonly<Record<Wheel, number>> = { stall: 0, failSync: 1, full: 2, slowMs: 3, failed: 4 }

export interface Member {
  readonly id: string
  readonly number: number
  readonly process: NodeProcess
  readonly proxy: NodeProxy
  readonly wheelPath: string
  /** up: shall run. down: somebody ended it and will start it again. left: out of the cluster, for good. */
  wish: 'up' | 'down' | 'left'
  isLeaving: boolean
  /** What was damaged or lost, as long as its replicas may not be whole; null: nothing. */
  hurt: 'journal' | 'state' | 'streams' | 'all' | null
}

export interface MembersOptions {
  readonly nodes: number
  readonly shardCount: number
  readonly flags: readonly string[]
  readonly random: Random
  readonly tell: (what: string, facts?: object) => void
}

export class Members {
  readonly directory: string = temporaryDirectory()
  readonly client: Client = new Client()
  readonly all: Member[] = []
  readonly network: Network
  /** Processes that ended though nobody ended them, and no fault was meant to. */
  readonly deaths: string[] = []
  private readonly options: MembersOptions
  private isClosing = false
  private onDeath: (error: Error) => void = () => {}

  constructor(options: MembersOptions) {
    this.options = options
    this.network = new Network(options.random)
  }

  async start(): Promise<void> {
    for (let number = 1; number <= this.options.nodes; number++) await this.add()
    await Promise.race([
      this.settled(120_000),
      new Promise<never>((_, reject) => {
        this.onDeath = reject
      }),
    ])
    this.onDeath = () => {}
  }

  /** Those that are, or will be, part of the cluster. */
  get members(): Member[] {
    return this.all.filter(each => each.wish !== 'left')
  }

  /** An address for clients: of a node that runs, where one does; clients can't see which are frozen or cut off. */
  readonly pick = (): string => {
    const { members } = this
    const running = members.filter(each => each.process.isRunning)
    const from = running.length > 0 ? running : members
    return from[this.options.random.below(from.length)]!.process.address
  }

  /** A new node joins: started, and no more. */
  async add(): Promise<Member> {
    const number = this.all.length + 1
    const id = `node${number}`
    const source = `127.0.1.${number}`
    const [port, proxyPort] = [await freePort(), await freePort()]
    const proxy = this.network.add(id, source, proxyPort, port)
    const dataDir = join(this.directory, id)
    const wheelPath = join(this.directory, `${id}.wheel`)
    writeFileSync(wheelPath, new Uint8Array(wheelBytes))
    const seeds = this.members.map(each => each.proxy.address).join(',')
    const process = new NodeProcess(id, port, dataDir, [
      ...['--shard-count', String(this.options.shardCount), ...this.options.flags],
      ...['--advertise-addr', proxy.address, '--advertise-client-addr', `127.0.0.1:${port}`],
      ...(seeds === '' ? ['--bootstrap'] : ['--seed', seeds]),
    ])
    process.env = {
      NODE_OPTIONS: `--import ${preload}`,
      ROUNDHOUSE_CHAOS_WHEEL: wheelPath,
      ROUNDHOUSE_CHAOS_DATA: dataDir,
      ROUNDHOUSE_CHAOS_SOURCE: source,
    }
    const member: Member = {
      id,
      number,
      process,
      proxy,
      wheelPath,
      wish: 'down',
      isLeaving: false,
      hurt: null,
    }
    this.all.push(member)
    this.up(member)
    return member
  }

  up(member: Member): void {
    member.wish = 'up'
    if (member.process.isRunning || this.isClosing) return
    member.process.start()
    member.proxy.open()
    void member.process.ended.then(exit => this.ended(member, exit))
  }

  /** kill -9, or a clean stop; it stays down until `up`. */
  async down(member: Member, how: 'kill' | 'stop'): Promise<Exit> {
    member.wish = 'down'
    this.thaw(member)
    const exit = await (how === 'kill' ? member.process.kill() : member.process.stop())
    return exit
  }

  freeze(member: Member): void {
    if (member.process.isAwake) member.process.freeze()
  }

  thaw(member: Member): void {
    if (member.process.isRunning && !member.process.isAwake) member.process.resume()
  }

  turn(member: Member, wheel: Wheel, value: number): void {
    const file = openSync(member.wheelPath, 'r+')
    writeSync(file, Uint8Array.of(value), 0, 1, wheelPlaces[wheel])
    closeSync(file)
  }

  reading(member: Member, wheel: Wheel): number {
    const bytes = new Uint8Array(1)
    const file = openSync(member.wheelPath, 'r')
    readSync(file, bytes, 0, 1, wheelPlaces[wheel])
    closeSync(file)
    return bytes[0]!
  }

  /** Asks until the cluster has taken it up; `left` when its process has ended with 0. */
  async leave(member: Member, untilMs: number): Promise<void> {
    member.isLeaving = true
    while (Date.now() < untilMs && member.wish !== 'left') {
      try {
        await this.client.leave(this.pick(), member.id)
        return
      } catch (error) {
        this.options.tell('leave is refused', { node: member.id, why: (error as Error).message })
      }
      await new Promise(resolve => setTimeout(resolve, 500))
    }
  }

  /** null: every member says that all is in place. */
  async trouble(): Promise<string | null> {
    const { members } = this
    const asleep = members.find(each => !each.process.isAwake)
    if (asleep !== undefined) return `${asleep.id} does not run`
    const leaving = members.find(each => each.isLeaving)
    if (leaving !== undefined) return `${leaving.id} is leaving`
    for (const member of members) {
      const trouble = unsettled(await this.client.status(member.process.address), members)
      if (trouble !== null) return `${member.id} says: ${trouble}`
    }
    return null
  }

  async settled(withinMs: number): Promise<void> {
    await eventually('the cluster is in place', withinMs, async () => {
      const trouble = await this.trouble()
      if (trouble !== null) throw new Error(trouble)
      return true
    })
  }

  /** Settled, and a state that was hurt has been read from its beginning to its end since. */
  async whole(withinMs: number): Promise<void> {
    const hurt = this.members.filter(each => each.hurt !== null)
    await eventually('hurt disks are read again', withinMs, async () => {
      for (const { id, process } of hurt.filter(each => each.hurt === 'state' || each.hurt === 'streams')) {
        const { counters } = await this.client.stats(process.address)
        if ((counters.scrub_rounds ?? 1) < 1)
          throw new Error(`${id} has not read all of its rows and records yet`)
      }
      return true
    })
    await this.settled(withinMs)
    // What a start finds broken is told to the others a moment later.
    if (hurt.length > 0) await new Promise(resolve => setTimeout(resolve, lookAgainMs))
    await this.settled(withinMs)
    for (const each of hurt) each.hurt = null
  }

  async close(): Promise<void> {
    this.isClosing = true
    this.client.close()
    await Promise.all(this.all.map(each => each.process.kill()))
    await this.network.close()
    removeDirectory(this.directory)
  }

  /** Its directory is lost. Who has none asks the others for the cluster, the founder too. */
  removeData(member: Member): void {
    const seeds = this.members.filter(each => each !== member).map(each => each.proxy.address)
    const place = member.process.flags.findIndex(each => each === '--bootstrap' || each === '--seed')
    member.process.flags = [...member.process.flags.slice(0, place), '--seed', seeds.join(',')]
    rmSync(member.process.dataDir, { recursive: true, force: true })
  }

  private ended(member: Member, exit: Exit): void {
    member.proxy.shut()
    if (this.isClosing || member.wish !== 'up') return
    if (member.isLeaving && exit.code === 0) {
      member.wish = 'left'
      this.options.tell('left', { node: member.id })
      return
    }
    const isMeant = this.reading(member, 'failed') !== 0
    this.turn(member, 'failed', 0)
    this.options.tell('ended by itself', {
      node: member.id,
      ...exit,
      after: isMeant ? 'a failed sync' : 'nothing',
    })
    if (!isMeant) {
      const death = `${member.id} ended by itself (${exit.signal ?? exit.code}): ${lastError(member)}`
      this.deaths.push(death)
      this.onDeath(new Error(death))
    }
    if (this.deaths.length >= deathsMax) return
    setTimeout(() => {
      if (member.wish === 'up') this.up(member)
    }, restartMs)
  }
}

function lastError({ process }: Member): string {
  const lines = process.output.trimEnd().split('\n')
  return (lines.findLast(line => /"level":"error"|Error/.test(line)) ?? lines.at(-1) ?? '').slice(0, 500)
}

/** What is not in place yet; null when nothing is missing. */
function unsettled(status: StatusResponse, members: readonly Member[]): string | null {
  const alive = status.nodes.filter(node => node.state === 'alive').map(node => node.nodeId)
  const wanted = members.map(each => each.id)
  const others = status.nodes.filter(node => !wanted.includes(node.nodeId) || !alive.includes(node.nodeId))
  if (others.length > 0) return others.map(node => `${node.nodeId} is ${node.state}`).join(', ')
  if (alive.length !== wanted.length) return `it knows ${alive.join(', ')} alone`
  const replicas = Math.min(3, wanted.length)
  for (const { shardId, leader, voters, learners } of [...status.shards, status.meta!]) {
    const name = shardId === status.meta!.shardId ? 'meta' : `shard ${shardId}`
    if (!alive.includes(leader)) return `${name} is led by ${leader === '' ? 'nobody' : leader}`
    if (name === 'meta') continue
    if (voters.length !== replicas || learners.length > 0)
      return `${name} has the voters ${voters.join(' ')} and the learners ${learners.join(' ')}`
  }
  const { state, blockedBy } = status.rebalance!
  return state === 'idle' ? null : `the rebalance is ${state} ${blockedBy}`
}
