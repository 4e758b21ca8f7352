import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type AssignmentProblem, assign } from '../../src/keyspace/assignment.ts'

/** Streams by size and readers. */
function problemOf(members: number, streams: readonly (readonly [number, readonly number[]])[]) {
  return {
    members,
    streams: streams.flatMap(([size], stream) => new Array<number>(size).fill(stream)),
    readers: streams.map(([, readers]) => readers),
  }
}

const nobody = (problem: AssignmentProblem) => problem.streams.map(() => -1)
const all = (members: number) => Array.from({ length: members }, (_, member) => member)

function loadsOf(problem: AssignmentProblem, owners: readonly number[]): number[] {
  const loads = new Array<number>(problem.members).fill(0)
  for (const owner of owners) if (owner !== -1) loads[owner]!++
  return loads
}

/** Every partition that has a reader has one owner, a reader of its stream. */
function checkOwned(problem: AssignmentProblem, owners: readonly number[]): void {
  assert.equal(owners.length, problem.streams.length)
  for (const [partition, owner] of owners.entries()) {
    const readers = problem.readers[problem.streams[partition]!]!
    if (readers.length === 0) assert.equal(owner, -1)
    else assert.ok(readers.includes(owner))
  }
}

const sumOfSquares = (loads: readonly number[]) => loads.reduce((sum, load) => sum + load * load, 0)
const movesOf = (before: readonly number[], after: readonly number[]) =>
  before.filter((member, partition) => member !== -1 && after[partition] !== member).length

/** All ways to own all partitions. */
function* ways({ streams, readers }: AssignmentProblem, at = 0): Generator<number[]> {
  if (at === streams.length) {
    yield []
    return
  }
  const among = readers[streams[at]!]!
  for (const rest of ways({ streams, readers, members: 0 }, at + 1))
    for (const owner of among.length === 0 ? [-1] : among) yield [owner, ...rest]
}

const mixed = (membersMax: number, streamsMax: number, sizeMax: number) =>
  fc
    .integer({ min: 1, max: membersMax })
    .chain(members =>
      fc
        .array(fc.tuple(fc.integer({ min: 1, max: sizeMax }), fc.subarray(all(members))), {
          minLength: 1,
          maxLength: streamsMax,
        })
        .map(streams => problemOf(members, streams)),
    )
    .chain(problem =>
      fc.tuple(
        fc.constant(problem),
        fc.tuple(...problem.streams.map(() => fc.integer({ min: -1, max: problem.members - 1 }))),
      ),
    )

describe('range assignment', () => {
  it('gives neighbours to a member, one more to the first ones', () =>
    assert.deepEqual(
      assign('range', problemOf(3, [[8, [0, 1, 2]]]), new Array(8).fill(-1)),
      [0, 0, 0, 1, 1, 1, 2, 2],
    ))

  it('gives the same partition of equal streams to the same member', () =>
    assert.deepEqual(
      assign(
        'range',
        problemOf(2, [
          [3, [0, 1]],
          [3, [0, 1]],
        ]),
        new Array(6).fill(-1),
      ),
      [0, 0, 1, 0, 0, 1],
    ))

  it('gives nothing to those for whom nothing is left', () =>
    assert.deepEqual(assign('range', problemOf(4, [[2, [1, 2, 3]]]), [-1, -1]), [1, 2]))

  it('owns each partition once, in runs that differ by one at most', () =>
    fc.assert(
      fc.property(mixed(6, 4, 12), ([problem, before]) => {
        const owners = assign('range', problem, before)
        checkOwned(problem, owners)
        for (const [stream, readers] of problem.readers.entries()) {
          const mine = owners.filter((_, partition) => problem.streams[partition] === stream)
          assert.deepEqual(
            mine,
            [...mine].sort((a, b) => a - b),
          )
          const sizes = readers.map(reader => mine.filter(owner => owner === reader).length)
          if (sizes.length > 0) assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1)
        }
      }),
    ))
})

describe('sticky assignment', () => {
  it('leaves what is even as it is', () => {
    const before = [1, 0, 2, 0, 1, 2]
    assert.deepEqual(assign('sticky', problemOf(3, [[6, [0, 1, 2]]]), before), before)
  })

  it('gives one who joins no more than its share', () => {
    const problem = problemOf(3, [[7, [0, 1, 2]]])
    const before = [0, 1, 0, 1, 0, 1, 0]
    const after = assign('sticky', problem, before)
    assert.equal(loadsOf(problem, after)[2], 2)
    assert.equal(movesOf(before, after), 2)
  })

  it('spreads what one who left had, and nothing else', () => {
    const before = [0, 1, -1, 0, 1, -1]
    const after = assign('sticky', problemOf(2, [[6, [0, 1]]]), before)
    assert.deepEqual(after, [0, 1, 0, 0, 1, 1])
  })

  it('passes partitions on over a member that reads both streams', () => {
    // 0 reads a, 1 reads a and b, 2 reads b: 0 has all of a, 1 all of b.
    const problem = problemOf(3, [
      [3, [0, 1]],
      [3, [1, 2]],
    ])
    const after = assign('sticky', problem, [0, 0, 0, 1, 1, 1])
    assert.deepEqual(loadsOf(problem, after), [2, 2, 2])
    assert.equal(movesOf([0, 0, 0, 1, 1, 1], after), 3)
  })

  it('owns each partition once; where all read the same it is even and moves the fewest', () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }),
        fc.infiniteStream(fc.integer({ min: -1, max: 6 })),
        (members, sizes, random) => {
          const problem = problemOf(
            members,
            sizes.map(size => [size, all(members)]),
          )
          const before = problem.streams.map(() => Math.min(random.next().value ?? -1, members - 1))
          const after = assign('sticky', problem, before)
          checkOwned(problem, after)
          const [total, had] = [problem.streams.length, loadsOf(problem, before)]
          const loads = loadsOf(problem, after)
          assert.ok(Math.max(...loads) - Math.min(...loads) <= 1)
          // The fewest: the fullest keep the larger shares, each keeps what it had up to its share.
          const fewest = had
            .sort((a, b) => b - a)
            .map((load, place) =>
              Math.max(0, load - Math.floor(total / members) - (place < total % members ? 1 : 0)),
            )
            .reduce((sum, moves) => sum + moves, 0)
          assert.equal(movesOf(before, after), fewest)
        },
      ),
    ))

  it('is as even as subscriptions allow', () =>
    fc.assert(
      fc.property(mixed(4, 3, 3), ([problem, before]) => {
        const after = assign('sticky', problem, before)
        checkOwned(problem, after)
        let best = Number.POSITIVE_INFINITY
        for (const way of ways(problem)) best = Math.min(best, sumOfSquares(loadsOf(problem, way)))
        assert.equal(sumOfSquares(loadsOf(problem, after)), best)
        // And once it is, it stays.
        assert.deepEqual(assign('sticky', problem, after), after)
      }),
      { numRuns: 60 },
    ))

  it('takes no more moves for members of a thousand partitions than it must', () => {
    const problem = problemOf(256, [[4_096, all(256)]])
    const before = assign('sticky', problem, nobody(problem))
    const joined = problemOf(257, [[4_096, all(257)]])
    assert.equal(movesOf(before, assign('sticky', joined, before)), 15)
  })
})
