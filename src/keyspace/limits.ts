/**
 * Sizes in bytes and counts that clients meet; the error that names one is TOO_LARGE, OVERLOADED or SESSION_FULL.
 *
 * Those of sessions and groups, of values and elements, and `rowsVisitedMax`, `replyBytesMax`, `movedBytesMax`, `sweepBytesMax` are
 * judged while entries are applied: another number is another state machine, and needs a feature level.
 */
export const limits = {
  keyBytesMax: 1024,
  fieldBytesMax: 512,
  valueBytesMax: 1024 * 1024,
  replyBytesMax: 8 * 1024 * 1024,
  /** 10,000 pairs: a command visits no more rows than that. */
  argumentsMax: 20_001,
  /** All arguments of one command together. */
  callBytesMax: 8 * 1024 * 1024,
  /** Of one entry. */
  operationsMax: 1_000,
  rowsVisitedMax: 10_000,
  /** Of one collection. */
  elementsMax: 2 ** 32 - 1,
  /** Elements that one command moves (LREM, COPY), all together. */
  movedBytesMax: 32 * 1024 * 1024,
  /** A page of a scan ends once it has visited so many, and has steps of pattern matching behind it. */
  scanBytesMax: 4 * 1024 * 1024,
  scanStepsMax: 2_000_000,
  patternBytesMax: 1024,
  sweepRowsMax: 1_000,
  /** A sweep ends once it has read so many: elements may be a mebibyte each. */
  sweepBytesMax: 8 * 1024 * 1024,
  /** Records of one read, together; the first may be longer. */
  recordReadBytesMax: 4 * 1024 * 1024,
  sessionsMax: 10_000,
  sessionSequencesMax: 1_024,
  sessionReplyBytesMax: 4 * 1024,
  sessionIdleMs: 3_600_000,
  /** Consumer groups: of a shard, and what one may have. */
  groupsMax: 1_000,
  groupNameBytesMax: 255,
  groupMembersMax: 256,
  /** Streams that one member reads; partitions that all members of a group read together. */
  groupStreamsMax: 64,
  groupPartitionsMax: 4_096,
  /** Streams come and go: more than what is read at a time. */
  groupOffsetsMax: 8_192,
  groupTimeoutMsMin: 1_000,
  groupTimeoutMsMax: 3_600_000,
  /** How long a member may take to acknowledge that it gave partitions up: five minutes. */
  groupRevokeMs: 300_000,
  /** A group without members keeps its offsets for so long: 30 days. */
  groupEmptyMs: 30 * 24 * 3_600_000,
  /** How late a sweep may be before it takes silence for its own fault, and the time that members then get. */
  groupSweepLateMs: 5_000,
  groupGraceMs: 10_000,
} as const
