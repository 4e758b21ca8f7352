/**
 * A change of configuration as an entry carries it, and its bytes. One form for all: a single change with an `auto`
 * transition is applied at once (Raft §4.1 of the thesis: majorities that differ by one voter overlap), anything else
 * goes through a joint configuration (Raft §6). An empty list of changes leaves the joint configuration.
 *
 *   0        1        2            4        5 ...                  context to the end
 *   ┌────────┬────────┬────────────┬────────┬───────────────────┬──────────────┐
 *   │version │transit.│ count, u16 │ kind u8│ replica id, u64    │ context      │
 *   │  = 1   │  0 1 2 │ big-endian │     … repeated `count` ×   │ (the host's) │
 *   └────────┴────────┴────────────┴────────┴───────────────────┴──────────────┘
 *
 * No bytes at all is "leave, no context": the leader's own proposal to auto-leave is an entry without data.
 */
import { assert } from '../lib/assert.ts'
import { emptyBytes } from '../lib/bytes.ts'
import type { ConfChange, ConfChangeSingle } from './types.ts'

export const leaveJoint: ConfChange = { transition: 'auto', changes: [], context: emptyBytes }

export const leavesJoint = (change: ConfChange): boolean =>
  change.transition === 'auto' && change.changes.length === 0

/** `simple` when no joint configuration is needed, else whether the leader shall leave it by itself. */
export function transitionOf(change: ConfChange): 'simple' | 'autoLeave' | 'stay' {
  if (change.transition === 'auto' && change.changes.length <= 1) return 'simple'
  return change.transition === 'explicit' ? 'stay' : 'autoLeave'
}

const version = 1
const headerBytes = 4
const singleBytes = 9
/** Far above any group's size; it keeps the count in its 16 bits. */
export const confChangesMax = 1_000

const transitions = ['auto', 'implicit', 'explicit'] as const
const kinds = ['addNode', 'addLearner', 'removeNode', 'updateNode'] as const

export function encodeConfChange(change: ConfChange): Uint8Array {
  const { changes, context } = change
  if (leavesJoint(change) && context.byteLength === 0) return emptyBytes
  assert(changes.length <= confChangesMax, `${changes.length} changes in one entry`)
  const contextPosition = headerBytes + changes.length * singleBytes
  const bytes = new Uint8Array(contextPosition + context.byteLength)
  const view = new DataView(bytes.buffer)
  view.setUint8(0, version)
  view.setUint8(1, transitions.indexOf(change.transition))
  view.setUint16(2, changes.length)
  let position = headerBytes
  for (const { kind, replica } of changes) {
    view.setUint8(position, kinds.indexOf(kind))
    view.setBigUint64(position + 1, BigInt(replica))
    position += singleBytes
  }
  bytes.set(context, contextPosition)
  return bytes
}

/** The bytes come from a committed entry: what can't be read is a broken invariant, not bad input. */
export function decodeConfChange(bytes: Uint8Array): ConfChange {
  if (bytes.byteLength === 0) return leaveJoint
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  assert(bytes.byteLength >= headerBytes, `a configuration change of ${bytes.byteLength} bytes`)
  assert(view.getUint8(0) === version, `a configuration change of version ${view.getUint8(0)}`)
  const transition = transitions[view.getUint8(1)]
  assert(transition !== undefined, `an unknown transition ${view.getUint8(1)}`)
  const count = view.getUint16(2)
  const contextPosition = headerBytes + count * singleBytes
  assert(bytes.byteLength >= contextPosition, `a configuration change cut short: ${bytes.byteLength} bytes`)
  const changes: ConfChangeSingle[] = []
  for (let position = headerBytes; position < contextPosition; position += singleBytes) {
    const kind = kinds[view.getUint8(position)]
    assert(kind !== undefined, `an unknown kind of change ${view.getUint8(position)}`)
    changes.push({ kind, replica: Number(view.getBigUint64(position + 1)) })
  }
  return { transition, changes, context: bytes.subarray(contextPosition) }
}
