/**
 * States that a campaign must have met ("sometimes" assertions, as FoundationDB and Antithesis have them): a simulator
 * that never sees a snapshot during an election says nothing about snapshots during elections. A run notes what it
 * sees; a long campaign in which one of these was never seen fails.
 */
export const sometimes = {
  electionAfterCrash: 'a leader was elected after another one had crashed',
  electionAgain: 'a group had a leader in five terms',
  tailReplaced: 'a follower replaced entries that no quorum had',
  probeRefused: 'an append was refused: the logs differed',
  snapshotInstalled: 'a snapshot was installed',
  snapshotInElection: 'a snapshot was on its way during an election',
  snapshotPullFailed: 'a pull of a snapshot failed and was tried again',
  jointEntered: 'a joint configuration was entered',
  jointFinishedByAnother: 'a joint configuration was left under another leader than the one that entered it',
  changeOverwritten: 'a change of configuration was lost with its leader',
  leaderTransferred: 'a leadership was handed over',
  leaderSteppedDown: 'a leader without a quorum stepped down',
  clockHandOver: 'a node with a clock far off led',
  windowFull: 'the window of a follower was full',
  queueFull: 'a queue of the network was full',
  uncommittedFull: 'a leader refused a write: too much was uncommitted',
  checkpoint: 'a replica was checkpointed',
  replayed: 'a restart replayed entries behind a checkpoint',
  tornTail: 'a torn tail was cut',
  crashInRecovery: 'a node crashed while it recovered',
  crashInFlight: 'a node crashed while a journal write was in flight',
  writeSurvivedUnsynced: 'a journal write that was never confirmed survived a crash',
  writeLostUnsynced: 'a journal write that was never confirmed was lost in a crash',
  segmentRecycled: 'a journal segment was used again',
  entriesCopied: 'entries were carried forward to let a journal segment go',
  cleanStop: 'a node stopped cleanly and came back',
  rotFound: 'rot in a journal was found',
  rotHarmless: 'rot was found where it did not matter',
  quarantined: 'a replica was quarantined',
  rotMended: 'a quarantined replica was replaced',
  diskFull: 'a disk was full',
  diskFailed: 'a disk failed a write or a sync',
  diskStalled: 'a disk hung for longer than an election timeout',
  wiped: 'a node came back with an empty disk',
  joined: 'a node joined under load',
  left: 'a node left under load',
  lostNodeReplaced: 'a node was dead for so long that its replicas went to others',
  sessionRowFull: 'a session had as many unacknowledged sequences as it may',
  sessionStale: 'a write that its client had acknowledged came again and was refused',
  answeredTwice: 'a retried write was answered with the first answer',
  keyExpired: 'a key expired',
  clockWanted: 'a read waited for a clock entry',
  swept: 'expired rows were swept',
  compareFailed: 'a compare-and-set met another value',
  compareMet: 'a compare-and-set met its value',
  rowRotten: 'a row of a checkpoint rotted',
  rowRotMet: 'somebody met a rotten row before the scrub did',
  rowRotScrubbed: 'the scrub found a rotten row',
  readFailed: 'a disk failed while entries were read from it',
  applyLate: 'a replica put off applying what was committed',
  readBeforeFirstCommit: 'a leader was asked to read before it had committed in its term',
  copyCrashed: 'a node crashed behind entries that were carried forward',
  entryNotUnderstood: 'a replica of an older release met an entry that it does not know',
  upgraded: 'a replica that had not understood an entry went on after the upgrade',
  commandUnknown: 'a node of an older release refused a command that it does not know',
  readAgainExpired: 'a key that a leader called expired was read again from its rows',
  staleServed: 'a stale read was answered',
  staleRefused: 'a stale read was refused: its replica had not caught up',
  outcomeUnknown: 'a client had to be told that the outcome is unknown',
  recordsRead: 'records of a stream were read',
  streamTrimmed: 'a partition of a stream was trimmed',
  atomicApplied: 'an atomic entry was applied',
  atomicRefused: 'an atomic entry was refused by its guard',
  historyChecked: 'a history with unknown outcomes was found linearizable',
} as const

export type Sometimes = keyof typeof sometimes

export class Sightings {
  readonly counts = new Map<Sometimes, number>()

  see(name: Sometimes): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
  }
}
