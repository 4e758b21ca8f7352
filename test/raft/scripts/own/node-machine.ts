/**
 * One node alone, as a script drives it: a host with the real journal on a simulated disk, and peers that are made up.
 * A directive prints, in the order in which it happened:
 *
 *   write                            a batch goes to the journal: one write, one sync
 *     7: term 2 vote 7 commit 3, entries 2/4 to 2/5      (`nothing`: an answer waits for all before it, and that is there)
 *   synced                           … and is on disk
 *   n9: 7->9 MsgAppResp Term:2 …     a frame leaves for a node; its messages, if there are more, have a line each
 *   a: 1 at index 5                  a caller is told
 *   7 leads in term 2                what became of a replica
 *
 * Directives:
 *   disk                    a former life left these, a frame a line:
 *                           `7 group=3 voters=(7@n1,8@n8) term=1 vote=7 commit=4 entries=1/2..1/5 reset`
 *   rot frame=2 byte=40     a bit of that byte of the frame flips while no process runs
 *   start, restart, kill    the process; a restart is behind kill -9: only what was synced is there
 *   found group=3 replica=7, create group=3 replica=7, destroy replica=7
 *                           with `quiet`: only what became of it
 *   campaign replica=7
 *   propose                 at the same time, a caller a line: `a 7 SET k v session=s/1/1` (session/sequence/acked below)
 *   fill replica=7 session=s from=2 to=1024    a caller for each sequence, told in sum
 *   receive from=n9         messages of a peer, one a line: `MsgApp 9->7 term=2 log=1/1 commit=1 entries=2/2..2/3`,
 *                           a granted vote with the log that it was asked for: `granted=1/3`
 *   stall, unstall          the disk hangs; it goes on
 *   checkpoint replica=7
 *   run ms=1000             nothing but time
 *   get replica=7 key=k     as it is there now
 *   status                  all replicas of the node
 */
import { decodeEnvelope } from '../../../../src/commands/envelope.ts'
import { emptyBytes, fromUtf8, toUtf8 } from '../../../../src/lib/bytes.ts'
import { encodePosition } from '../../../../src/raft/position.ts'
import { draft, type Entry, type Message, type MessageKind } from '../../../../src/raft/types.ts'
import { encodeConfiguration, noConfState } from '../../../../src/shard/configuration.ts'
import type { JournalRecord } from '../../../../src/shard/ports.ts'
import type { Replica } from '../../../../src/shard/replica.ts'
import { firstSegment, type Life, LoneHost } from '../../../shard/lone-host.ts'
import { watchJournal } from '../../../sim/watched.ts'
import { argOf, argsOf, type Directive } from '../datadriven.ts'
import { describeMessage } from '../describe.ts'
import { ask, describeSettled, parseCall, peek, Sessions } from './operations.ts'
import type { Machine } from './script.ts'

/** Long enough for a write and all that follows from it, shorter than a tick. */
const settleMs = 20
/** How long a caller waits. */
const deadlineMs = 5_000

class WatchedHost extends LoneHost {
  readonly happened: string[] = []
  isQuiet = false

  private tell(...lines: readonly string[]): void {
    if (!this.isQuiet) this.happened.push(...lines)
  }

  override open(): Life {
    const life = super.open()
    watchJournal(life.journal, {
      writing: batch => this.tell('write', ...batch.map(record => `  ${describeRecord(record)}`)),
      written: () => this.tell('synced'),
      removing: () => {},
      removed: replica => this.tell(`tombstone of ${replica} synced`),
    })
    // In place, so that what leaves stands between what was written before and after it.
    const { sent } = life
    const push = sent.push.bind(sent)
    sent.push = (...frames) => {
      for (const { node, frame } of frames)
        this.tell(
          ...describeFrame(
            node,
            frame.map(({ message }) => message),
          ),
        )
      return push(...frames)
    }
    return life
  }
}

export class NodeMachine implements Machine {
  private readonly lone = new WatchedHost()
  private readonly sessions = new Sessions()
  private readonly frames: number[] = []
  /** What was last said of each replica. */
  private said = new Map<number, string>()
  private isRunning = false

  async run(directive: Directive): Promise<readonly string[]> {
    const { happened } = this.lone
    happened.length = 0
    this.lone.isQuiet = directive.args.some(({ key }) => key === 'quiet')
    await this.act(directive)
    if (this.isRunning) {
      await this.lone.run(settleMs)
      this.lone.isQuiet = false
      this.tellOfReplicas()
    }
    return [...happened]
  }

  private async act(directive: Directive): Promise<void> {
    const { lone } = this
    const replica = Number(argOf(directive, 'replica') ?? 0)
    switch (directive.name) {
      case 'disk':
        return this.leave(directive.input)
      case 'rot':
        return this.rot(Number(argOf(directive, 'frame')), Number(argOf(directive, 'byte')))
      case 'kill':
        return this.kill()
      case 'restart':
        this.kill()
        return this.start()
      case 'start':
        return this.start()
      case 'found':
        return this.soon(lone.host.found(groupOf(directive), replica))
      case 'create':
        return this.soon(lone.host.create(groupOf(directive), replica))
      case 'destroy':
        return this.soon(lone.host.destroy(replica))
      case 'campaign':
        this.at(replica).raft.campaign()
        return lone.host.touch(this.at(replica))
      case 'propose':
        return this.propose(directive.input)
      case 'fill':
        return this.fill(directive, replica)
      case 'receive':
        return this.receive(directive)
      case 'stall':
        return lone.disk.stall()
      case 'unstall':
        return lone.disk.unstall()
      case 'checkpoint':
        return this.checkpoint(replica)
      case 'run':
        await lone.run(Number(argOf(directive, 'ms')) - settleMs)
        return
      case 'get': {
        const key = argOf(directive, 'key') ?? ''
        lone.happened.push(peek(this.at(replica), key))
        return
      }
      case 'status':
        this.said.clear()
        if (this.replicaStates().size === 0) lone.happened.push('no replicas')
        return
      default:
        throw new Error(`unknown directive ${directive.name}`)
    }
  }

  private at(id: number): Replica {
    const replica = this.lone.host.replica(id)
    if (replica === undefined) throw new Error(`no replica ${id} here`)
    return replica
  }

  /** It may wait for a disk that hangs: the script goes on. */
  private async soon(promise: Promise<void>): Promise<void> {
    promise.catch((error: Error) => void this.lone.happened.push(`failed: ${error.message}`))
    await this.lone.run(settleMs)
  }

  private async leave(lines: readonly string[]): Promise<void> {
    this.lone.open()
    this.lone.isQuiet = true
    for (const line of lines) {
      const before = this.lone.journalBytes()
      await this.lone.write(parseRecord(line))
      const after = this.lone.journalBytes()
      this.frames.push(after.findIndex((byte, i) => byte !== before[i]))
    }
    this.lone.kill()
    this.lone.isQuiet = false
  }

  private rot(frame: number, byte: number): void {
    const at = this.frames[frame - 1]
    if (at === undefined || this.isRunning) throw new Error('no such frame, or a process runs')
    this.lone.disk.flipBit(firstSegment, at + byte)
  }

  private kill(): void {
    this.lone.kill()
    this.isRunning = false
    this.said.clear()
  }

  private start(): void {
    this.lone.start()
    this.isRunning = true
  }

  private propose(lines: readonly string[]): void {
    const { clock, host } = this.lone.life
    for (const line of lines) {
      const call = parseCall(line)
      const replica = this.at(Number(call.where))
      const session = this.sessions.use(call.session, clock.wall())
      ask(replica, call, session, clock.now() + deadlineMs, settled => {
        this.lone.happened.push(`${call.caller}: ${describeSettled(settled, true)}`)
      })
      host.touch(replica)
    }
  }

  private async fill(directive: Directive, replica: number): Promise<void> {
    const { clock, host } = this.lone.life
    const name = argOf(directive, 'session') ?? ''
    const told = new Map<string, number>()
    this.lone.isQuiet = true
    let left = 0
    for (let n = Number(argOf(directive, 'from')); n <= Number(argOf(directive, 'to')); n++) {
      const call = parseCall(`a ${replica} INCR n session=${name}/${n}/1`)
      const session = this.sessions.use(call.session, clock.wall())
      left++
      ask(this.at(replica), call, session, clock.now() + deadlineMs, settled => {
        left--
        const outcome = settled.ok ? 'done' : describeSettled(settled, false)
        told.set(outcome, (told.get(outcome) ?? 0) + 1)
      })
    }
    host.touch(this.at(replica))
    await this.lone.run(deadlineMs, () => left === 0)
    for (const [outcome, count] of told) this.lone.happened.push(`${count} ${outcome}`)
  }

  private receive(directive: Directive): void {
    const messages = directive.input.map(parseMessage)
    // Nothing is looked up by the group of a peer's message: the replica's id says all.
    this.lone.host.receive(
      argOf(directive, 'from') ?? '',
      messages.map(message => ({ group: 0, message })),
    )
  }

  private async checkpoint(id: number): Promise<void> {
    const replica = this.at(id)
    void this.lone.host.checkpoint(replica)
    await this.lone.run(settleMs)
    this.lone.happened.push(`checkpoint of ${id} at ${replica.state.checkpointed?.index}`)
  }

  private replicaStates(): Map<number, string> {
    const { host } = this.lone
    const states = new Map<number, string>()
    for (const replica of host.all()) {
      const { term, lead } = replica.raft
      const led = lead === 0 ? 'has no leader' : `follows ${lead}`
      const role = replica.isLeader ? 'leads' : led
      states.set(replica.id, `${role} in term ${term}, applied ${replica.appliedIndex}`)
    }
    for (const [id, { why }] of host.unfit()) states.set(id, `is quarantined: ${why}`)
    return states
  }

  private tellOfReplicas(): void {
    const states = this.replicaStates()
    for (const [id, state] of [...states].sort(([a], [b]) => a - b))
      if (this.said.get(id) !== state) this.lone.happened.push(`${id} ${state}`)
    for (const id of this.said.keys()) if (!states.has(id)) this.lone.happened.push(`${id} is not here`)
    this.said = states
  }
}

const groupOf = (directive: Directive): number => Number(argOf(directive, 'group'))

function describeFrame(node: string, messages: readonly Message[]): string[] {
  const lines = messages.map(message => {
    const entries = message.entries.map(entry => (entry.kind === 'normal' ? readable(entry) : entry))
    return describeMessage({ ...message, entries })
  })
  const [only = ''] = lines
  if (lines.length === 1) return `${node}: ${only}`.split('\n')
  return [`${node}:`, ...lines.flatMap(line => line.split('\n')).map(line => `  ${line}`)]
}

/** Its commands in place of their bytes. */
function readable(entry: Entry): Entry {
  if (entry.data.byteLength === 0) return entry
  const { operations } = decodeEnvelope(entry.data)
  const text = operations.map(({ command, args }) => [command, ...args.map(toUtf8)].join(' ')).join('; ')
  return { ...entry, data: fromUtf8(text) }
}

/** Words `key=value` of a line; a bare word is its own value. */
function wordsOf(line: string): Directive {
  return { line: 0, name: '', input: [], expected: [], args: parseWords(line) }
}

function parseWords(line: string): Directive['args'] {
  return line
    .trim()
    .split(/\s+/)
    .map(word => {
      const [, key = word, list, single] = /^([^=]+)(?:=(?:\((.*)\)|(.*)))?$/.exec(word) ?? []
      return { key, values: list?.split(',') ?? (single === undefined ? [] : [single]) }
    })
}

/** `1/2..1/5` → the entries of term 1 from 2 to 5. */
function parseEntries(text: string | null, data = emptyBytes): Entry[] {
  if (text === null) return []
  const [first = '', last = first] = text.split('..')
  const [term = 0, from = 0] = first.split('/').map(Number)
  const to = Number(last.split('/')[1])
  return Array.from({ length: to - from + 1 }, (_, i) => ({ term, index: from + i, kind: 'normal', data }))
}

function parseRecord(line: string): Partial<JournalRecord> & { readonly replica: number } {
  const words = wordsOf(line)
  const replica = Number(words.args[0]?.key)
  const number = (key: string) => Number(argOf(words, key) ?? 0)
  const voters = argsOf(words, 'voters')?.map(voter => voter.split('@')) ?? null
  const term = number('term')
  return {
    replica,
    hardState: term === 0 ? null : { term, vote: number('vote'), commit: number('commit') },
    entries: parseEntries(argOf(words, 'entries')),
    ...(voters === null
      ? {}
      : {
          configuration: encodeConfiguration({
            group: number('group'),
            index: 1,
            operation: 0,
            members: voters.map(([id, node = '']) => ({ replica: Number(id), node })),
            confState: { ...noConfState, voters: voters.map(([id]) => Number(id)) },
          }),
          reset: { index: 1, term: 1 },
        }),
  }
}

function parseMessage(line: string): Message {
  const words = wordsOf(line)
  const [kind, path] = words.args.map(({ key }) => key)
  const [from = 0, to = 0] = (path ?? '').split('->').map(Number)
  const [logTerm = 0, index = 0] = (argOf(words, 'log') ?? '0/0').split('/').map(Number)
  const granted = argOf(words, 'granted')?.split('/').map(Number)
  return {
    ...draft(kind as MessageKind, to, from, Number(argOf(words, 'term'))),
    logTerm,
    index,
    commit: Number(argOf(words, 'commit') ?? 0),
    entries: parseEntries(argOf(words, 'entries')),
    ...(granted === undefined ? {} : { context: encodePosition(granted[1] ?? 0, granted[0] ?? 0) }),
  }
}

function describeRecord({ replica, hardState, entries, configuration, reset }: JournalRecord): string {
  const parts: string[] = []
  if (hardState !== null) {
    const { term, vote, commit } = hardState
    parts.push(`term ${term} vote ${vote} commit ${commit}`)
  }
  const [first, last] = [entries[0], entries.at(-1)]
  if (first !== undefined && last !== undefined)
    parts.push(
      first === last
        ? `entry ${first.term}/${first.index}`
        : `entries ${first.term}/${first.index} to ${last.term}/${last.index}`,
    )
  if (configuration !== undefined) parts.push('configuration')
  if (reset !== undefined) parts.push(`log begins after ${reset.term}/${reset.index}`)
  return `${replica}: ${parts.length === 0 ? 'nothing' : parts.join(', ')}`
}
