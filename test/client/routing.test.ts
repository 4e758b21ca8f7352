import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import type { Client } from '../../src/client/entry.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { deferred } from '../../src/lib/deferred.ts'
import type { CallResult } from '../../src/node/ports.ts'
import { eventually } from '../lib/cluster-harness.ts'
import { nothing, value } from '../wire/grpc/fake-service.ts'
import { count, done, errorOf, type FakeNode, FakeNodes, notLeader, shardOf, silence } from './fake-nodes.ts'

let fakes: FakeNodes
let nodes: FakeNode[]
const clients: Client[] = []
const connected = async (options: Parameters<FakeNodes['connect']>[0] = {}) => {
  const client = await fakes.connect(options)
  clients.push(client)
  return client
}
beforeEach(async () => {
  fakes = await FakeNodes.start(3)
  nodes = fakes.nodes
})
afterEach(async () => {
  await Promise.all(clients.splice(0).map(client => client.destroy()))
  await fakes.close()
})

describe('a call of the client', () => {
  it('goes to the node that leads its key, not to be forwarded', async () => {
    fakes.leaders = [0, 1, 2, 1]
    const client = await connected()
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      await client.get(key)
      const leader = nodes[fakes.leaders[shardOf(key)]!]!
      const call = leader.calls.at(-1)!
      assert.deepEqual(
        [leader.commands.at(-1), call.forward, call.read],
        [`GET ${key}`, false, 'linearizable'],
      )
    }
  })

  it('follows the refusal of a node that does not lead, and the next one needs none', async () => {
    nodes[0]!.onExecute = async () => {
      throw notLeader(nodes[2]!.address)
    }
    nodes[2]!.onExecute = async () => done
    const client = await connected()
    assert.equal(await client.set('k', 'v'), true)
    assert.deepEqual(
      nodes.map(node => node.calls.length),
      [1, 0, 1],
    )
    assert.equal(nodes[2]!.calls[0]!.forward, false)
    await client.set('k', 'w')
    assert.deepEqual(
      nodes.map(node => node.calls.length),
      [1, 0, 2],
    )
  })

  it('is given to another node to forward when no leader is known', async () => {
    nodes[0]!.onExecute = async () => {
      throw notLeader(null)
    }
    nodes[1]!.onExecute = nodes[2]!.onExecute = async () => done
    const client = await connected()
    assert.equal(await client.set('k', 'v'), true)
    const [call] = [...nodes[1]!.calls, ...nodes[2]!.calls]
    assert.equal(call!.forward, true)
  })

  it('goes to any node when its keys have several leaders', async () => {
    fakes.leaders = [0, 1, 2, 1]
    const client = await connected()
    for (const node of nodes)
      node.onExecute = async () => ({ reply: { kind: 'list', items: [{}, {}, {}] }, revision: 0, lagMs: 0 })
    assert.deepEqual(await client.mget('a', 'b', 'c'), [null, null, null])
    assert.deepEqual(
      nodes.flatMap(node => node.calls.map(call => call.forward)),
      [true],
    )
  })

  it('is told to any replica when stale', async () => {
    const client = await connected()
    for (let turn = 0; turn < 6; turn++) await client.stale.get('k')
    assert.ok(nodes.every(node => node.calls.every(call => call.read === 'stale')))
    assert.ok(nodes.filter(node => node.calls.length > 0).length > 1, 'not one node for all')
  })

  it('finds its way without a map', async () => {
    for (const node of nodes)
      node.mapError = new RoundhouseError('DENIED', { who: 'ada', what: 'call Map', needed: 'an admin' })
    const { address } = nodes[1]!
    nodes[0]!.onExecute = nodes[2]!.onExecute = async () => {
      throw notLeader(address)
    }
    nodes[1]!.onExecute = async () => value('v')
    const client = await connected()
    for (let turn = 0; turn < 5; turn++) assert.equal(await client.get('k'), 'v')
    assert.equal(nodes[1]!.calls.length, 5)
    assert.ok(nodes[0]!.calls.length + nodes[2]!.calls.length <= 1)
  })
})

describe('a write that is tried again', () => {
  it('keeps its session and sequence', async () => {
    let isFirst = true
    for (const node of nodes) {
      node.onExecute = async () => {
        if (!isFirst) return count(1)
        isFirst = false
        throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'the leader changed' })
      }
    }
    const client = await connected()
    assert.equal(await client.incr('n'), 1)
    const sessions = nodes.flatMap(node => node.calls.map(call => call.session!))
    assert.equal(sessions.length, 2)
    assert.deepEqual(sessions[0], sessions[1])
    assert.equal(sessions[0]!.id.byteLength, 16)
    assert.ok(Math.abs(Buffer.from(sessions[0]!.id).readUIntBE(0, 6) - Date.now()) < 60_000)
  })

  it('holds the mark of its session until it is settled', async () => {
    const gate = deferred<CallResult>()
    nodes[0]!.onExecute = async ({ args }) =>
      Buffer.from(args[0]!).toString() === 'slow' ? gate.promise : done
    const client = await connected()
    const slow = client.set('slow', '1')
    await eventually('it is under way', 2_000, () => nodes[0]!.calls.length === 1)
    const keys = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].filter(key => shardOf(key) !== shardOf('slow'))
    const others = keys.map(key => client.set(key, '1'))
    await eventually('they are under way', 2_000, () => nodes[0]!.calls.length === 1 + keys.length)
    gate.resolve(done)
    await Promise.all([slow, ...others])
    await client.set('z', '1')
    const marks = nodes[0]!.calls.map(call => [call.session!.sequence, call.session!.ackedBelow])
    assert.deepEqual(marks, [
      [1, 1],
      ...keys.map((_, place) => [place + 2, 1]),
      [keys.length + 2, keys.length + 2],
    ])
  })

  it('leaves a node that does not answer, and the later ones avoid it', async () => {
    nodes[0]!.onExecute = silence
    nodes[1]!.onExecute = nodes[2]!.onExecute = async () => count(7)
    const client = await connected({ retry: { attemptTimeout: 150 } })
    assert.equal(await client.incr('n'), 7)
    assert.equal(await client.incr('n'), 7)
    assert.equal(nodes[0]!.calls.length, 1)
    const [tried] = nodes[0]!.calls
    const again = [...nodes[1]!.calls, ...nodes[2]!.calls].map(call => call.session!)
    assert.deepEqual(
      again.find(({ sequence }) => sequence === tried!.session!.sequence),
      tried!.session,
    )
  })

  it('is not sent twice because it waits behind others that are answered', async () => {
    let last = Promise.resolve()
    nodes[0]!.onExecute = () => {
      last = last.then(() => new Promise(resolve => setTimeout(resolve, 10)))
      return last.then(() => done)
    }
    const client = await connected({ retry: { attemptTimeout: 500 } })
    await Promise.all(Array.from({ length: 80 }, (_, turn) => client.set('k', turn)))
    assert.deepEqual(
      nodes.map(node => node.calls.length),
      [80, 0, 0],
    )
  })

  it('that hangs holds back those behind it no longer than an attempt may take', async () => {
    const other = ['a', 'b', 'c', 'd', 'e'].find(key => shardOf(key) !== shardOf('hangs'))!
    nodes[0]!.onExecute = async call =>
      Buffer.from(call.args[0]!).toString() === 'hangs' ? silence(call) : done
    nodes[1]!.onExecute = nodes[2]!.onExecute = nodes[0]!.onExecute
    const client = await connected({ retry: { attemptTimeout: 100 } })
    const hanging = errorOf(client.with({ timeout: 1_000 }).set('hangs', '1'))
    assert.equal(await client.set(other, '1'), true)
    for (let turn = 0; turn < 20; turn++) assert.equal(await client.set(other, turn), true)
    assert.deepEqual([(await hanging).code, (await hanging).outcome], ['DEADLINE', 'unknown'])
  })

  it('goes elsewhere when its node shuts down', async () => {
    nodes[1]!.onExecute = nodes[2]!.onExecute = async () => done
    const begun = deferred<void>()
    nodes[0]!.onExecute = call => {
      begun.resolve()
      return silence(call)
    }
    const client = await connected()
    const set = client.set('k', 'v')
    await begun.promise
    await nodes[0]!.close(20)
    assert.equal(await set, true)
  })

  it('is repeated after a pause when its node has too much to do', async () => {
    let refusals = 2
    nodes[0]!.onExecute = async () => {
      if (refusals-- > 0) throw new RoundhouseError('OVERLOADED', { what: 'calls under way', max: 1 })
      return done
    }
    for (const other of nodes.slice(1)) other.onExecute = nodes[0]!.onExecute
    const client = await connected()
    assert.equal(await client.set('k', 'v'), true)
  })

  it('is not tried again when that is asked for', async () => {
    nodes[0]!.onExecute = async () => {
      throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'the leader changed' })
    }
    const client = await connected({ retry: { attempts: 1 } })
    const error = await errorOf(client.set('k', 'v'))
    assert.deepEqual([error.code, error.outcome, error.attempts], ['OUTCOME_UNKNOWN', 'unknown', 1])
    assert.equal(nodes.flatMap(node => node.calls).length, 1)
  })
})

describe('a call that fails', () => {
  const failing = (error: RoundhouseError) => {
    for (const node of nodes)
      node.onExecute = async () => {
        throw error
      }
  }

  it('rejects with the refusal, its code and words, at once', async () => {
    failing(new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'string' }))
    const error = await errorOf((await connected()).incr('k'))
    assert.deepEqual(
      [error.name, error.code, error.outcome, error.command, error.attempts],
      ['CallError', 'WRONG_TYPE', 'refused', 'INCR', 1],
    )
    assert.match(error.message, /^INCR: WRONGTYPE .* a hash, not a string$/)
  })

  it('is unknown if it is a write that was sent and never answered, and refused if it is a read', async () => {
    for (const node of nodes) node.onExecute = silence
    const client = await connected({ timeout: 200 })
    const [write, read] = await Promise.all([errorOf(client.set('k', 'v')), errorOf(client.get('k'))])
    assert.deepEqual([write.code, write.outcome], ['DEADLINE', 'unknown'])
    assert.match(
      write.message,
      /^SET: outcome unknown: .* did not answer; .* may or may not .*\(after \d+ ms and 1 attempt\)$/,
    )
    assert.deepEqual([read.code, read.outcome], ['DEADLINE', 'refused'])
  })

  it('stays unknown when a later attempt was only refused', async () => {
    let isFirst = true
    for (const node of nodes) {
      node.onExecute = async () => {
        if (!isFirst) throw new RoundhouseError('NO_LEADER', { shard: 1, waitedMs: 9 })
        isFirst = false
        throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'the leader changed' })
      }
    }
    const error = await errorOf((await connected({ timeout: 200 })).set('k', 'v'))
    assert.deepEqual([error.code, error.outcome], ['OUTCOME_UNKNOWN', 'unknown'])
    assert.match(error.message, /last: CLUSTERDOWN/)
  })

  it('is refused when all attempts were', async () => {
    failing(new RoundhouseError('NO_LEADER', { shard: 1, waitedMs: 9 }))
    const error = await errorOf((await connected({ timeout: 150 })).set('k', 'v'))
    assert.deepEqual([error.code, error.outcome], ['NO_LEADER', 'refused'])
    assert.ok(error.attempts > 1)
  })

  it('names the leader where the last refusal did', async () => {
    failing(notLeader(nodes[2]!.address))
    const error = await errorOf((await connected({ retry: { attempts: 1 } })).set('k', 'v'))
    assert.deepEqual([error.code, error.outcome, error.leader], ['NOT_LEADER', 'refused', nodes[2]!.address])
    assert.ok(nodes.flatMap(node => node.calls).length <= 5, 'hints are followed, but not for ever')
  })

  it('was applied when its reply came too late and was too long to be kept', async () => {
    nodes[0]!.onExecute = async () => done
    const error = await errorOf((await connected()).getdel('k'))
    assert.deepEqual([error.code, error.outcome, error.command], ['REPLY_LOST', 'applied', 'GETDEL'])
  })

  it('is settled by the answer to a repeated one, refusals too', async () => {
    let isFirst = true
    for (const node of nodes) {
      node.onExecute = async () => {
        if (!isFirst) throw new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'string' })
        isFirst = false
        throw new RoundhouseError('OUTCOME_UNKNOWN', { why: 'the leader changed' })
      }
    }
    const error = await errorOf((await connected()).incr('k'))
    assert.deepEqual([error.code, error.outcome], ['WRONG_TYPE', 'refused'])
  })
})

describe('calls of one tick', () => {
  it('travel on one stream, in order, shard by shard', async () => {
    nodes[0]!.onExecute = async ({ command }) => (command === 'GET' ? nothing : done)
    const client = await connected()
    await Promise.all([client.set('k', '1'), client.get('k'), client.set('k', '2'), client.get('k')])
    assert.deepEqual(nodes[0]!.commands, ['SET k 1', 'GET k', 'SET k 2', 'GET k'])
    const [first] = nodes[0]!.calls
    assert.ok(first!.order !== undefined && nodes[0]!.calls.every(call => call.order === first!.order))
  })

  it('spread over streams where they are reads that follow no write', async () => {
    const client = await connected()
    await Promise.all(Array.from({ length: 8 }, () => client.get('k')))
    assert.equal(new Set(nodes[0]!.calls.map(call => call.order)).size, 4)
  })

  it('stay on one stream in a pipeline', async () => {
    nodes[0]!.onExecute = async ({ command }) => (command === 'GET' ? value('v') : done)
    const client = await connected()
    assert.deepEqual(await client.pipeline().get('k').get('k').set('k', 1).run(), ['v', 'v', true])
    assert.equal(new Set(nodes[0]!.calls.map(call => call.order)).size, 1)
  })

  it('tell each its own outcome in a pipeline', async () => {
    nodes[0]!.onExecute = async ({ command }) => {
      if (command === 'INCR') throw new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'string' })
      return done
    }
    const client = await connected()
    const pipeline = () => client.pipeline().set('a', 1).incr('h').set('b', 2)
    const outcomes = (await pipeline().settle()).map(each => each.status)
    assert.deepEqual(outcomes, ['fulfilled', 'rejected', 'fulfilled'])
    assert.equal((await errorOf(pipeline().run())).code, 'WRONG_TYPE')
    assert.equal(nodes[0]!.calls.length, 6)
  })
})

describe('an AbortSignal', () => {
  it('ends calls under way: of writes the outcome is unknown', async () => {
    nodes[0]!.onExecute = silence
    const client = await connected()
    const controller = new AbortController()
    const aborted = client.with({ signal: controller.signal })
    const calls = [errorOf(aborted.set('k', 'v')), errorOf(aborted.get('x'))]
    await eventually('both are sent', 2_000, () => nodes[0]!.calls.length === 2)
    controller.abort(new Error('enough'))
    const [write, read] = await Promise.all(calls)
    assert.deepEqual([write!.name, write!.code, write!.outcome], ['AbortError', 'ABORTED', 'unknown'])
    assert.deepEqual([read!.code, read!.outcome], ['ABORTED', 'refused'])
    assert.equal((write!.cause as Error).message, 'enough')
  })

  it('that is aborted already lets nothing be sent', async () => {
    const client = await connected()
    const error = await errorOf(client.with({ signal: AbortSignal.abort() }).set('k', 'v'))
    assert.deepEqual([error.code, error.outcome], ['ABORTED', 'refused'])
    assert.equal(nodes[0]!.calls.length, 0)
  })

  it('may end very many calls, and nobody is warned of listeners', async () => {
    nodes[0]!.onExecute = silence
    const warnings: Error[] = []
    const onWarning = (warning: Error) => warnings.push(warning)
    process.on('warning', onWarning)
    const controller = new AbortController()
    const view = (await connected()).with({ signal: controller.signal })
    const calls = Array.from({ length: 100 }, () => errorOf(view.get('k')))
    controller.abort()
    assert.ok((await Promise.all(calls)).every(error => error.code === 'ABORTED'))
    await new Promise(resolve => setImmediate(resolve))
    process.off('warning', onWarning)
    assert.deepEqual(warnings, [])
  })

  it('ends a single call at the node, too', async () => {
    const controller = new AbortController()
    const ended = deferred<void>()
    for (const node of nodes) {
      node.onExecute = call => {
        call.signal!.addEventListener('abort', () => ended.resolve())
        return silence(call)
      }
    }
    const client = await connected()
    const call = errorOf(client.with({ signal: controller.signal }).dbsize())
    await eventually('it is sent', 2_000, () => nodes.some(node => node.calls.length > 0))
    controller.abort()
    assert.equal((await call).code, 'ABORTED')
    await ended.promise
  })
})

describe('the limits of a client', () => {
  it('hold back what is too much for one time, in order', async () => {
    let underWay = 0
    let most = 0
    const gate = deferred<void>()
    nodes[0]!.onExecute = async () => {
      most = Math.max(most, ++underWay)
      await gate.promise
      underWay--
      return done
    }
    const client = await connected({ maxInFlight: 4 })
    const writes = Array.from({ length: 50 }, (_, turn) => client.set('k', turn))
    await eventually('four are under way', 2_000, () => underWay === 4)
    gate.resolve()
    await Promise.all(writes)
    assert.equal(most, 4)
    assert.deepEqual(
      nodes[0]!.commands,
      Array.from({ length: 50 }, (_, turn) => `SET k ${turn}`),
    )
  })

  it('refuse what would wait behind too many', async () => {
    nodes[0]!.onExecute = silence
    const client = await connected({ maxInFlight: 2, maxQueued: 3, timeout: 300 })
    const patient = client.with({ timeout: 600 })
    const errors = await Promise.all(
      [patient, patient, client, client, client, client].map(each => errorOf(each.set('k', 'v'))),
    )
    assert.deepEqual(
      errors.map(error => [error.code, error.outcome]),
      [
        ['DEADLINE', 'unknown'],
        ['DEADLINE', 'unknown'],
        ...Array.from({ length: 3 }, () => ['DEADLINE', 'refused']),
        ['QUEUE_FULL', 'refused'],
      ],
    )
    assert.match(errors[5]!.message, /2 are under way and 3 wait, which is the limit \(maxQueued\)/)
    assert.match(errors[3]!.message, /waited \d+ ms for its turn/)
  })

  it('let very many calls run out of time together, and go on serving', async () => {
    const gate = deferred<CallResult>()
    nodes[0]!.onExecute = () => gate.promise
    const client = await connected({ maxInFlight: 2, maxQueued: 20_000, timeout: 300 })
    const errors = await Promise.all(
      Array.from({ length: 15_000 }, (_, turn) => errorOf(client.set(`k${turn}`, 'v'))),
    )
    assert.ok(errors.every(error => error.code === 'DEADLINE'))
    gate.resolve(done)
    assert.equal(await client.with({ timeout: 10_000 }).set('k', 'v'), true)
  })

  it('forget none that waits behind one whose time is over', async () => {
    const gate = deferred<CallResult>()
    nodes[0]!.onExecute = () => gate.promise
    const client = await connected({ maxInFlight: 1, timeout: 300 })
    const patient = client.with({ timeout: 10_000 })
    const late = [errorOf(client.set('a', 'v')), errorOf(client.set('b', 'v'))]
    const others = ['c', 'd', 'e'].map(key => patient.set(key, 'v'))
    await eventually('the first is sent', 2_000, () => nodes[0]!.calls.length === 1)
    // Nothing of the client runs before the time of both is over: the second is met at the head of those that wait.
    const until = performance.now() + 400
    while (performance.now() < until);
    await Promise.all(late)
    gate.resolve(done)
    assert.deepEqual(await Promise.all(others), [true, true, true])
    assert.equal(await patient.set('f', 'v'), true)
  })

  it('may allow nobody to wait', async () => {
    nodes[0]!.onExecute = async () => done
    const client = await connected({ maxInFlight: 1, maxQueued: 0 })
    assert.equal(await client.set('k', 'v'), true)
    const [first, second] = await Promise.allSettled([client.set('k', 'v'), client.set('k', 'v')])
    assert.deepEqual([first.status, second.status], ['fulfilled', 'rejected'])
  })

  it('refuse arguments beyond their bytes', async () => {
    nodes[0]!.onExecute = silence
    const client = await connected({ maxBytes: 1_000, timeout: 200 })
    const first = errorOf(client.set('k', 'v'.repeat(900)))
    assert.equal((await errorOf(client.set('k', 'v'.repeat(200)))).code, 'QUEUE_FULL')
    await first
    assert.equal((await errorOf(client.set('k', 'v'.repeat(200)))).code, 'DEADLINE')
  })

  it('keep calls that hang from filling the sessions of the others', async () => {
    nodes[0]!.onExecute = async call =>
      Buffer.from(call.args[0]!).toString() === 'hangs' ? silence(call) : done
    const client = await connected()
    const other = ['a', 'b', 'c', 'd', 'e'].find(key => shardOf(key) !== shardOf('hangs'))!
    const hangs = errorOf(client.set('hangs', '1'))
    await eventually('it is under way', 2_000, () => nodes[0]!.calls.length === 1)
    const writes = Promise.allSettled(Array.from({ length: 1_020 }, () => client.set(other, '1')))
    await eventually('the others begin', 5_000, () => nodes[0]!.calls.length > 200)
    await client.destroy()
    await Promise.all([hangs, writes])
    for (const { session } of nodes[0]!.calls) assert.ok(session!.sequence - session!.ackedBelow < 1_000)
  })
})

describe('a client that closes', () => {
  it('lets calls under way end and takes no more', async () => {
    const gate = deferred<CallResult>()
    nodes[0]!.onExecute = () => gate.promise
    const client = await connected()
    const set = client.set('k', 'v')
    await eventually('it is sent', 2_000, () => nodes[0]!.calls.length === 1)
    const closed = client.close()
    const refused = await errorOf(client.get('k'))
    assert.deepEqual([refused.code, refused.outcome], ['CLOSED', 'refused'])
    gate.resolve(done)
    assert.equal(await set, true)
    await closed
    await client.close()
  })

  it('settles all at once when it is destroyed', async () => {
    nodes[0]!.onExecute = silence
    const client = await connected({ maxInFlight: 2 })
    const calls = [client.set('k', 'v'), client.get('x'), client.set('y', 'v')].map(errorOf)
    await eventually('two are sent', 2_000, () => nodes[0]!.calls.length === 2)
    await client.destroy()
    const errors = await Promise.all(calls)
    assert.deepEqual(
      errors.map(error => [error.code, error.outcome]),
      [
        ['CLOSED', 'unknown'],
        ['CLOSED', 'refused'],
        ['CLOSED', 'refused'],
      ],
    )
  })
})
