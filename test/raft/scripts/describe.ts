/** Raft's values as the scripts print them. */
import { toUtf8 } from '../../../src/lib/bytes.ts'
import { decodeConfChange } from '../../../src/raft/conf-change.ts'
import type { Ready } from '../../../src/raft/raw-node.ts'
import type { Progress } from '../../../src/raft/tracker.ts'
import {
  type ConfChange,
  type ConfState,
  type Entry,
  localAppendThread,
  localApplyThread,
  type Message,
  type Role,
  type Snapshot,
} from '../../../src/raft/types.ts'

export const roleNames: Record<Role, string> = {
  follower: 'StateFollower',
  preCandidate: 'StatePreCandidate',
  candidate: 'StateCandidate',
  leader: 'StateLeader',
}

const stateNames = { probe: 'StateProbe', replicate: 'StateReplicate', snapshot: 'StateSnapshot' } as const

/** What marks a change that was proposed in the scripts' older form; Raft has one form for both. */
export const firstForm = 'v1'

const letters = { addNode: 'v', addLearner: 'l', removeNode: 'r', updateNode: 'u' } as const

export function describeChanges(change: ConfChange): string {
  return change.changes.map(({ kind, replica }) => `${letters[kind]}${replica}`).join(' ')
}

export function parseChanges(text: string): ConfChange['changes'] {
  return text
    .split(/\s+/)
    .filter(word => word !== '')
    .map(word => {
      const kind = (Object.keys(letters) as (keyof typeof letters)[]).find(name => letters[name] === word[0])
      if (kind === undefined) throw new Error(`unknown change ${word}`)
      return { kind, replica: Number(word.slice(1)) }
    })
}

export function describeEntry({ term, index, kind, data }: Entry): string {
  if (kind === 'normal') return `${term}/${index} EntryNormal ${JSON.stringify(toUtf8(data))}`
  const change = decodeConfChange(data)
  const name = toUtf8(change.context) === firstForm ? 'EntryConfChange' : 'EntryConfChangeV2'
  return `${term}/${index} ${name} ${describeChanges(change)}`.trimEnd()
}

function target(id: number): string {
  return id === localAppendThread ? 'AppendThread' : id === localApplyThread ? 'ApplyThread' : String(id)
}

function describeConfState(state: ConfState): string {
  const list = (ids: readonly number[]) => `[${ids.join(' ')}]`
  return (
    `Voters:${list(state.voters)} VotersOutgoing:${list(state.votersOutgoing)} Learners:${list(state.learners)} ` +
    `LearnersNext:${list(state.learnersNext)} AutoLeave:${state.autoLeave}`
  )
}

export function describeSnapshot({ meta }: Snapshot): string {
  return `Index:${meta.index} Term:${meta.term} ConfState:${describeConfState(meta.confState)}`
}

export function describeMessage(message: Message, indent = ''): string {
  let text = `${indent}${target(message.from)}->${target(message.to)} ${message.kind} Term:${message.term} Log:${message.logTerm}/${message.index}`
  if (message.reject) text += ` Rejected (Hint: ${message.rejectHint})`
  if (message.commit !== 0) text += ` Commit:${message.commit}`
  if (message.vote !== 0) text += ` Vote:${message.vote}`
  if (message.entries.length === 1) {
    text += ` Entries:[${describeEntry(message.entries[0]!)}]`
  } else if (message.entries.length > 1) {
    text += ' Entries:['
    for (const entry of message.entries) text += `\n${indent}  ${describeEntry(entry)}`
    text += `\n${indent}]`
  }
  if (message.snapshot !== null) text += `\n${indent}  Snapshot: ${describeSnapshot(message.snapshot)}`
  if (message.responses.length > 0) {
    text += ' Responses:['
    for (const response of message.responses) text += `\n${describeMessage(response, `${indent}  `)}`
    text += `\n${indent}]`
  }
  return text
}

export function describeReady(ready: Ready): string[] {
  const lines: string[] = []
  if (ready.softState !== null) {
    lines.push(`Lead:${ready.softState.leader} State:${roleNames[ready.softState.role]}`)
  }
  if (ready.hardState !== null) {
    const { term, vote, commit } = ready.hardState
    lines.push(`HardState Term:${term}${vote === 0 ? '' : ` Vote:${vote}`} Commit:${commit}`)
  }
  if (ready.readStates.length > 0) lines.push(`ReadStates ${JSON.stringify(ready.readStates)}`)
  if (ready.entries.length > 0) lines.push('Entries:', ...ready.entries.map(describeEntry))
  if (ready.snapshot !== null) lines.push(`Snapshot ${describeSnapshot(ready.snapshot)}`)
  if (ready.committedEntries.length > 0) {
    lines.push('CommittedEntries:', ...ready.committedEntries.map(describeEntry))
  }
  if (ready.messages.length > 0) {
    lines.push('Messages:', ...ready.messages.flatMap(message => describeMessage(message).split('\n')))
  }
  return lines.length === 0 ? ['<empty Ready>'] : [`Ready MustSync=${ready.mustSync}:`, ...lines]
}

export function describeProgress(progress: Progress): string {
  let text = `${stateNames[progress.state]} match=${progress.match} next=${progress.next}`
  if (progress.isLearner) text += ' learner'
  if (progress.isPaused()) text += ' paused'
  if (progress.pendingSnapshot > 0) text += ` pendingSnap=${progress.pendingSnapshot}`
  if (!progress.isRecentlyActive) text += ' inactive'
  const { count } = progress.inflights
  if (count > 0) text += ` inflight=${count}${progress.inflights.isFull() ? '[full]' : ''}`
  return text
}

/** `voters=(1 2)&&(3) learners=(4) learners_next=(5) autoleave`. */
export function describeConfig(config: ConfState): string {
  const list = (ids: readonly number[]) => `(${ids.join(' ')})`
  let text = `voters=${list(config.voters)}`
  if (config.votersOutgoing.length > 0) text += `&&${list(config.votersOutgoing)}`
  if (config.learners.length > 0) text += ` learners=${list(config.learners)}`
  if (config.learnersNext.length > 0) text += ` learners_next=${list(config.learnersNext)}`
  if (config.autoLeave) text += ' autoleave'
  return text
}
