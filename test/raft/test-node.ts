/** One replica by itself: what it sends is looked at, what others would answer is made up. */
import { emptyBytes } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { MemoryStorage } from '../../src/raft/memory-storage.ts'
import { encodePosition } from '../../src/raft/position.ts'
import type { Config } from '../../src/raft/raft.ts'
import { RawNode } from '../../src/raft/raw-node.ts'
import {
  type ConfState,
  draft,
  emptyConfState,
  type HardState,
  localAppendThread,
  localApplyThread,
  type Message,
} from '../../src/raft/types.ts'

export interface TestNode {
  readonly raft: RawNode
  readonly storage: MemoryStorage
  /** Handed out, not yet durable or applied: a test decides when. */
  readonly appends: Message[]
  readonly applies: Message[]
}

export function testNode(
  confState: Partial<ConfState>,
  { hardState, ...config }: Partial<Config> & { readonly hardState?: HardState } = {},
): TestNode {
  const storage = new MemoryStorage()
  const meta = { index: 0, term: 0, confState: { ...emptyConfState, ...confState } }
  storage.applySnapshot({ meta, data: emptyBytes })
  if (hardState !== undefined) storage.hardState = hardState
  const raft = new RawNode(
    {
      id: 1,
      electionTick: 10,
      heartbeatTick: 1,
      applied: 0,
      maxSizePerMsg: 1_000,
      maxInflightMsgs: 8,
      maxInflightBytes: 0,
      maxUncommittedEntriesSize: 1_000,
      maxCommittedSizePerReady: 1_000,
      preVote: false,
      checkQuorum: true,
      asyncStorageWrites: true,
      disableProposalForwarding: true,
      stepDownOnRemoval: true,
      random: new Prng(1),
      ...config,
    },
    storage,
  )
  return { raft, storage, appends: [], applies: [] }
}

/** Takes what there is to be done; answers what leaves for others at once. */
export function take(node: TestNode): Message[] {
  const sent: Message[] = []
  while (node.raft.hasReady()) {
    for (const message of node.raft.ready().messages) {
      if (message.to === localAppendThread) {
        if (message.snapshot !== null) node.storage.applySnapshot(message.snapshot)
        node.storage.append(message.entries)
        node.appends.push(message)
      } else if (message.to === localApplyThread) node.applies.push(message)
      else sent.push(message)
    }
  }
  return sent
}

/** The oldest write is durable: its responses to others, its own are stepped. */
export function sync(node: TestNode): Message[] {
  const sent: Message[] = []
  for (const response of node.appends.shift()?.responses ?? []) {
    if (response.to === node.raft.id) node.raft.step(response)
    else sent.push(response)
  }
  return sent
}

/** Everything is taken, written and applied; what was sent meanwhile. */
export function settle(node: TestNode): Message[] {
  const sent = take(node)
  while (node.appends.length > 0 || node.applies.length > 0) {
    sent.push(...sync(node))
    const batch = node.applies.shift()
    for (const entry of batch?.entries ?? [])
      if (entry.kind !== 'normal') node.raft.applyConfChange(node.raft.decodeConfChange(entry))
    for (const response of batch?.responses ?? []) node.raft.step(response)
    sent.push(...take(node))
  }
  return sent
}

/** What a voter answers to this candidate, its log being as it is. */
export function voteFor({ raft: { raft } }: TestNode): Pick<Message, 'context'> {
  return { context: encodePosition(raft.log.lastIndex(), raft.log.lastTerm()) }
}

/** Makes it the leader of term 1, its first entry committed and everything done. */
export function elect(node: TestNode): void {
  const { raft } = node
  raft.campaign()
  settle(node)
  const { voters, votersOutgoing } = raft.status().config
  const others = new Set([...voters, ...votersOutgoing].filter(id => id !== raft.id))
  for (const id of others) raft.step({ ...draft('MsgVoteResp', raft.id, id, raft.term), ...voteFor(node) })
  settle(node)
  for (const id of others)
    raft.step({ ...draft('MsgAppResp', raft.id, id, raft.term), index: raft.lastIndex })
  settle(node)
}
