/**
 * Sizes in bytes and counts that clients meet; the error that names one is TOO_LARGE, OVERLOADED or SESSION_FULL.
 *
 * Those of sessions and `rowsVisitedMax`, `replyBytesMax` are judged while entries are applied: another number is
 * another state machine, and needs a feature level.
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
  sweepRowsMax: 1_000,
  sessionsMax: 10_000,
  sessionSequencesMax: 1_024,
  sessionReplyBytesMax: 4 * 1024,
  sessionIdleMs: 3_600_000,
} as const
