import type { CommandTable } from '../../src/commands/machine.ts'
import { commands } from '../../src/commands/table.ts'
import { type Bytes, fromUtf8 } from '../../src/lib/bytes.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import { Prng } from '../../src/lib/prng.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { Host } from '../../src/shard/host.ts'
import type { JournalRecord, PeerMessage, ReplicaRecovery, Room } from '../../src/shard/ports.ts'
import type { Settled } from '../../src/shard/proposal.ts'
import { defaultRaftSettings } from '../../src/shard/replica.ts'
import { Journal } from '../../src/storage/journal.ts'
import { MemoryStateStore, StatePlatter } from '../../src/storage/memory-state.ts'
import { SimDisk } from '../lib/sim-disk.ts'
import { ProcessClock, World } from '../sim/world.ts'

/** The journal's segments are small here, so that a test can make it turn them. */
const segmentBytes = 64 * 1024
export const firstSegment = 'journal/segment-000001'

/** One process on one machine: what a start opens. */
export interface Life {
  readonly clock: ProcessClock
  readonly journal: Journal
  readonly recovered: readonly ReplicaRecovery[]
  readonly state: MemoryStateStore
  readonly host: Host
  readonly sent: { readonly node: string; readonly frame: readonly PeerMessage[] }[]
  readonly fatal: Error[]
}

/** A node's host alone with its disk, on simulated time: the real journal, the twin of the state, nobody to talk to. */
export class LoneHost {
  readonly world: World
  readonly disk: SimDisk
  readonly platter = new StatePlatter()
  table: CommandTable = commands
  uncommittedBytesMax = 1 << 28
  /** What the next life knows of room on disks; null: there always is. */
  room: Room | null = null
  /** Lives started, this one included. */
  private lives = 0
  private clock: ProcessClock
  private current: Life | null = null

  constructor(seed = 1) {
    this.world = new World(seed)
    this.clock = new ProcessClock(this.world)
    this.disk = new SimDisk({ schedule: run => this.clock.soon(0.2, run) })
  }

  get life(): Life {
    if (this.current === null) throw new Error('no process runs')
    return this.current
  }

  get host(): Host {
    return this.life.host
  }

  /** A process that has opened what is on disk and looked at nothing yet. */
  open(): Life {
    const clock = new ProcessClock(this.world)
    this.clock = clock
    const random = new Prng(++this.lives)
    const { journal, recovered } = Journal.open({
      disk: this.disk,
      directory: 'journal',
      clock,
      random: random.fork(),
      segmentBytes,
      budgetBytes: 8 * segmentBytes,
    })
    const state = new MemoryStateStore({
      platter: this.platter,
      schedule: run => clock.soon(1, run),
      random: random.fork(),
      recordHome: {
        ...{ disk: this.disk, map: heapMapper(this.disk), random: random.fork(), warm: new WarmSegments() },
        segmentBytesMax: 1024,
      },
    })
    const sent: Life['sent'] = []
    const fatal: Error[] = []
    const host = new Host({
      nodeId: 'n1',
      journal,
      state,
      outbox: { send: (node, _, frame) => void sent.push({ node, frame }) },
      clock,
      random,
      log: silentLogger,
      raft: defaultRaftSettings,
      uncommittedBytesMax: this.uncommittedBytesMax,
      schedule: run => clock.soon(0, run),
      tableOf: () => this.table,
      medianWallMs: () => clock.wall(),
      fetch: () => Promise.reject(new Error('there is nobody to fetch from')),
      fetchBytesPerSecond: 1e9,
      reportFailure: () => {},
      ...(this.room === null ? {} : { room: this.room }),
      onFatal: error => void fatal.push(error),
      onProgress: () => {},
    })
    this.current = { clock, journal, recovered, state, host, sent, fatal }
    return this.current
  }

  /** A process that goes on where the last one was, and ticks. */
  start(): Life {
    const life = this.open()
    life.host.recover(life.recovered)
    const tick = () => {
      life.host.tick()
      life.clock.after(50, tick)
    }
    life.clock.after(50, tick)
    return life
  }

  /** kill -9: what was synced stays. */
  kill(): void {
    this.clock.isAlive = false
    this.disk.crashWith({
      random: new Prng(1),
      names: () => 0,
      sector: () => 'lost',
      size: (_, synced) => synced,
    })
    this.current?.state.crash()
    this.current = null
  }

  async restart(): Promise<Life> {
    this.kill()
    const life = this.start()
    await this.run(100)
    return life
  }

  run(ms: number, isDone?: () => boolean): Promise<boolean> {
    return this.world.run(this.world.nowMs + ms, isDone)
  }

  /** Makes a group of one and waits until it is led. */
  async found(group: number, replica: number): Promise<void> {
    await this.waitFor(this.host.found(group, replica))
    await this.led(replica)
  }

  async led(replica: number): Promise<void> {
    const leads = () => this.host.replica(replica)?.isLeader === true
    if (!(await this.run(10_000, leads))) throw new Error(`replica ${replica} does not lead`)
  }

  /** The first segment of the journal as it is. */
  journalBytes(): Bytes {
    if (!this.disk.exists(firstSegment)) return new Uint8Array(0)
    const file = this.disk.open(firstSegment)
    const bytes = file.read(0, segmentBytes)
    file.close()
    return bytes
  }

  async waitFor<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false
    const settle = () => {
      isSettled = true
    }
    promise.then(settle, settle)
    if (!(await this.run(60_000, () => isSettled))) throw new Error('it never settles')
    return promise
  }

  /** Writes straight to the journal, as a former life would have left it. */
  async write(...records: readonly (Partial<JournalRecord> & { readonly replica: number })[]): Promise<void> {
    const batch = records.map(record => ({ hardState: null, entries: [], ...record }))
    await this.waitFor(
      new Promise<void>((resolve, reject) => {
        this.life.journal.write(batch, error => (error === null ? resolve() : reject(error)))
      }),
    )
  }

  /** Proposes an operation at a replica; the list gets what its caller is told, each time it is told something. */
  propose(replica: number, command: string, ...args: readonly string[]): Settled[] {
    const told: Settled[] = []
    const found = this.host.replica(replica)
    if (found === undefined) throw new Error(`no replica ${replica}`)
    found.enqueueWrite({
      operations: [{ command, args: args.map(fromUtf8) }],
      session: null,
      deadline: this.clock.now() + 5_000,
      settle: result => void told.push(result),
    })
    this.host.touch(found)
    return told
  }

  async put(replica: number, key: string, value: string): Promise<Settled> {
    const told = this.propose(replica, 'SET', key, value)
    if (!(await this.run(10_000, () => told.length > 0))) throw new Error(`SET ${key} is never answered`)
    return told[0]!
  }

  /** What a key holds at a replica, as it is. */
  get(replica: number, key: string): string | null {
    const reply = this.host.replica(replica)?.peek(commands.get('GET')!, [fromUtf8(key)])
    return reply?.kind === 'value' ? Buffer.from(reply.value).toString() : null
  }
}
