/**
 * Every error that Roundhouse expects, in one table: code → its kind and how its facts become a sentence. A wire maps
 * the *kind* to its own status; nobody matches on message text. A missing key is a reply, not an error; a broken
 * invariant is `assert`, not an error.
 */
export type ErrorKind =
  | 'invalid'
  | 'precondition'
  | 'out_of_range'
  | 'unavailable'
  | 'outcome_unknown'
  | 'exhausted'
  | 'unauthenticated'
  | 'denied'
  | 'data_loss'

interface Definition<Facts> {
  readonly kind: ErrorKind
  readonly text: (facts: Facts) => string
}

const define = <Facts>(kind: ErrorKind, text: (facts: Facts) => string): Definition<Facts> => ({ kind, text })

/** Redis's words come first where Redis has them, then ": " and the facts. */
const definitions = {
  UNKNOWN_COMMAND: define<{ command: string; known?: string }>(
    'invalid',
    f => `ERR unknown command '${f.command}'${f.known === undefined ? '' : `: known are ${f.known}`}`,
  ),
  WRONG_ARITY: define<{ command: string; usage: string }>(
    'invalid',
    f => `ERR wrong number of arguments for '${f.command.toLowerCase()}' command: usage ${f.usage}`,
  ),
  /** `words`: those that Redis has for this mistake alone. */
  SYNTAX: define<{ detail: string } | { words: string }>('invalid', f =>
    'words' in f ? `ERR ${f.words}` : `ERR syntax error: ${f.detail}`,
  ),
  WRONG_TYPE: define<{ actual: string; wanted: string }>(
    'precondition',
    f =>
      `WRONGTYPE Operation against a key holding the wrong kind of value: it holds a ${f.actual}, not a ${f.wanted}`,
  ),
  NOT_INTEGER: define<{ what: string }>(
    'invalid',
    f => `ERR value is not an integer or out of range: ${f.what}`,
  ),
  HASH_VALUE_NOT_INTEGER: define<{ what: string }>(
    'precondition',
    f => `ERR hash value is not an integer: ${f.what}`,
  ),
  NOT_FLOAT: define<{ what: string }>('invalid', f => `ERR value is not a valid float: ${f.what}`),
  NOT_POSITIVE: define<{ what: string }>(
    'invalid',
    f => `ERR value is out of range, must be positive: ${f.what}`,
  ),
  NOT_SCORE_BOUND: define<{ what: string }>(
    'invalid',
    f => `ERR min or max is not a float: ${f.what} is no score, nor ( and a score`,
  ),
  NOT_MEMBER_BOUND: define<{ what: string }>(
    'invalid',
    f => `ERR min or max not valid string range item: ${f.what} is not - or +, nor [ or ( and a member`,
  ),
  NOT_A_NUMBER: define<{ what: string }>(
    'precondition',
    f => `ERR resulting score is not a number (NaN): the score of ${f.what}`,
  ),
  NO_SUCH_KEY: define<{ key: string }>('precondition', f => `ERR no such key: ${f.key}`),
  SAME_KEY: define<{ key: string }>(
    'invalid',
    f => `ERR source and destination objects are the same: ${f.key}`,
  ),
  INDEX_OUT_OF_RANGE: define<{ index: number }>(
    'out_of_range',
    f => `ERR index out of range: the list has no element ${f.index}`,
  ),
  OFFSET_OUT_OF_RANGE: define<{ what: string; offset: number; start: number; end: number }>(
    'out_of_range',
    f =>
      `ERR offset out of range: ${f.offset}; ${f.what} ` +
      (f.start === f.end
        ? `holds nothing, its next record gets ${f.end}`
        : `holds ${f.start} to ${f.end - 1}, its next record gets ${f.end}`),
  ),
  COMPACTED: define<{ shard: number; after: number; start: number; cursor: string }>(
    'out_of_range',
    f =>
      `COMPACTED changes after entry ${f.after} of shard ${f.shard} are not kept any more, only those after ${f.start}: ` +
      'read the keys anew, and watch on from the cursor that comes with this',
  ),
  CONDITION_NOT_MET: define<{ operation: number; command: string }>(
    'precondition',
    f => `ERR condition not met: command ${f.operation}, ${f.command}; none was applied`,
  ),
  OVERFLOW: define<{ what: string; words?: string }>(
    'precondition',
    f => `ERR ${f.words ?? 'increment or decrement would overflow'}: ${f.what}`,
  ),
  INVALID_EXPIRE: define<{ command: string; what: string }>(
    'invalid',
    f => `ERR invalid expire time in '${f.command.toLowerCase()}' command: ${f.what}`,
  ),
  TOO_LARGE: define<{ what: string; bytes: number; max: number }>(
    'invalid',
    f => `ERR ${f.what} too large: ${f.bytes} bytes, at most ${f.max} are accepted`,
  ),
  EMPTY_KEY: define<{ command: string }>('invalid', f => `ERR empty key: '${f.command}' needs a key`),
  MIRROR: define<{ partition: string; why: string }>(
    'precondition',
    f => `ERR ${f.partition} is not mirrored: ${f.why}`,
  ),
  BENCH: define<{ phase: string; why: string }>(
    'unavailable',
    f => `the bench got stuck (${f.phase}): ${f.why}`,
  ),
  INVALID_ARGUMENT: define<{ what: string; accepted: string }>(
    'invalid',
    f => `ERR invalid ${f.what}: accepted is ${f.accepted}`,
  ),
  REPLY_TOO_LARGE: define<{ max: number; hint: string }>(
    'exhausted',
    f => `ERR reply too large: ${f.hint} (a reply has at most ${f.max} bytes)`,
  ),
  NOT_LEADER: define<{ shard: number; leader: string | null; address: string | null }>(
    'unavailable',
    f =>
      `NOT_LEADER this node does not lead shard ${f.shard}: ` +
      (f.leader === null
        ? 'no leader is known'
        : `${f.leader} does${f.address === null ? '' : `, at ${f.address}`}`),
  ),
  NO_LEADER: define<{ shard: number; waitedMs: number }>(
    'unavailable',
    f => `CLUSTERDOWN shard ${f.shard} has no leader: waited ${f.waitedMs} ms, try again`,
  ),
  NO_META_LEADER: define<{ waitedMs: number }>(
    'unavailable',
    f => `CLUSTERDOWN the meta shard has no leader: waited ${f.waitedMs} ms, try again`,
  ),
  NOT_READY: define<{ why: string }>('unavailable', f => `LOADING this node is not ready: ${f.why}`),
  UNREACHABLE: define<{ address: string; why: string }>(
    'unavailable',
    f => `cannot reach ${f.address}: ${f.why}`,
  ),
  SHUTTING_DOWN: define<Record<string, never>>('unavailable', () => 'this node is shutting down'),
  OUTCOME_UNKNOWN: define<{ why: string }>(
    'outcome_unknown',
    f => `outcome unknown: ${f.why}; the write may or may not have been applied`,
  ),
  DEADLINE: define<{ afterMs: number; what: string }>(
    'outcome_unknown',
    f => `deadline passed after ${f.afterMs} ms: ${f.what}`,
  ),
  SESSION_STALE: define<{ sequence: number; ackedBelow: number }>(
    'precondition',
    f =>
      `SESSION_STALE sequence ${f.sequence} is below ${f.ackedBelow}, the mark up to which this session acknowledged`,
  ),
  SESSION_FULL: define<{ what: string; max: number }>(
    'exhausted',
    f => `SESSION_FULL ${f.what}: at most ${f.max} are kept; acknowledge with acked_below or wait`,
  ),
  OVERLOADED: define<{ what: string; max: number }>(
    'exhausted',
    f => `OVERLOADED ${f.what}: the limit is ${f.max}; slow down and try again`,
  ),
  DISK_FULL: define<{ shard: number }>(
    'exhausted',
    f => `DISK_FULL a quorum of shard ${f.shard} is nearly full: user writes wait until space is freed`,
  ),
  NO_SPACE: define<{ what: string; why: string }>(
    'exhausted',
    f => `no space for ${f.what}: ${f.why}; it is tried again when there is some`,
  ),
  NO_SUCH_STREAM: define<{ stream: string }>('precondition', f => `ERR no such stream: ${f.stream}`),
  NO_SUCH_PARTITION: define<{ stream: string; partition: number; partitions: number }>(
    'invalid',
    f => `ERR no such partition: ${f.partition}; ${f.stream} has 0 to ${f.partitions - 1}`,
  ),
  STREAM_REMADE: define<{ stream: string; asked: number; id: number }>(
    'precondition',
    f =>
      `ERR stream was made anew: ${f.stream} is ${f.id} now, ${f.asked} was read before; its offsets begin anew, too`,
  ),
  STREAM_EXISTS: define<{ stream: string }>(
    'precondition',
    f => `ERR stream exists: ${f.stream}; delete it first, or produce to it as it is`,
  ),
  CROSS_SHARD: define<{ first: string; firstSlot: number; other: string; otherSlot: number }>(
    'invalid',
    f =>
      `CROSSSLOT Keys in request don't hash to the same slot: ${f.first} is in ${f.firstSlot}, ${f.other} in ${f.otherSlot}`,
  ),
  UNSUPPORTED_ENTRY: define<{ what: string }>(
    'data_loss',
    f => `entry not understood: ${f.what}; upgrade this node`,
  ),
  CORRUPT: define<{ where: string; what: string }>('data_loss', f => `corrupt data in ${f.where}: ${f.what}`),
  QUARANTINED: define<{ shard: number; why: string }>(
    'data_loss',
    f => `the replica of shard ${f.shard} on this node is quarantined: ${f.why}`,
  ),
  WRONG_CLUSTER: define<{ theirs: string; ours: string }>(
    'precondition',
    f => `wrong cluster: this node belongs to ${f.ours}, the other to ${f.theirs}`,
  ),
  STORE_MISMATCH: define<{ node: string; registered: string; offered: string }>(
    'precondition',
    f =>
      `node ${f.node} is registered with store ${f.registered}, not ${f.offered}: its volume was lost or swapped; ` +
      `to rebuild it from the others: roundhouse replace ${f.node} ${f.node}, then start it again with an empty directory`,
  ),
  UNKNOWN_NODE: define<{ node: string; known: string }>(
    'precondition',
    f => `node ${f.node} is not a member: members are ${f.known}`,
  ),
  NOT_MEMBER: define<{ node: string }>('precondition', f => `node ${f.node} is not a member of this cluster`),
  REPLACE_REFUSED: define<{ node: string; why: string }>(
    'precondition',
    f => `node ${f.node} can't be replaced: ${f.why}`,
  ),
  LEAVE_REFUSED: define<{ node: string; why: string }>(
    'precondition',
    f => `node ${f.node} can't leave: ${f.why}`,
  ),
  UNAUTHENTICATED: define<{ why: string }>(
    'unauthenticated',
    f => `NOAUTH Authentication required: ${f.why}`,
  ),
  DENIED: define<{ who: string; what: string; needed: string }>(
    'denied',
    f => `NOPERM ${f.who} may not ${f.what}: ${f.needed}`,
  ),
  WRONG_IDENTITY: define<{ certificate: string; claimed: string }>(
    'denied',
    f =>
      `NOPERM wrong identity: the caller says it is node ${f.claimed}, its certificate is that of ${f.certificate}`,
  ),
  TLS: define<{ address: string; why: string }>('precondition', f => `no TLS with ${f.address}: ${f.why}`),
  SETTINGS_DIFFER: define<{ differences: string }>(
    'precondition',
    f => `settings differ from the cluster's: ${f.differences}`,
  ),
  LEVEL_TOO_LOW: define<{ command: string; needed: number; level: number; behind: string }>(
    'precondition',
    f =>
      `ERR ${f.command} needs feature level ${f.needed}, this cluster is at ${f.level}: ` +
      (f.behind === '' ? 'all nodes support it, it rises in a moment' : `upgrade ${f.behind}`),
  ),
  RELEASE_TOO_OLD: define<{ node: string; supported: number; level: number }>(
    'precondition',
    f =>
      `the release of node ${f.node} supports feature level ${f.supported}, this cluster is at ${f.level}: ` +
      'start it with the release of the others',
  ),
  NO_SUCH_TRANSFER: define<{ id: string }>('precondition', f => `no such transfer: ${f.id}`),
  HOP_LIMIT: define<{ shard: number }>(
    'unavailable',
    f => `NOT_LEADER a forwarded request met a node that does not lead shard ${f.shard}`,
  ),
  CONFIG: define<{ mistakes: readonly string[] }>(
    'invalid',
    f => `invalid settings:\n  ${f.mistakes.join('\n  ')}`,
  ),
  DATA_DIR: define<{ path: string; why: string }>('precondition', f => `data directory ${f.path}: ${f.why}`),
  PORT_IN_USE: define<{ address: string }>('precondition', f => `${f.address} is in use by another process`),
  NO_SUCH_GROUP: define<{ group: string }>('precondition', f => `no such consumer group: ${f.group}`),
  NO_SUCH_MEMBER: define<{ group: string; member: string }>(
    'precondition',
    f => `${f.member} is not, or not any more, a member of group ${f.group}: join again`,
  ),
  STALE_GENERATION: define<{
    group: string
    member: string
    generation: number
    current: number
    why: string
  }>(
    'precondition',
    f =>
      `STALE_GENERATION generation ${f.generation} of member ${f.member} is not current in group ${f.group}, ${f.current} is: ${f.why}`,
  ),
  GROUP_STRATEGY: define<{ group: string; asked: string; strategy: string }>(
    'precondition',
    f => `group ${f.group} assigns by ${f.strategy}, not by ${f.asked}, while it has members`,
  ),
  GROUP_ACTIVE: define<{ group: string; members: number }>(
    'precondition',
    f =>
      `group ${f.group} has members that this would take by surprise (${f.members}): stop them, or force it`,
  ),
  GROUP_FULL: define<{ what: string; max: number }>(
    'exhausted',
    f => `GROUP_FULL ${f.what}: at most ${f.max} are kept`,
  ),
  STORAGE_FAILED: define<{ what: string; why: string }>(
    'unavailable',
    f =>
      `storage failed: ${f.what}: ${f.why}; this node stops serving, the write's outcome is decided by the others`,
  ),
} as const

export type ErrorCode = keyof typeof definitions
export type FactsOf<Code extends ErrorCode> =
  (typeof definitions)[Code] extends Definition<infer Facts> ? Facts : never

/** Trouble that was expected. Throw it as `new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'string' })`. */
export class RoundhouseError<Code extends ErrorCode = ErrorCode> extends Error {
  override readonly name = 'RoundhouseError'
  readonly code: Code
  readonly kind: ErrorKind
  readonly facts: FactsOf<Code>

  constructor(code: Code, facts: FactsOf<Code>) {
    const definition = definitions[code] as unknown as Definition<FactsOf<Code>>
    super(definition.text(facts))
    this.code = code
    this.kind = definition.kind
    this.facts = facts
  }
}

/** Narrows `error` to an expected one, of the code where given. */
export function isError<Code extends ErrorCode>(error: unknown, code?: Code): error is RoundhouseError<Code> {
  return error instanceof RoundhouseError && (code === undefined || error.code === code)
}

/** The kind of each code: what a wire needs to rebuild an error that another node sent by code and text. */
export function kindOf(code: ErrorCode): ErrorKind {
  return definitions[code].kind
}

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(definitions, text)
}

/** An error that arrived over a wire: its code and text survive, its facts don't. */
export class RemoteError extends Error {
  override readonly name = 'RemoteError'
  readonly code: ErrorCode
  readonly kind: ErrorKind
  readonly leaderAddress: string | null

  constructor(code: ErrorCode, message: string, leaderAddress: string | null = null) {
    super(message)
    this.code = code
    this.kind = kindOf(code)
    this.leaderAddress = leaderAddress
  }
}
