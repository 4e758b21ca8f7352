import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { type Client, connect } from '../../src/client/entry.ts'
import { commands, factsOf } from '../../src/client/table.ts'
import { commands as served } from '../../src/commands/table.ts'
import { type Cluster, startCluster } from '../../src/testing.ts'
import { errorOf } from './fake-nodes.ts'

let cluster: Cluster
let client: Client
/** Commands that were called in this file. */
const called = new Set<string>()

before(async () => {
  cluster = await startCluster({ nodes: 1 })
  client = await connect(cluster.addresses)
  for (const name of Object.keys(commands)) {
    const method = client[name as 'get']
    Object.defineProperty(client, name, {
      value: (...args: ['k']) => {
        called.add(name)
        return method.apply(client, args)
      },
    })
  }
})
after(async () => {
  await client?.close()
  await cluster?.stop()
})

/** Those with a dot are what nodes make of calls to other services: streams and their groups. */
const own = [...served.values()].filter(({ name }) => !name.includes('.') && name !== 'ATOMIC')

describe("the client's commands", () => {
  it('know the access and keys that the nodes know', () => {
    for (const { name, access, keys } of own) {
      const mine = factsOf(name)
      const isPlaced = keys === 'every-shard' || keys === 'shard-by-shard' ? 'none' : keys
      assert.deepEqual({ name, ...mine }, { name, access, keys: isPlaced })
    }
  })

  it('have a method for every command, scans aside', () => {
    const names = new Set<string>(Object.values(commands).map(spec => spec.name))
    const scans = ['SCAN', 'HSCAN', 'SSCAN', 'ZSCAN']
    assert.deepEqual(
      own.filter(({ name }) => !names.has(name) && !scans.includes(name)),
      [],
    )
  })

  it('of the node', async () => {
    assert.equal(await client.ping(), 'PONG')
    assert.equal(await client.ping('hello'), 'hello')
    assert.equal(await client.echo('again'), 'again')
  })

  it('of strings', async () => {
    assert.equal(await client.get('s'), null)
    assert.equal(await client.set('s', 'väl'), true)
    assert.equal(await client.get('s'), 'väl')
    assert.equal(await client.strlen('s'), 4)
    assert.equal(await client.append('s', 'ue'), 6)
    assert.equal(await client.set('s', 'x', { nx: true }), false)
    assert.equal(await client.set('t', 'x', { xx: true }), false)
    assert.equal(await client.set('s', 'y', { ifEqual: 'välue' }), true)
    assert.equal(await client.set('s', 'z', { ifEqual: 'välue' }), false)
    assert.equal(await client.setGet('s', 'w'), 'y')
    assert.equal(await client.setGet('new', 'w', { ex: 100 }), null)
    assert.equal(await client.getdel('s'), 'w')
    assert.equal(await client.getdel('s'), null)
    assert.equal(await client.mset({ a: 1, b: 'two' }), undefined)
    await client.mset(new Map([['c', 3]]))
    assert.deepEqual(await client.mget('a', 'b', 'none', 'c'), ['1', 'two', null, '3'])
    assert.deepEqual(
      [await client.incr('a'), await client.incrby('a', 40n), await client.decr('a')],
      [2, 42, 41],
    )
    assert.equal(await client.decrby('a', 40), 1)
  })

  it('of keys', async () => {
    await client.mset({ k1: 'v', k2: 'v', '{k1}x': 'v' })
    assert.equal(await client.exists('k1', 'k2', 'none'), 2)
    assert.equal(await client.type('k1'), 'string')
    assert.equal(await client.type('none'), 'none')
    assert.deepEqual([await client.ttl('k1'), await client.ttl('none')], [-1, -2])
    assert.equal(await client.expire('k1', 100), true)
    assert.equal(await client.expire('k1', 50, { gt: true }), false)
    assert.equal(await client.expire('none', 100), false)
    assert.ok([99, 100].includes(await client.ttl('k1')))
    assert.equal(await client.pexpire('k1', 5_000), true)
    assert.ok((await client.pttl('k1')) > 3_000)
    assert.equal(await client.persist('k1'), true)
    assert.equal(await client.persist('k1'), false)
    assert.equal(await client.expireat('k1', new Date(Date.now() + 60_000)), true)
    assert.equal(await client.pexpireat('k1', Date.now() + 60_000), true)
    assert.ok((await client.pttl('k1')) > 50_000)
    await client.set('k2', 'v', { px: 50_000 })
    await client.set('k2', 'w', { keepTtl: true })
    assert.ok((await client.pttl('k2')) > 40_000)
    await client.set('k2', 'v', { pxAt: Date.now() + 90_000 })
    assert.ok((await client.pttl('k2')) > 80_000)
    await client.set('k2', 'v', { exAt: new Date(Date.now() + 90_000) })
    assert.ok((await client.pttl('k2')) > 80_000)
    assert.equal(await client.copy('k1', '{k1}y'), true)
    assert.equal(await client.copy('k1', '{k1}y'), false)
    assert.equal(await client.copy('k1', '{k1}y', { replace: true }), true)
    assert.equal(await client.rename('{k1}y', '{k1}z'), undefined)
    assert.equal(await client.get('{k1}z'), 'v')
    assert.equal(typeof (await client.randomkey()), 'string')
    assert.ok((await client.dbsize()) >= 4)
    assert.equal(await client.del('k1', 'k2', 'none'), 2)
  })

  it('of hashes', async () => {
    assert.equal(await client.hset('h', { name: 'Ada', __proto__x: '1' }), 2)
    assert.equal(await client.hset('h', 'name', 'Ada L'), 0)
    assert.equal(await client.hset('h', new Map([['born', 1815]])), 1)
    assert.equal(await client.hset('h', JSON.parse('{"__proto__":"p"}')), 1)
    assert.equal(await client.hget('h', 'name'), 'Ada L')
    assert.equal(await client.hget('h', 'none'), null)
    assert.deepEqual(await client.hmget('h', 'born', 'none'), ['1815', null])
    const all = await client.hgetall('h')
    assert.deepEqual(Object.entries(all).sort(), [
      ['__proto__', 'p'],
      ['__proto__x', '1'],
      ['born', '1815'],
      ['name', 'Ada L'],
    ])
    assert.equal(await client.hdel('h', '__proto__', '__proto__x', 'none'), 2)
    assert.deepEqual((await client.hkeys('h')).sort(), ['born', 'name'])
    assert.deepEqual((await client.hvals('h')).sort(), ['1815', 'Ada L'])
    assert.deepEqual(
      [await client.hlen('h'), await client.hexists('h', 'born'), await client.hexists('h', 'x')],
      [2, true, false],
    )
    assert.deepEqual(
      [await client.hsetnx('h', 'born', 'x'), await client.hsetnx('h', 'died', 1852)],
      [false, true],
    )
    assert.equal(await client.hincrby('h', 'died', -37), 1815)
    assert.equal(await client.hsetex('h', 'soon', 'gone', 100), 1)
    assert.deepEqual(await client.hgetall('none'), {})
  })

  it('of lists', async () => {
    assert.equal(await client.rpush('l', 'b', 'c'), 2)
    assert.equal(await client.lpush('l', 'a', 'z'), 4)
    assert.deepEqual(await client.lrange('l', 0, -1), ['z', 'a', 'b', 'c'])
    assert.deepEqual(
      [await client.llen('l'), await client.lindex('l', -1), await client.lindex('l', 9)],
      [4, 'c', null],
    )
    assert.deepEqual(
      [await client.lpop('l'), await client.rpop('l'), await client.lpop('none')],
      ['z', 'c', null],
    )
    assert.equal(await client.lset('l', 0, 'A'), undefined)
    assert.deepEqual(await client.lpopCount('l', 5), ['A', 'b'])
    assert.equal(await client.rpopCount('l', 5), null)
    await client.rpush('l', 'x', 'y', 'x', 'z')
    assert.equal(await client.lrem('l', 0, 'x'), 2)
    assert.equal(await client.ltrim('l', 1, 1), undefined)
    assert.deepEqual(await client.rpopCount('l', 5), ['z'])
    assert.deepEqual(await client.lrange('none', 0, -1), [])
  })

  it('of sets', async () => {
    assert.equal(await client.sadd('set', 'b', 'a', 'b'), 2)
    assert.deepEqual(await client.smembers('set'), ['a', 'b'])
    assert.deepEqual([await client.sismember('set', 'a'), await client.sismember('set', 'x')], [true, false])
    assert.deepEqual([await client.scard('set'), await client.srem('set', 'a', 'x')], [2, 1])
  })

  it('of sorted sets', async () => {
    assert.equal(await client.zadd('z', { a: 1, b: 2.5, c: Number.POSITIVE_INFINITY }), 3)
    assert.equal(await client.zadd('z', new Map([['a', 5]]), { nx: true }), 0)
    assert.equal(await client.zadd('z', { a: 0 }, { gt: true, ch: true }), 0)
    assert.deepEqual([await client.zscore('z', 'b'), await client.zscore('z', 'x')], [2.5, null])
    assert.equal(await client.zscore('z', 'c'), Number.POSITIVE_INFINITY)
    assert.deepEqual(await client.zrange('z', 0, -1), ['a', 'b', 'c'])
    assert.deepEqual(await client.zrange('z', 0, 0, { rev: true }), ['c'])
    assert.deepEqual(
      await client.zrange('z', '(1', Number.POSITIVE_INFINITY, {
        by: 'score',
        limit: { offset: 0, count: 1 },
      }),
      ['b'],
    )
    await client.zadd('names', { a: 0, b: 0, c: 0 })
    assert.deepEqual(await client.zrange('names', '-', '[b', { by: 'member' }), ['a', 'b'])
    assert.deepEqual(await client.zrangeWithScores('z', 1, 2), [
      { member: 'b', score: 2.5 },
      { member: 'c', score: Number.POSITIVE_INFINITY },
    ])
    assert.deepEqual(
      [await client.zcard('z'), await client.zrank('z', 'b'), await client.zrank('z', 'x')],
      [3, 1, null],
    )
    assert.equal(await client.zincrby('z', -1.5, 'b'), 1)
    assert.equal(await client.zrem('z', 'b', 'x'), 1)
  })

  it('were all called in this file', () => {
    assert.deepEqual(
      Object.keys(commands).filter(name => !called.has(name)),
      [],
    )
  })
})

describe('the client', () => {
  it('answers Buffers on request, and takes any bytes for keys and values', async () => {
    const key = Buffer.from([0xff, 0x00, 0xfe])
    const bytes = Buffer.from([0x80, 0x0a, 0xff])
    await client.set(key, bytes)
    assert.deepEqual(await client.buffers.get(key), bytes)
    await client.sadd('bytes', key)
    assert.deepEqual(await client.buffers.smembers('bytes'), [key])
    assert.deepEqual(await client.buffers.mget(key, 'none'), [bytes, null])
    await client.del(key)
  })

  it('reads stale state on request, and says how old it may be', async () => {
    await client.set('old', '1')
    assert.equal(await client.stale.get('old'), '1')
    const reply = await client.with({ read: 'stale' }).execute('GET', 'old')
    assert.equal(reply.value, '1')
    assert.ok(reply.lagMs >= 0 && reply.lagMs < 10_000)
    assert.equal(reply.node, cluster.addresses[0])
    assert.ok((await client.execute('SET', 'old', '2')).revision > reply.revision)
  })

  it('runs any command by its name', async () => {
    assert.equal(await client.run('SET', 'r', '1'), true)
    assert.equal(await client.run('get', 'r'), '1')
    assert.equal(await client.run('GET', 'none'), null)
    assert.equal(await client.run('HSET', 'rh', 'f', 'v', 'g', 'w'), 2)
    assert.deepEqual(await client.run('HGETALL', 'rh'), [
      ['f', 'v'],
      ['g', 'w'],
    ])
    assert.deepEqual(await client.run('HKEYS', 'rh'), ['f', 'g'])
    assert.deepEqual(await client.run('MGET', 'r', 'none'), ['1', null])
    assert.equal(await client.run('ECHO', 'x'), 'x')
    const error = await errorOf(client.run('NONSENSE', 'x'))
    assert.deepEqual([error.code, error.outcome], ['UNKNOWN_COMMAND', 'refused'])
  })

  it('keeps 64-bit integers exact: a number where it can, else a bigint by run', async () => {
    await client.set('big', '9007199254740991')
    assert.equal(await client.run('INCR', 'big'), 9_007_199_254_740_992n)
    await assert.rejects(client.incr('big'), { name: 'RangeError', message: /9007199254740993/ })
  })

  it('iterates over keys and elements, page by page', async () => {
    const keys = Array.from({ length: 300 }, (_, number) => `scan:${number}`)
    await client.mset(Object.fromEntries(keys.map(key => [key, '1'])))
    const found: string[] = []
    for await (const key of client.scan({ match: 'scan:*', count: 50, type: 'string' })) found.push(key)
    assert.deepEqual(found.sort(), keys.sort())
    await client.hset('hs', Object.fromEntries(keys.map(key => [key, 'v'])))
    await client.sadd('ss', ...keys)
    await client.zadd('zs', Object.fromEntries(keys.map((key, score) => [key, score])))
    let fields = 0
    for await (const [field, value] of client.hscan('hs')) if (keys.includes(field) && value === 'v') fields++
    const members: string[] = []
    for await (const member of client.sscan('ss', { match: 'scan:1?' })) members.push(member)
    let sum = 0
    for await (const { score } of client.zscan('zs')) sum += score
    assert.deepEqual([fields, members.length, sum], [300, 10, (299 * 300) / 2])
  })

  it('refuses values that are none', async () => {
    await assert.rejects(client.set('k', undefined as never), {
      name: 'TypeError',
      message: 'SET: argument 2 is undefined; a string, number, bigint or Uint8Array is accepted',
    })
    await assert.rejects(client.set('k', {} as never), TypeError)
  })

  it('refuses options that can not be', async () => {
    const { addresses } = cluster
    for (const options of [
      { timeout: 0 },
      { timeout: 300_001 },
      { maxInFlight: 0.5 },
      { retry: { attempts: 0 } },
    ])
      await assert.rejects(connect({ addresses, ...options }), TypeError)
    assert.throws(() => client.with({ read: 'fresh' as never }), TypeError)
    await assert.rejects(connect({ addresses, tls: { ca: '/nowhere/ca.crt' } }), {
      message: /tls: \/nowhere\/ca.crt: can't be read/,
    })
  })
})

describe('connect', () => {
  it('says of each address why nobody answers', async () => {
    const error = await errorOf(connect({ addresses: '127.0.0.1:1,nowhere.invalid:1', timeout: 200 }))
    assert.deepEqual([error.code, error.outcome], ['UNREACHABLE', 'refused'])
    assert.match(
      error.message,
      /^no node answers: 127\.0\.0\.1:1: connection refused: nobody listens there; nowhere\.invalid:1: /,
    )
  })

  it('is content with one node of the list', async () => {
    const other = await connect(['127.0.0.1:1', ...cluster.addresses])
    assert.equal(await other.set('one', '1'), true)
    await other[Symbol.asyncDispose]()
  })

  it('ends with its signal', async () => {
    const signal = AbortSignal.abort()
    assert.equal((await errorOf(connect({ addresses: cluster.addresses, signal }))).code, 'ABORTED')
  })
})
