/**
 * The interaction scripts: replicas with storage in memory, whose messages, writes and applies happen when the script
 * says so. Everything real is src/raft; this is the host, one that waits to be told.
 */
import { emptyBytes, fromUtf8 } from '../../../src/lib/bytes.ts'
import { Prng } from '../../../src/lib/prng.ts'
import { MemoryStorage } from '../../../src/raft/memory-storage.ts'
import type { Config, ProposeResult } from '../../../src/raft/raft.ts'
import { RawNode } from '../../../src/raft/raw-node.ts'
import {
  type ConfChange,
  type ConfState,
  type Entry,
  emptyConfState,
  type HardState,
  isLocalTarget,
  type Message,
  type Snapshot,
} from '../../../src/raft/types.ts'
import { argOf, argsOf, type Directive, idsOf } from './datadriven.ts'
import {
  describeEntry,
  describeMessage,
  describeProgress,
  describeReady,
  firstForm,
  parseChanges,
  roleNames,
} from './describe.ts'

class Node {
  readonly raw: RawNode
  readonly config: Config
  readonly storage: MemoryStorage
  readonly appendWork: Message[] = []
  readonly applyWork: Message[] = []
  /** The configuration that this state machine has applied. */
  private confState: ConfState

  constructor(config: Config, start: Snapshot | null) {
    this.config = config
    this.storage = new MemoryStorage()
    if (start !== null) this.storage.applySnapshot(start)
    this.confState = start?.meta.confState ?? emptyConfState
    this.raw = new RawNode(config, this.storage)
  }

  write(hardState: HardState | null, entries: readonly Entry[], snapshot: Snapshot | null): void {
    if (hardState !== null) this.storage.hardState = hardState
    if (snapshot !== null) {
      this.storage.applySnapshot(snapshot)
      this.confState = snapshot.meta.confState
    }
    this.storage.append(entries)
  }

  /** The state machine is its configuration; a snapshot of it is always at hand. */
  apply(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.kind === 'confChange')
        this.confState = this.raw.applyConfChange(this.raw.decodeConfChange(entry))
      const { index, term } = entry
      this.storage.saveSnapshot({ meta: { index, term, confState: this.confState }, data: emptyBytes })
    }
  }
}

export class InteractionScript {
  private readonly nodes: Node[] = []
  private messages: Message[] = []
  private isQuiet = false
  private indent = ''
  private lines: string[] = []

  run(directive: Directive): string[] {
    this.lines = []
    this.handle(directive)
    return this.lines.length === 0 ? ['ok'] : this.lines
  }

  private print(...lines: readonly string[]): void {
    if (!this.isQuiet) for (const line of lines) this.lines.push(this.indent + line)
  }

  private under(title: string, body: () => void): void {
    this.print(`> ${title}`)
    this.indent += '  '
    body()
    this.indent = this.indent.slice(2)
  }

  private node(id: number): Node {
    const node = this.nodes[id - 1]
    if (node === undefined) throw new Error(`no node ${id}`)
    return node
  }

  private handle(directive: Directive): void {
    const ids = idsOf(directive)
    const first = () => this.node(ids[0]!)
    const each = (title: string, act: (id: number) => void) => {
      for (const id of ids) {
        if (ids.length === 1) act(id)
        else this.under(`${id} ${title}`, () => act(id))
      }
    }
    switch (directive.name) {
      case 'add-nodes':
        this.addNodes(directive, ids[0]!)
        break
      case 'campaign':
        first().raw.campaign()
        break
      case 'compact':
        first().storage.compact(ids[1]!)
        break
      case 'deliver-msgs':
        this.deliver(ids, false)
        this.deliver((argsOf(directive, 'drop') ?? []).map(Number), true)
        break
      case 'forget-leader':
        first().raw.forgetLeader()
        break
      case 'log-level':
        this.isQuiet = directive.args[0]!.key === 'none'
        break
      case 'process-ready':
        each('handling Ready', id => this.processReady(id))
        break
      case 'process-append-thread':
        each('processing append thread', id => this.processAppend(id))
        break
      case 'process-apply-thread':
        each('processing apply thread', id => this.processApply(id))
        break
      case 'propose':
        this.report(first().raw.propose(fromUtf8(directive.args[1]!.key)))
        break
      case 'propose-conf-change':
        this.report(first().raw.proposeConfChange(changeOf(directive)))
        break
      case 'raft-log': {
        const { storage } = first()
        const entries = storage.entries(
          storage.firstIndex(),
          storage.lastIndex() + 1,
          Number.POSITIVE_INFINITY,
        )!
        this.print(...entries.map(describeEntry))
        break
      }
      case 'raft-state':
        this.printStates()
        break
      case 'set-randomized-election-timeout':
        first().raw.raft.setElectionTimeout(Number(argOf(directive, 'timeout')))
        break
      case 'stabilize':
        this.stabilize(directive, ids)
        break
      case 'status': {
        const { progress } = first().raw.status()
        this.print(...[...progress].map(([id, one]) => `${id}: ${describeProgress(one)}`))
        break
      }
      case 'tick-election':
      case 'tick-heartbeat': {
        const { raw, config } = first()
        const ticks = directive.name === 'tick-election' ? config.electionTick : config.heartbeatTick
        for (let i = 0; i < ticks; i++) raw.tick()
        break
      }
      case 'transfer-leadership':
        this.node(Number(argOf(directive, 'from'))).raw.transferLeader(Number(argOf(directive, 'to')))
        break
      default:
        throw new Error(`unknown directive ${directive.name}`)
    }
  }

  private addNodes(directive: Directive, count: number): void {
    const index = Number(argOf(directive, 'index') ?? 0)
    const list = (key: string) => (argsOf(directive, key) ?? []).map(Number)
    const isOn = (key: string) => argOf(directive, key) === 'true'
    const confState = { ...emptyConfState, voters: list('voters'), learners: list('learners') }
    const start = index === 0 ? null : { meta: { index, term: 1, confState }, data: emptyBytes }
    for (let i = 0; i < count; i++) {
      const id = this.nodes.length + 1
      const config: Config = {
        id,
        electionTick: 3,
        heartbeatTick: 1,
        random: new Prng(id),
        applied: index,
        maxSizePerMsg: Number.POSITIVE_INFINITY,
        maxCommittedSizePerReady: Number(
          argOf(directive, 'max-committed-size-per-ready') ?? Number.POSITIVE_INFINITY,
        ),
        maxUncommittedEntriesSize: Number.POSITIVE_INFINITY,
        maxInflightMsgs: 2 ** 31 - 1,
        maxInflightBytes: 0,
        checkQuorum: isOn('checkquorum'),
        preVote: isOn('prevote'),
        disableProposalForwarding: false,
        asyncStorageWrites: isOn('async-storage-writes'),
        disableConfChangeValidation: isOn('disable-conf-change-validation'),
        emptyEntryForRefusedConfChange: true,
        stepDownOnRemoval: isOn('step-down-on-removal'),
      }
      this.nodes.push(new Node(config, start))
    }
  }

  private report(result: ProposeResult): void {
    if (result !== 'ok' && result !== 'forwarded') this.print('raft proposal dropped')
  }

  private processReady(id: number): void {
    const node = this.node(id)
    const ready = node.raw.ready()
    this.print(...describeReady(ready))
    if (!node.config.asyncStorageWrites) {
      node.write(ready.hardState, ready.entries, ready.snapshot)
      node.apply(ready.committedEntries)
    }
    for (const message of ready.messages) {
      if (!isLocalTarget(message.to)) this.messages.push(message)
      else (message.kind === 'MsgStorageAppend' ? node.appendWork : node.applyWork).push(message)
    }
    if (!node.config.asyncStorageWrites) node.raw.advance()
  }

  private processAppend(id: number): void {
    const node = this.node(id)
    const message = this.takeWork(node.appendWork)
    if (message === null) return
    const { term, vote, commit } = message
    node.write(term === 0 ? null : { term, vote, commit }, message.entries, message.snapshot)
    this.respond(message)
  }

  private processApply(id: number): void {
    const node = this.node(id)
    const message = this.takeWork(node.applyWork)
    if (message === null) return
    node.apply(message.entries)
    this.respond(message)
  }

  private takeWork(work: Message[]): Message | null {
    const message = work.shift()
    if (message === undefined) {
      this.print('no work to perform')
      return null
    }
    this.print('Processing:', ...describeMessage({ ...message, responses: [] }).split('\n'))
    return message
  }

  private respond({ responses }: Message): void {
    this.print('Responses:', ...responses.flatMap(response => describeMessage(response).split('\n')))
    this.messages.push(...responses)
  }

  private deliver(ids: readonly number[], isDropped: boolean): void {
    for (const id of ids) {
      const due = this.messages.filter(message => message.to === id)
      this.messages = this.messages.filter(message => message.to !== id)
      for (const message of due) {
        this.print(...`${isDropped ? 'dropped: ' : ''}${describeMessage(message)}`.split('\n'))
        if (isDropped) continue
        const result = this.node(id).raw.step(message)
        if (result === 'unknownPeer') this.print('raft: cannot step as peer not found')
        else if (result === 'dropped') this.print('raft proposal dropped')
        else if (result !== 'ok') this.print(`raft: ${result}`)
      }
    }
  }

  /** Ready, receive, write, apply, round after round until nothing happens. */
  private stabilize(directive: Directive, some: readonly number[]): void {
    const wasQuiet = this.isQuiet
    if (argOf(directive, 'log-level') === 'none') this.isQuiet = true
    const ids = some.length > 0 ? some : this.nodes.map((_, i) => i + 1)
    for (let isDone = false; !isDone; ) {
      isDone = true
      const round = (title: string, hasWork: (id: number) => boolean, act: (id: number) => void) => {
        for (const id of ids) {
          if (!hasWork(id)) continue
          isDone = false
          this.under(`${id} ${title}`, () => act(id))
        }
      }
      round(
        'handling Ready',
        id => this.node(id).raw.hasReady(),
        id => this.processReady(id),
      )
      round(
        'receiving messages',
        id => this.messages.some(message => message.to === id),
        id => this.deliver([id], false),
      )
      round(
        'processing append thread',
        id => this.node(id).appendWork.length > 0,
        id => {
          while (this.node(id).appendWork.length > 0) this.processAppend(id)
        },
      )
      round(
        'processing apply thread',
        id => this.node(id).applyWork.length > 0,
        id => {
          while (this.node(id).applyWork.length > 0) this.processApply(id)
        },
      )
    }
    this.isQuiet = wasQuiet
  }

  private printStates(): void {
    for (const { raw } of this.nodes) {
      const { id, role, term, leader, config } = raw.status()
      const isVoter = config.voters.includes(id) || config.votersOutgoing.includes(id)
      this.print(`${id}: ${roleNames[role]} (${isVoter ? 'Voter' : 'Non-Voter'}) Term:${term} Lead:${leader}`)
    }
  }
}

function changeOf(directive: Directive): ConfChange {
  const transition = argOf(directive, 'transition') ?? 'auto'
  if (transition !== 'auto' && transition !== 'implicit' && transition !== 'explicit') {
    throw new Error(`unknown transition ${transition}`)
  }
  const context = argOf(directive, 'v1') === 'true' ? fromUtf8(firstForm) : emptyBytes
  return { transition, changes: parseChanges(directive.input.join(' ')), context }
}
