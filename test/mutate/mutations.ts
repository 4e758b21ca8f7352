/**
 * Deliberate bugs: one-line changes of the real source, each a classic of its kind, that the simulator must notice. What
 * it does not notice it does not test. `find` is text that stands exactly once in `file`; mutations.test.ts keeps that true.
 */
export interface Mutation {
  readonly name: string
  /** What this breaks, and how it would hurt. */
  readonly why: string
  readonly file: string
  readonly find: string
  readonly replace: string
}

export const mutations: readonly Mutation[] = [
  // --- Elections ------------------------------------------------------------------------------------------------------
  {
    name: 'vote-not-persisted',
    why: 'A voter that crashed votes again in the same term: two leaders (Raft §5.2).',
    file: 'src/shard/host.ts',
    find: 'message.term === 0 ? null : { term: message.term, vote: message.vote, commit: message.commit }',
    replace: 'message.term === 0 ? null : { term: message.term, vote: 0, commit: message.commit }',
  },
  {
    name: 'two-votes-a-term',
    why: 'Whoever asks gets the vote, also the second one in a term.',
    file: 'src/raft/raft.ts',
    find: '(this.vote === none && this.leader === none) ||',
    replace: 'this.leader === none ||',
  },
  {
    name: 'up-to-date-by-and',
    why: 'A later last term no longer wins over a longer log: both must be no less, and the one log that has everything may lose (§5.4.1).',
    file: 'src/raft/raft-log.ts',
    find: 'return lastTerm > term || (lastTerm === term && lastIndex >= this.lastIndex())',
    replace: 'return lastTerm >= term && lastIndex >= this.lastIndex()',
  },
  {
    name: 'longest-log-wins',
    why: 'The length of a log alone decides: a long tail that nobody acknowledged overwrites what was committed.',
    file: 'src/raft/raft-log.ts',
    find: 'return lastTerm > term || (lastTerm === term && lastIndex >= this.lastIndex())',
    replace: 'return lastIndex >= this.lastIndex()',
  },
  {
    name: 'lead-before-own-vote',
    why: 'A leader whose own vote is not on disk crashes, comes back in an older term and leads the same term twice.',
    file: 'src/raft/raft.ts',
    find: 'if (this.tracker.votes.get(this.id) !== true) return',
    replace: '',
  },
  {
    name: 'old-leader-heeded',
    why: 'The append of a deposed leader is taken for one of this term (§5.1).',
    file: 'src/raft/raft.ts',
    find: '} else if (message.term !== 0 && message.term < this.term) {',
    replace: "} else if (message.term !== 0 && message.term < this.term && message.kind !== 'MsgApp') {",
  },
  {
    name: 'joint-vote-by-half',
    why: 'In a joint configuration the incoming voters elect alone (§6).',
    file: 'src/raft/quorum.ts',
    find: 'if (one === two) return one',
    replace: 'return one',
  },

  // --- Replication ----------------------------------------------------------------------------------------------------
  {
    name: 'acknowledge-before-sync',
    why: 'Votes and acknowledgements leave before what they promise is on disk.',
    file: 'src/raft/raft.ts',
    find: 'this.messagesAfterAppend.push(message)',
    replace: 'this.messages.push(message)',
  },
  {
    name: 'commit-older-terms',
    why: 'An entry of an earlier term is committed by counting (§5.4.2, figure 8): another leader may still overwrite it.',
    file: 'src/raft/raft.ts',
    find: 'if (index <= this.log.committed || !this.log.matchTerm(index, this.term)) return false',
    replace: 'if (index <= this.log.committed) return false',
  },
  {
    name: 'commit-past-quorum',
    why: 'One replica fewer than a majority is enough.',
    file: 'src/raft/quorum.ts',
    find: 'return scratch[count - quorumOf(voters)]!',
    replace: 'return scratch[Math.min(count - 1, count - quorumOf(voters) + 1)]!',
  },
  {
    name: 'joint-commit-by-half',
    why: 'In a joint configuration the incoming voters commit alone (§6).',
    file: 'src/raft/quorum.ts',
    find: 'return Math.min(majorityIndex(voters, acked), majorityIndex(outgoing, acked))',
    replace: 'return majorityIndex(voters, acked)',
  },
  {
    name: 'late-append-truncates',
    why: 'A shorter append that comes late cuts off acknowledged entries behind it (§5.3: only a conflict truncates).',
    file: 'src/raft/raft-log.ts',
    find: 'if (this.matchTerm(entry.index, entry.term)) continue',
    replace: 'if (entry.index <= this.committed) continue',
  },
  {
    name: 'commit-of-refused-append',
    why: 'The commit index of an append that does not fit is taken over: entries that are not the leader’s count as committed.',
    file: 'src/raft/raft-log.ts',
    find: 'if (!this.matchTerm(index, term)) return null',
    replace:
      'if (!this.matchTerm(index, term)) { this.commitTo(Math.min(committedByLeader, this.lastIndex())); return null }',
  },
  {
    name: 'no-consistency-check',
    why: 'An append is taken without the entry before it: logs with the same end differ in the middle (§5.3).',
    file: 'src/raft/raft-log.ts',
    find: 'if (!this.matchTerm(index, term)) return null',
    replace: 'if (index > this.lastIndex()) return null',
  },
  {
    name: 'heartbeat-commits-what-is-missing',
    why: 'A heartbeat tells a commit index that its receiver is not known to have.',
    file: 'src/raft/raft.ts',
    find: 'message.commit = Math.min(this.tracker.progress.get(id)!.match, this.log.committed)',
    replace: 'message.commit = this.log.committed',
  },
  {
    name: 'commit-of-what-is-missing',
    why: 'A commit is told to a replica that is not known to have the entry.',
    file: 'src/raft/raft.ts',
    find: 'const commit = Math.min(progress.match, this.log.committed)',
    replace: 'const commit = this.log.committed',
  },
  {
    name: 'storage-ack-of-any-term',
    why: 'The acknowledgement of a write that was replaced meanwhile passes for one of its replacement.',
    file: 'src/raft/raft.ts',
    find: '// A snapshot has no such twin: an installed one is below everything that could replace it.',
    replace: 'this.log.unstable.stableTo(message.index, this.log.term(message.index) ?? 0)',
  },
  {
    name: 'apply-before-durable',
    why: 'The state machine runs ahead of its own log: after a crash the rows know what the log does not.',
    file: 'src/raft/raft-log.ts',
    find: 'return mayApplyUnstable ? this.committed : Math.min(this.committed, this.unstable.offset - 1)',
    replace: 'return this.committed',
  },

  // --- Configurations and moves ---------------------------------------------------------------------------------------
  {
    name: 'two-changes-at-once',
    why: 'A second change of configuration is proposed while the first is under way (thesis §4.1).',
    file: 'src/raft/raft.ts',
    find: "if (this.pendingConfIndex > this.log.applied) return 'confChangePending'",
    replace: '',
  },
  {
    name: 'configuration-applied-twice',
    why: 'One committed change counts two times: a joint configuration is entered from itself.',
    file: 'src/shard/replica.ts',
    find: 'const confState = this.raft.applyConfChange(change)',
    replace: 'this.raft.applyConfChange(change); const confState = this.raft.applyConfChange(change)',
  },
  {
    name: 'old-configuration-after-restart',
    why: 'A restarted replica goes on with the configuration of its birth and not with that of its checkpoint.',
    file: 'src/shard/configuration.ts',
    find: 'const configuration = isForced ? noted : saved',
    replace: 'const configuration = noted',
  },
  {
    name: 'replica-id-reused',
    why: 'The register gives out an id that it has given out before.',
    file: 'src/node/meta-commands.ts',
    find: 'storeCluster(keyspace, { ...cluster, nextReplica, nextOperation: cluster.nextOperation + 1 })',
    replace: 'storeCluster(keyspace, { ...cluster, nextOperation: cluster.nextOperation + 1 })',
  },
  {
    name: 'delete-before-move-confirmed',
    why: 'A replica destroys its rows when a wish leaves it out, not when the group has taken it out.',
    file: 'src/node/meta-register.ts',
    find: 'const named = [...record.voters, ...record.learners, ...record.former, ...wished]',
    replace: 'const named = record.operation === null ? [...record.voters, ...record.learners] : wished',
  },
  {
    name: 'promote-who-lags',
    why: 'A learner votes before it has the log: a joint change leaves the group without a quorum that has everything.',
    file: 'src/node/next-step.ts',
    find: 'if (late !== undefined) return {',
    replace: 'if (late === null) return {',
  },

  // --- The journal ----------------------------------------------------------------------------------------------------
  {
    name: 'commit-not-journaled',
    why: 'The commit index is not written with the entries: a restarted replica campaigns in a configuration that is past.',
    file: 'src/raft/raw-node.ts',
    find: 'append.commit = hardState.commit',
    replace: '',
  },
  {
    name: 'truncate-on-corruption',
    why: 'The log is cut at the first frame that does not check, as if it were a torn tail: acknowledged entries go silently.',
    file: 'src/storage/journal-recovery.ts',
    find: 'const rows = position + header.length <= bytes.byteLength ? decodeRecords(bytes, header) : null',
    replace:
      'const rows = position + header.length <= bytes.byteLength ? decodeRecords(bytes, header) : null; if (rows?.every(isIntact) !== true) return { frames, end: position, gapFrom: null, isTorn: true }',
  },
  {
    name: 'torn-tail-is-rot',
    why: 'A torn last frame, never acknowledged, is taken for rot: every power loss costs replicas.',
    file: 'src/storage/journal-recovery.ts',
    find: 'if (!begun.isValid && lastScan.gapFrom === null && !lastScan.isTorn) {',
    replace: 'if (journalId < 0) {',
  },
  {
    name: 'entry-checksum-ignored',
    why: 'An entry is served whatever its bytes are.',
    file: 'src/storage/frame.ts',
    find: 'const isIntact = entryChecksum(entryData, incarnation, replica, first + i) === crc',
    replace: 'const isIntact = true',
  },
  {
    name: 'recycled-frame-accepted',
    why: 'A frame of an earlier life of the file is replayed behind those of this one.',
    file: 'src/storage/journal-recovery.ts',
    find: 'return isOurs ? header : null',
    replace: 'return header',
  },
  {
    name: 'copy-truncates',
    why: 'An entry that was carried forward cuts off on replay what came after it.',
    file: 'src/storage/journal-log.ts',
    find: 'replayCopy(record: Copy<StoredEntry>, segment: number): void {',
    replace:
      'replayCopy(record: Copy<StoredEntry>, segment: number): void { this.index.truncate(record.first + record.entries.length)',
  },
  {
    name: 'opening-frame-forgets-votes',
    why: 'A new segment opens without the votes: with the old segment they are gone.',
    file: 'src/storage/journal-log.ts',
    find: "kind: 'full',\n      replica,\n      hardState,",
    replace: "kind: 'full',\n      replica,\n      hardState: { ...hardState, vote: 0 },",
  },
  {
    name: 'segment-goes-with-entries',
    why: 'A segment is used again while entries in it are not checkpointed.',
    file: 'src/storage/journal.ts',
    find: 'return Math.min(pinned?.number ?? Number.POSITIVE_INFINITY, this.files.current.number)',
    replace: 'return pinned === undefined ? this.files.current.number : this.files.current.number',
  },
  {
    name: 'failed-sync-tried-again',
    why: 'After a failed sync the kernel reports success and the pages are gone (fsyncgate).',
    file: 'src/storage/journal.ts',
    find: 'if (!isNoSpace(error) || this.isClosing) return false',
    replace: 'if (this.isClosing) return false',
  },
  {
    name: 'batch-forgets-first-hard-state',
    why: 'Of two Readies in one batch the second, which changes no vote, wipes out the first one’s.',
    file: 'src/shard/journal-batch.ts',
    find: 'hardState: later.hardState ?? earlier.hardState,',
    replace: 'hardState: later.hardState,',
  },

  // --- Checkpoints and snapshots --------------------------------------------------------------------------------------
  {
    name: 'journal-dropped-before-checkpoint',
    why: 'The journal forgets what is applied, though no checkpoint has it yet.',
    file: 'src/shard/host.ts',
    find: 'const checkpoint = replica.state.checkpointed?.index ?? 0\n',
    replace: 'const checkpoint = replica.appliedIndex\n',
  },
  {
    name: 'frozen-rows-go-early',
    why: 'The frozen rows go before a read of the checkpoint shows them: for a while neither has them.',
    file: 'src/storage/state.ts',
    find: 'this.frozen = frozen\n    this.memtable = new Memtable()',
    replace: 'this.memtable = new Memtable()',
  },
  {
    name: 'install-over-rows',
    why: 'A snapshot is installed into a database that is not empty: older rows hide those that came.',
    file: 'src/storage/state.ts',
    find: 'staged.install(() => {\n        this.memtable = new Memtable()',
    replace: 'staged.install(() => {',
  },
  {
    name: 'snapshot-forgets-sessions',
    why: 'A snapshot leaves the sessions out: a retried write is applied again behind it.',
    file: 'src/storage/snapshot-format.ts',
    find: 'const needed = this.blockLength + packedBytes(key, value)',
    replace: "if (key[0] === 's') return; const needed = this.blockLength + packedBytes(key, value)",
  },
  {
    name: 'snapshot-stepped-before-pulled',
    why: 'Raft takes a snapshot for installed whose rows are not here yet.',
    file: 'src/shard/snapshotter.ts',
    find: 'void this.pull(replica, offer.node, incoming)',
    replace: 'void this.pull(replica, offer.node, incoming); replica.step(message)',
  },

  // --- Quarantine -----------------------------------------------------------------------------------------------------
  {
    name: 'damaged-replica-speaks',
    why: 'A replica that may have lost what it promised goes on voting and acknowledging.',
    file: 'src/shard/host.ts',
    find: 'if (damaged !== null && damaged.to > applied.index + 1)',
    replace: 'if (damaged !== null && damaged.to < 0)',
  },
  {
    name: 'quarantine-forgotten',
    why: 'A restart heals the verdict: the replica answers heartbeats, votes and confirms reads.',
    file: 'src/shard/host.ts',
    find: 'if (noted?.quarantined !== undefined) return noted.quarantined',
    replace: '',
  },

  // --- Reads, sessions, clocks ----------------------------------------------------------------------------------------
  {
    name: 'read-without-confirmation',
    why: 'A leader answers reads without asking whether it still leads (thesis §6.4).',
    file: 'src/raft/raft.ts',
    find: "if (this.config.readOnly === 'leaseBased' || this.tracker.isSoleVoter(this.id)) {",
    replace: 'if (this.id !== none) {',
  },
  {
    name: 'read-before-first-commit',
    why: 'A new leader does not know yet how far its predecessor committed, and answers all the same (§8).',
    file: 'src/raft/raft.ts',
    find: 'if (!this.hasCommittedInTerm()) {',
    replace: 'if (this.id === none) {',
  },
  {
    name: 'read-before-applied',
    why: 'A confirmed read does not wait until its index is applied.',
    file: 'src/shard/replica.ts',
    find: 'if (group.index > this.appliedIndex) this.confirmed.push(group)',
    replace: 'if (group.index < 0) this.confirmed.push(group)',
  },
  {
    name: 'stale-read-after-restart',
    why: 'A replica serves stale reads of rows older than those it served before its restart.',
    file: 'src/shard/replica.ts',
    find: 'return this.leadsKnowingly || (this.freshFrom !== null && this.appliedIndex >= this.freshFrom)',
    replace: 'return true',
  },
  {
    name: 'wrong-entry-acknowledged',
    why: 'A caller is told "done" when another leader’s entry is applied at the index of his own.',
    file: 'src/shard/replica.ts',
    find: 'if (waiting.term !== entry.term || settled === null)',
    replace: 'if (settled === null)',
  },
  {
    name: 'one-sequence-instead-of-window',
    why: 'A session remembers its last sequence only: a late copy of an earlier one is applied again.',
    file: 'src/keyspace/sessions.ts',
    find: 'const below = lowerBound(row.kept, row.mark)',
    replace: 'const below = lowerBound(row.kept, use.sequence)',
  },
  {
    name: 'stale-sequence-applied',
    why: 'A sequence below the mark, whose answer is forgotten, is applied again.',
    file: 'src/keyspace/sessions.ts',
    find: 'if (use.sequence < mark)',
    replace: 'if (use.sequence < 0)',
  },
  {
    name: 'expire-by-own-clock',
    why: 'Each replica takes its own clock for the time: rows expire here and not there.',
    file: 'src/shard/replica.ts',
    find: 'settled = settledOf(this.machine.apply(entry.index, entry.data, entry.term))',
    replace:
      '{ Object.assign(this.machine, { clockMs: Math.max(this.machine.logClockMs, Math.floor(this.options.clock.wall())) }); settled = settledOf(this.machine.apply(entry.index, entry.data, entry.term)) }',
  },
  {
    name: 'stamp-by-any-clock',
    why: 'One clock that runs years ahead expires everybody’s keys.',
    file: 'src/shard/replica.ts',
    find: 'const nearMs = Math.min(Math.max(clock.wall(), medianMs - stampOffMsMax), medianMs + stampOffMsMax)',
    replace: 'const nearMs = Math.max(clock.wall(), medianMs - stampOffMsMax)',
  },
  {
    name: 'expired-without-clock-entry',
    why: 'A read answers with what the leader’s clock calls expired, as long as no write has moved the log’s.',
    file: 'src/commands/machine.ts',
    find: "return this.keyspace.clockWanted ? { kind: 'clock-wanted' } : result",
    replace: 'return result',
  },
  {
    name: 'tick-burst-after-stall',
    why: 'Ticks that a stalled process missed are made up for at once: it campaigns against a living leader, or steps down.',
    file: 'src/shard/host.ts',
    find: 'if (isTick) this.tickAll()',
    replace:
      'if (isTick) { const me = this as { lastTickMs?: number }; const nowMs = this.options.clock.now(); for (let n = Math.max(1, Math.round((nowMs - (me.lastTickMs ?? nowMs)) / 50)); n > 0; n--) this.tickAll(); me.lastTickMs = nowMs }',
  },
  {
    name: 'offset-left-out',
    why: 'The end of a partition is one more than it has records: offsets are dense no more.',
    file: 'src/keyspace/partitions.ts',
    find: 'records.reduce((end, { count }) => end + count, found.end)',
    replace: 'records.reduce((end, { count }) => end + count, found.end + 1)',
  },
  {
    name: 'append-answered-with-its-end',
    why: 'A producer is told the offset after its records in place of the first: another record is there.',
    file: 'src/keyspace/partitions.ts',
    find: '    return found.end\n',
    replace: '    return records.reduce((end, { count }) => end + count, found.end)\n',
  },
  {
    name: 'records-unsynced',
    why: 'A checkpoint is durable before the records that its rows name are.',
    file: 'src/storage/record-logs.ts',
    find: 'await settled(done => log.segments!.sync(done, names))',
    replace: '',
  },
  {
    name: 'snapshot-forgets-records',
    why: 'A snapshot has the rows of partitions and none of their records.',
    file: 'src/storage/state.ts',
    find: '() => logs?.files() ?? []',
    replace: '() => []',
  },
  {
    name: 'guard-ignored',
    why: 'An atomic entry goes on though the condition of one of its commands is not met.',
    file: 'src/commands/machine.ts',
    find: 'if (commands.length > 1 && reply',
    replace: 'if (commands.length < 1 && reply',
  },
  {
    name: 'time-in-files-only',
    why: 'A time that begins among the records that wait for a write is looked for in the files: who asks gets earlier ones.',
    file: 'src/storage/record-logs.ts',
    find: 'waiting > 0 || segments === null',
    replace: 'segments === null',
  },
  {
    name: 'time-in-the-last-file',
    why: 'A time is looked for in the newest file whatever the others begin with: who asks misses records.',
    file: 'src/log/segmented-log.ts',
    find: 'each => each.firstMs < timeMs',
    replace: '() => true',
  },
  {
    name: 'trim-goes-back',
    why: 'A trim to an offset that is gone already brings the start of a partition back.',
    file: 'src/keyspace/partitions.ts',
    find: 'if (start <= found.start) return found.start',
    replace: 'if (start === found.start) return found.start',
  },

  // --- Bounds ---------------------------------------------------------------------------------------------------------
  {
    name: 'uncommitted-unbounded',
    why: 'A leader that no quorum answers takes in proposals until its memory is full.',
    file: 'src/raft/raft.ts',
    find: 'this.uncommittedBytes + bytes > this.config.maxUncommittedEntriesSize',
    replace: 'this.uncommittedBytes + bytes < 0',
  },
  {
    name: 'node-uncommitted-unbounded',
    why: 'Each group keeps to its limit, all groups of a node together have none.',
    file: 'src/shard/host.ts',
    find: 'bytesLeft -= replica.raft.uncommittedBytes',
    replace: 'bytesLeft -= 0',
  },
  {
    name: 'window-of-bytes-ignored',
    why: 'Appends to a follower that does not answer are bounded by their number alone.',
    file: 'src/raft/tracker.ts',
    find: 'return this.used === this.messagesMax || (this.bytesMax !== 0 && this.usedBytes >= this.bytesMax)',
    replace: 'return this.used === this.messagesMax',
  },
  {
    name: 'inbox-unbounded',
    why: 'Messages to a process that does not get its turn pile up.',
    file: 'src/shard/host.ts',
    find: 'if (this.inbox.length >= this.limits.inboxMax) {',
    replace: 'if (this.inbox.length < 0) {',
  },
  {
    name: 'session-row-unbounded',
    why: 'A client that acknowledges nothing makes its session keep every answer for ever.',
    file: 'src/keyspace/sessions.ts',
    find: 'if (row.kept.length - lowerBound(row.kept, mark) >= limits.sessionSequencesMax)',
    replace: 'if (row.kept.length < 0)',
  },
  {
    name: 'session-table-unbounded',
    why: 'Each client that comes gets a row for an hour, however many come.',
    file: 'src/keyspace/sessions.ts',
    find: 'if (this.count >= limits.sessionsMax)',
    replace: 'if (this.count < 0)',
  },
  {
    name: 'changes-unbounded',
    why: 'What entries did to keys is kept for watches, and nothing of it ever goes.',
    file: 'src/keyspace/changes.ts',
    find: 'if (this.bytes > this.bytesMax || this.next - this.first > changeLimits.changesMax) this.trim()',
    replace: '',
  },
  {
    name: 'memtable-unbounded',
    why: 'A replica with large values is checkpointed by age and number of entries only: its memtable grows meanwhile.',
    file: 'src/shard/host.ts',
    find: 'if (replica.state.memtableBytes >= memtableBytesMax) return replica',
    replace: '',
  },

  // --- Releases -------------------------------------------------------------------------------------------------------
  {
    name: 'unknown-entry-skipped',
    why: 'A replica passes over what its release does not understand, and goes on with other rows than the others.',
    file: 'src/shard/replica.ts',
    find: "this.halt(error.message, error.code !== 'UNSUPPORTED_ENTRY')\n      return",
    replace: "if (error.code !== 'UNSUPPORTED_ENTRY') return this.halt(error.message)",
  },
  {
    name: 'level-of-the-newest',
    why: 'The feature level rises when one member supports it: the others stop at the first entry that they do not know.',
    file: 'src/node/feature-level.ts',
    find: 'return levels.length === 0 ? 1 : Math.min(...levels)',
    replace: 'return levels.length === 0 ? 1 : Math.max(...levels)',
  },
  {
    name: 'level-not-heeded',
    why: 'A command of a new release is written while members run an old one.',
    file: 'src/node/feature-level.ts',
    find: 'if (needed <= level) return',
    replace: 'if (level > 0) return',
  },

  // --- Consumer groups ------------------------------------------------------------------------------------------------
  {
    name: 'fenced-commit-taken',
    why: 'A consumer that was stopped in the middle of a commit finishes it when the partition is another’s.',
    file: 'src/keyspace/groups.ts',
    find: 'if (generation < found.generation)',
    replace: 'if (generation < 0)',
  },
  {
    name: 'partition-given-early',
    why: 'A partition goes to its next reader before the last one has acknowledged that it gives it up: two read it.',
    file: 'src/keyspace/groups.ts',
    find: 'if (held.has(key)) target.awaits.set(key, partitions[place]!)',
    replace: 'if (held.size < 0) target.awaits.set(key, partitions[place]!)',
  },
  {
    name: 'offset-goes-back',
    why: 'A commit that comes late takes the place of a later one: records are consumed again.',
    file: 'src/keyspace/groups.ts',
    find: 'if (committed === undefined || committed.offset < offset)',
    replace: 'if (committed === undefined || committed.offset !== offset)',
  },
  {
    name: 'member-out-early',
    why: 'A consumer’s time counts from when it was last looked at, and it is taken out while it is well.',
    file: 'src/keyspace/groups.ts',
    find: 'const endsMs = Math.min(lastMs + timeoutMs, (revokedMs ?? Infinity) + limits.groupRevokeMs)',
    replace:
      'const endsMs = Math.min(lastMs + timeoutMs / 4, (revokedMs ?? Infinity) + limits.groupRevokeMs)',
  },
  {
    name: 'generation-used-twice',
    why: 'A group that was deleted and made anew begins with generations that were there: what is late fits again.',
    file: 'src/keyspace/groups.ts',
    find: 'if (row.generation > highest)',
    replace: 'if (row.generation < 0)',
  },
]
