/** What callers bring and what they are told, in the words of the scripts. */
import { commands } from '../../../../src/commands/table.ts'
import { RoundhouseError } from '../../../../src/errors.ts'
import type { SessionUse } from '../../../../src/keyspace/sessions.ts'
import { fromUtf8, toUtf8 } from '../../../../src/lib/bytes.ts'
import type { Settled } from '../../../../src/shard/proposal.ts'
import type { Replica } from '../../../../src/shard/replica.ts'

/**
 * `a 7 SET k v session=s/1/1`: a caller, where it asks, its command, and its session/sequence/acknowledged below. A session
 * is made when it is first named, or so many minutes before or after: `s@-56/1/1`.
 */
export interface Call {
  readonly caller: string
  readonly where: string
  readonly command: string
  readonly args: readonly string[]
  readonly session: {
    readonly name: string
    readonly minutes: number
    readonly sequence: number
    readonly ackedBelow: number
  } | null
}

export function parseCall(line: string): Call {
  const words = line.trim().split(/\s+/)
  const use = words.at(-1)?.match(/^session=(\w+)(?:@([+-]\d+))?\/(\d+)\/(\d+)$/) ?? null
  if (use !== null) words.pop()
  const [caller, where, command, ...args] = words
  if (caller === undefined || where === undefined || command === undefined || !commands.has(command))
    throw new Error(`no call: ${line}`)
  const [, name = '', minutes = 0, ...numbers] = use ?? []
  const [sequence = 0, ackedBelow = 0] = numbers.map(Number)
  const session = use === null ? null : { name, minutes: Number(minutes), sequence, ackedBelow }
  return { caller, where, command, args, session }
}

/** The sessions of a script by their names: an id begins with the time at which it was first used. */
export class Sessions {
  private readonly ids = new Map<string, Uint8Array>()

  use(session: Call['session'], wallMs: number): SessionUse | null {
    if (session === null) return null
    const { name, minutes, sequence, ackedBelow } = session
    const id = this.ids.get(name) ?? makeId(name, wallMs + minutes * 60_000)
    this.ids.set(name, id)
    return { id, sequence, ackedBelow }
  }
}

function makeId(name: string, wallMs: number): Uint8Array {
  const id = new Uint8Array(16)
  let ms = Math.floor(wallMs)
  for (let i = 5; i >= 0; i--) {
    id[i] = ms % 256
    ms = Math.floor(ms / 256)
  }
  id.set(fromUtf8(name).subarray(0, 10), 6)
  return id
}

export function ask(
  replica: Replica,
  { command, args }: Call,
  session: SessionUse | null,
  deadline: number,
  settle: (settled: Settled) => void,
): void {
  replica.enqueueWrite({ operations: [{ command, args: args.map(fromUtf8) }], session, deadline, settle })
}

/** `withIndex`: where a script knows every entry. */
export function describeSettled(settled: Settled, withIndex: boolean): string {
  if (settled.ok) {
    const replies = settled.replies.map(describeReply).join(' ')
    return withIndex ? `${replies} at index ${settled.index}` : replies
  }
  const code = settled.error instanceof RoundhouseError ? settled.error.code : settled.error.name
  return settled.isDefinite ? `refused, ${code}` : `unknown, ${code}`
}

function describeReply(reply: Extract<Settled, { ok: true }>['replies'][number]): string {
  switch (reply.kind) {
    case 'nil':
      return 'nil'
    case 'value':
      return JSON.stringify(toUtf8(reply.value))
    case 'success':
      return reply.success ? 'ok' : 'not done'
    case 'count':
      return String(reply.count)
    case 'list':
      return `${reply.items.length} items`
  }
}

/** What a key holds at a replica as it is there, however old. */
export function peek(replica: Replica, key: string): string {
  const reply = replica.peek(commands.get('GET')!, [fromUtf8(key)])
  return reply === null ? 'no answer' : describeReply(reply)
}
