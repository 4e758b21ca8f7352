import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Operation } from '../../src/node/meta-register.ts'
import { nextStep, type Step } from '../../src/node/next-step.ts'
import { change, leaveJoint } from '../../src/raft/confchange.ts'
import { ProgressTracker } from '../../src/raft/tracker.ts'
import type { ConfState } from '../../src/raft/types.ts'
import {
  type Configuration,
  encodeChange,
  isJoint,
  type Member,
  nextConfiguration,
  noConfState,
} from '../../src/shard/configuration.ts'

/** Replica i lives on node i. */
const on = (...replicas: number[]): Member[] => replicas.map(replica => ({ replica, node: `n${replica}` }))
const wish = (voters: number[], learners: number[] = [], id = 1): Operation => ({
  id,
  voters: on(...voters),
  learners: on(...learners),
})

function configured(confState: Partial<ConfState>, operation = 0): Configuration {
  const full = { ...noConfState, ...confState }
  const ids = [...full.voters, ...full.votersOutgoing, ...full.learners]
  return { group: 3, index: 10, operation, members: on(...new Set(ids)), confState: full }
}

interface Around {
  readonly leader?: number
  readonly late?: readonly number[]
  readonly down?: readonly number[]
  /** The last operation that took a step. */
  readonly last?: number
}

function stepOf(operation: Operation, confState: Partial<ConfState>, around: Around = {}): Step {
  const { leader = 1, late = [], down = [], last = 0 } = around
  return nextStep(
    operation,
    configured(confState, last),
    leader,
    replica => !late.includes(replica),
    node => down.some(replica => node === `n${replica}`),
  )
}

describe('the next step of an operation', () => {
  it('brings in the first missing replica as a learner', () => {
    assert.deepEqual(stepOf(wish([1, 2, 3], [4]), { voters: [1] }), {
      kind: 'change',
      changes: [{ kind: 'addLearner', replica: 2 }],
      added: on(2),
    })
  })

  it('brings in the next one although the one before has caught up with nothing yet', () => {
    assert.deepEqual(stepOf(wish([1, 2, 3], [4]), { voters: [1], learners: [2] }, { late: [2] }), {
      kind: 'change',
      changes: [{ kind: 'addLearner', replica: 3 }],
      added: on(3),
    })
  })

  it('brings in wished learners before it promotes anybody', () => {
    assert.deepEqual(stepOf(wish([1, 2, 3], [4]), { voters: [1], learners: [2, 3] }), {
      kind: 'change',
      changes: [{ kind: 'addLearner', replica: 4 }],
      added: on(4),
    })
  })

  it('lets nobody vote who has not caught up', () => {
    const confState = { voters: [1], learners: [2, 3] }
    assert.deepEqual(stepOf(wish([1, 2, 3]), confState, { late: [3] }), {
      kind: 'wait',
      for: 'n3 to catch up',
    })
  })

  it('waits for a future voter whose node is down, too: a dead vote is worse than a late one', () => {
    const confState = { voters: [1], learners: [2, 3] }
    assert.deepEqual(stepOf(wish([1, 2, 3]), confState, { late: [3], down: [3] }), {
      kind: 'wait',
      for: 'n3 to catch up',
    })
  })

  it('promotes all that are to vote in one change', () => {
    assert.deepEqual(stepOf(wish([1, 2, 3]), { voters: [1], learners: [2, 3] }), {
      kind: 'change',
      changes: [
        { kind: 'addNode', replica: 2 },
        { kind: 'addNode', replica: 3 },
      ],
      added: [],
    })
  })

  it('replaces a voter in one joint change: the new one in, the old one to learner', () => {
    assert.deepEqual(stepOf(wish([1, 2, 4]), { voters: [1, 2, 3], learners: [4] }), {
      kind: 'change',
      changes: [
        { kind: 'addNode', replica: 4 },
        { kind: 'addLearner', replica: 3 },
      ],
      added: [],
    })
  })

  it('replaces a voter that is down, as nobody waits for those who go', () => {
    const confState = { voters: [1, 2, 3], learners: [4] }
    assert.deepEqual(stepOf(wish([1, 2, 4]), confState, { late: [3], down: [3] }), {
      kind: 'change',
      changes: [
        { kind: 'addNode', replica: 4 },
        { kind: 'addLearner', replica: 3 },
      ],
      added: [],
    })
  })

  it('promotes others although a voter that stays is down', () => {
    const confState = { voters: [1, 2, 3], learners: [4, 5] }
    assert.deepEqual(stepOf(wish([1, 2, 3, 4, 5]), confState, { late: [3], down: [3] }), {
      kind: 'change',
      changes: [
        { kind: 'addNode', replica: 4 },
        { kind: 'addNode', replica: 5 },
      ],
      added: [],
    })
  })

  it('makes a voter that is wished as a learner one', () => {
    assert.deepEqual(stepOf(wish([1], [2, 3]), { voters: [1, 2, 3] }), {
      kind: 'change',
      changes: [
        { kind: 'addLearner', replica: 2 },
        { kind: 'addLearner', replica: 3 },
      ],
      added: [],
    })
  })

  it('hands over before the leader stops voting, to voters that stay', () => {
    assert.deepEqual(stepOf(wish([2, 3, 4]), { voters: [1, 2, 3], learners: [4] }), {
      kind: 'transfer',
      to: [2, 3],
    })
  })

  it('takes the old leader out when another one leads', () => {
    assert.deepEqual(stepOf(wish([2, 3, 4]), { voters: [1, 2, 3], learners: [4] }, { leader: 2 }), {
      kind: 'change',
      changes: [
        { kind: 'addNode', replica: 4 },
        { kind: 'addLearner', replica: 1 },
      ],
      added: [],
    })
  })

  it('keeps an only voter that leaves until its heir votes beside it', () => {
    assert.deepEqual(stepOf(wish([2]), { voters: [1], learners: [2] }), {
      kind: 'change',
      changes: [{ kind: 'addNode', replica: 2 }],
      added: [],
    })
    assert.deepEqual(stepOf(wish([2]), { voters: [1, 2] }), { kind: 'transfer', to: [2] })
    assert.deepEqual(stepOf(wish([2]), { voters: [1, 2] }, { leader: 2 }), {
      kind: 'change',
      changes: [{ kind: 'addLearner', replica: 1 }],
      added: [],
    })
  })

  it('takes nothing while a joint configuration is not left', () => {
    const confState = { voters: [1, 2, 4], votersOutgoing: [1, 2, 3], learnersNext: [3], autoLeave: true }
    assert.deepEqual(stepOf(wish([1, 2, 4]), confState), {
      kind: 'wait',
      for: 'the joint configuration to end',
    })
  })

  it('takes out what nobody wishes for, one after another', () => {
    assert.deepEqual(stepOf(wish([1, 2, 4]), { voters: [1, 2, 4], learners: [3, 5] }), {
      kind: 'change',
      changes: [{ kind: 'removeNode', replica: 3 }],
      added: [],
    })
  })

  it('waits with the close for a learner that runs and has not caught up', () => {
    assert.deepEqual(stepOf(wish([1], [2]), { voters: [1], learners: [2] }, { late: [2] }), {
      kind: 'wait',
      for: 'n2 to catch up',
    })
  })

  it('takes a step of its own before it closes: after that no older operation can take one', () => {
    assert.deepEqual(stepOf(wish([1, 2, 3], [4], 5), { voters: [1, 2, 3], learners: [4] }, { last: 4 }), {
      kind: 'change',
      changes: [{ kind: 'updateNode', replica: 1 }],
      added: [],
    })
  })

  it('closes what is as it is wished', () => {
    const confState = { voters: [1, 2, 3], learners: [4] }
    assert.deepEqual(stepOf(wish([1, 2, 3], [4], 5), confState, { last: 5 }), { kind: 'close' })
  })

  it('closes without a learner whose node is down: it holds up nobody', () => {
    const confState = { voters: [1], learners: [2] }
    const around = { late: [2], down: [2], last: 1 }
    assert.deepEqual(stepOf(wish([1], [2]), confState, around), { kind: 'close' })
  })
})

// --- From anywhere to anywhere ------------------------------------------------------------------------------------

/** A group as its leader sees it, changed by Raft's own arithmetic: a change that Raft refuses fails the test. */
class Group {
  configuration: Configuration
  leader: number
  readonly caughtUp = new Set<number>()

  constructor(voters: readonly number[], learners: readonly number[], leader: number) {
    this.configuration = configured({ voters, learners })
    this.leader = leader
    for (const id of voters) this.caughtUp.add(id)
  }

  private tracker(): ProgressTracker {
    const tracker = new ProgressTracker(8, 0)
    const { confState } = this.configuration
    const progress = new Map(
      [...confState.voters, ...confState.votersOutgoing, ...confState.learners].map(id => [
        id,
        tracker.newProgress(1, confState.learners.includes(id)),
      ]),
    )
    tracker.switchTo(confState, progress)
    return tracker
  }

  take(step: Step & { readonly kind: 'change' }, operation: Operation): void {
    const { index } = this.configuration
    const context = { operation: operation.id, expectedIndex: index, added: step.added }
    const proposed = { transition: 'auto', changes: step.changes, context: encodeChange(context) } as const
    const result = change(this.tracker(), 100, proposed)
    assert.ok(result.kind === 'changed', JSON.stringify(result))
    const before = this.configuration.confState
    this.configuration = nextConfiguration(this.configuration, index + 1, result.config, context)
    // Raft §6: two configurations in force one after another have overlapping majorities.
    const moved = [
      ...result.config.voters.filter(id => !before.voters.includes(id)),
      ...before.voters.filter(id => !result.config.voters.includes(id)),
    ]
    if (isJoint(this.configuration)) assert.deepEqual(result.config.votersOutgoing, before.voters)
    else assert.ok(moved.length <= 1, `${moved} at once without a joint configuration`)
  }

  leaveJoint(): void {
    const result = leaveJoint(this.tracker(), 100)
    assert.ok(result.kind === 'changed')
    const { index } = this.configuration
    this.configuration = nextConfiguration(this.configuration, index + 1, result.config, null)
  }

  next(operation: Operation): Step {
    return nextStep(
      operation,
      this.configuration,
      this.leader,
      id => this.caughtUp.has(id),
      () => false,
    )
  }

  get nodesNamed(): readonly string[] {
    return this.configuration.members.map(member => member.node)
  }
}

const replicas = [1, 2, 3, 4, 5, 6, 7]
/** Voters (at least one), learners, and a number that picks a leader. */
const shape = fc
  .record({
    roles: fc.array(fc.constantFrom('voter', 'learner', 'none'), { minLength: 7, maxLength: 7 }),
    sure: fc.integer({ min: 0, max: 6 }),
  })
  .map(({ roles, sure }) => {
    const roleOf = (id: number) => (id === sure + 1 ? 'voter' : roles[id - 1])
    return {
      voters: replicas.filter(id => roleOf(id) === 'voter'),
      learners: replicas.filter(id => roleOf(id) === 'learner'),
      leader: sure + 1,
    }
  })
const chances = fc.infiniteStream(fc.integer({ min: 0, max: 1_000_000 }))
const stepsMax = 200

/** Drives `group` to `operation`, or for `steps` steps of it. True when it closed. */
function drive(group: Group, operation: Operation, draw: () => number, steps: number): boolean {
  for (let taken = 0; taken < steps; taken++) {
    const step = group.next(operation)
    const { confState } = group.configuration
    // Asked again, by this leader or another one at the same configuration, it is the same step.
    assert.deepEqual(group.next(operation), step)
    if (isJoint(group.configuration)) {
      assert.equal(step.kind, 'wait')
      group.leaveJoint()
      continue
    }
    switch (step.kind) {
      case 'close':
        assert.equal(group.configuration.operation, operation.id)
        return true
      case 'wait': {
        const late = [...confState.voters, ...confState.learners].filter(id => !group.caughtUp.has(id))
        assert.ok(late.length > 0, `waits for ${step.for} although all have caught up`)
        group.caughtUp.add(late[draw() % late.length]!)
        break
      }
      case 'transfer': {
        assert.ok(step.to.every(id => confState.voters.includes(id) && id !== group.leader))
        group.leader = step.to[draw() % step.to.length]!
        break
      }
      case 'change': {
        for (const { kind, replica } of step.changes) {
          if (kind === 'addNode') assert.ok(group.caughtUp.has(replica), `${replica} votes and lags behind`)
          else if (kind !== 'updateNode')
            assert.notEqual(replica, group.leader, 'the leader takes itself out')
        }
        group.take(step, operation)
        assert.ok(!group.nodesNamed.includes(''), 'a member whose node nobody knows')
        // Elections happen: any voter may be the leader that takes the next step.
        const { voters } = group.configuration.confState
        if (draw() % 4 === 0) group.leader = voters[draw() % voters.length]!
      }
    }
  }
  return false
}

describe('steps taken one after another', () => {
  it('lead from any configuration to any wish, never with two majorities that could disagree', () => {
    fc.assert(
      fc.property(shape, shape, chances, (from, to, random) => {
        const group = new Group(from.voters, from.learners, from.leader)
        const operation = wish(to.voters, to.learners)
        assert.ok(
          drive(group, operation, () => random.next().value, stepsMax),
          'it never closes',
        )
        const { confState } = group.configuration
        assert.deepEqual(confState, { ...noConfState, voters: to.voters, learners: to.learners })
      }),
      { numRuns: 400 },
    )
  })

  it('lead to the last wish, wherever its predecessors were given up', () => {
    const wishes = fc.array(fc.record({ to: shape, steps: fc.nat(8) }), { minLength: 1, maxLength: 3 })
    fc.assert(
      fc.property(shape, wishes, shape, chances, (from, givenUp, to, random) => {
        const group = new Group(from.voters, from.learners, from.leader)
        const draw = () => random.next().value
        for (const [i, each] of givenUp.entries())
          drive(group, wish(each.to.voters, each.to.learners, i + 1), draw, each.steps)
        const last = wish(to.voters, to.learners, givenUp.length + 1)
        assert.ok(drive(group, last, draw, stepsMax), 'it never closes')
        const { confState } = group.configuration
        assert.deepEqual(confState, { ...noConfState, voters: to.voters, learners: to.learners })
      }),
      { numRuns: 400 },
    )
  })
})
