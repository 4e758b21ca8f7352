/**
 * Releases that a simulated cluster mixes.
 *
 * The next one has a command that this one lacks, and says so as it should: by a feature level. So nothing that a member
 * does not know may ever reach a log. Where a release forgets that (a command without `since`, an envelope in another
 * form), an older replica must stop at the first entry that it does not understand, and pass over nothing.
 */
import { incr } from '../../src/commands/incr.ts'
import type { StateMachine } from '../../src/commands/machine.ts'
import { type Release, supportedLevel, thisRelease } from '../../src/commands/release.ts'
import type { Bytes } from '../../src/lib/bytes.ts'
import type { Random } from '../../src/lib/prng.ts'
import type { Node } from '../../src/node/node.ts'
import type { Replica } from '../../src/shard/replica.ts'

/** A counter, as INCR is, of the next level. */
export const nextCommand = 'NEXT.INCR'

export const nextRelease: Release = {
  level: supportedLevel + 1,
  commands: new Map([
    ...thisRelease.commands,
    [nextCommand, { ...incr, name: nextCommand, since: supportedLevel + 1 }],
  ]),
}

/** It lacks a command, and ATOMIC, which could carry it. */
export function releaseWithout({ level, commands }: Release, name: string): Release {
  return { level, commands: new Map([...commands].filter(([each]) => each !== name && each !== 'ATOMIC')) }
}

const nextVersion = 2
const nextVersionRate = 0.03

/** An entry's bytes as this source reads them. */
export function asRead(data: Bytes): Bytes {
  return data[0] === nextVersion ? withVersion(data, 1) : data
}

function withVersion(data: Bytes, version: number): Bytes {
  const copy = data.slice()
  copy[0] = version
  return copy
}

/** Makes a node one of a release that reads envelopes of version 2, and writes some while `isWriting`. */
export function teachNextVersion(node: Node, random: Random, isWriting: () => boolean): void {
  const { host } = node
  const taught = new WeakSet<Replica>()
  const touch = host.touch.bind(host)
  // Each replica is touched when it is made, before it does anything.
  host.touch = replica => {
    if (!taught.has(replica)) {
      taught.add(replica)
      const { machine } = replica as unknown as { machine: StateMachine }
      const apply = machine.apply.bind(machine)
      machine.apply = (index, bytes, term) => apply(index, asRead(bytes), term)
      const { raft } = replica
      const written = (data: Bytes) =>
        isWriting() && random.next() < nextVersionRate ? withVersion(data, nextVersion) : data
      const propose = raft.propose.bind(raft)
      raft.propose = data => propose(written(data))
      const proposeAll = raft.proposeAll.bind(raft)
      raft.proposeAll = data => proposeAll(data.map(written))
    }
    touch(replica)
  }
}
