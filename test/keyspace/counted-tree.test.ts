import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { CountedTree, type Entry, type TreeRoot } from '../../src/keyspace/counted-tree.ts'
import { MemoryRecords, MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { endOf, generationOf, numberKey, prefixes } from '../../src/keyspace/rows.ts'
import { Prng } from '../../src/lib/prng.ts'

const order = (a: Entry, b: Entry) =>
  a.score - b.score || (a.member < b.member ? -1 : a.member > b.member ? 1 : 0)

/** A tree that is opened anew for each call, as commands do. */
class Fixture {
  readonly rows = new MemoryRows()
  readonly header: TreeRoot = { generation: generationOf(1, 0), root: 0, nextNode: 1 }

  open(): CountedTree {
    return new CountedTree(this.rows, this.header)
  }

  change(run: (tree: CountedTree) => void): void {
    const tree = this.open()
    run(tree)
    tree.flush()
  }

  nodes(): [number: string, bytes: Uint8Array][] {
    const prefix = prefixes.node + this.header.generation
    return [...this.rows.range(prefix, endOf(prefix))].map(([row, bytes]) => [
      row.slice(prefix.length),
      bytes,
    ])
  }

  /** What the nodes say is so: counts, bounds, sizes, one height, no node that nobody leads to. */
  check(): { depth: number; nodes: number } {
    const nodes = new Map(this.nodes())
    const total = nodes.size
    const depths = new Set<number>()
    const walk = (node: number, depth: number): Entry[] => {
      const bytes = nodes.get(numberKey(node))
      assert.ok(bytes !== undefined, `node ${node} is there`)
      nodes.delete(numberKey(node))
      assert.ok(bytes.byteLength <= 1_800, `${bytes.byteLength} bytes`)
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      let at = 3
      const take = (): Entry => {
        const end = at + 10 + view.getUint16(at + 8)
        const entry = {
          score: view.getFloat64(at),
          member: Buffer.from(bytes.subarray(at + 10, end)).toString('latin1'),
        }
        at = end
        return entry
      }
      const count = view.getUint16(1)
      assert.ok(count > 0, 'no node is empty')
      const found: Entry[] = []
      if (bytes[0] === 0) {
        depths.add(depth)
        for (let i = 0; i < count; i++) found.push(take())
      } else
        for (let i = 0; i < count; i++) {
          const [child, entries] = [Number(view.getBigUint64(at)), Number(view.getBigUint64(at + 8))]
          at += 16
          const bound = take()
          const under = walk(child, depth + 1)
          assert.equal(under.length, entries)
          if (i > 0) assert.ok(found.length === 0 || order(found.at(-1)!, bound) < 0)
          if (i > 0) assert.ok(order(bound, under[0]!) <= 0)
          found.push(...under)
        }
      assert.equal(at, bytes.byteLength)
      return found
    }
    if (this.header.root !== 0) walk(this.header.root, 1)
    assert.deepEqual([...nodes.keys()], [])
    assert.ok(depths.size <= 1)
    return { depth: [...depths][0] ?? 0, nodes: total }
  }
}

describe('a counting tree', () => {
  it('is the sorted list of its entries: ranks, ranges, places between, under random inserts and removals', () => {
    const member = fc
      .tuple(fc.nat(40), fc.constantFrom(0, 3, 200, 500))
      .map(([n, pad]) => `${n}`.padEnd(pad, '\u00ff'))
    const score = fc.constantFrom(-1, 0, 0.5, 7, Number.POSITIVE_INFINITY)
    const step = fc.record({ isRemoval: fc.boolean(), member, score })
    fc.assert(
      fc.property(fc.array(fc.array(step, { maxLength: 12 }), { maxLength: 20, size: 'max' }), changes => {
        const fixture = new Fixture()
        const model = new Map<string, Entry>()
        for (const steps of changes) {
          fixture.change(tree => {
            for (const { isRemoval, member, score } of steps) {
              const old = model.get(member)
              if (old !== undefined) tree.remove(old)
              model.delete(member)
              if (isRemoval) continue
              tree.insert({ score, member })
              model.set(member, { score, member })
            }
          })
          fixture.check()
        }
        const sorted = [...model.values()].sort(order)
        const tree = fixture.open()
        assert.deepEqual(tree.slice(0, sorted.length), sorted)
        for (const [rank, entry] of sorted.entries()) {
          assert.equal(tree.countBefore(entry), rank)
          assert.deepEqual(tree.slice(rank, rank + 3), sorted.slice(rank, rank + 3))
        }
        for (const score of [-2, -1, 0, 0.2, 0.5, 7, 8, Number.POSITIVE_INFINITY]) {
          assert.equal(tree.countBefore({ score, member: '' }), sorted.filter(it => it.score < score).length)
          assert.equal(
            tree.countBefore({ score, member: null }),
            sorted.filter(it => it.score <= score).length,
          )
        }
        for (const entry of sorted) fixture.change(tree => tree.remove(entry))
        assert.deepEqual([fixture.header.root, fixture.nodes().length], [0, 0])
      }),
      { numRuns: 150 },
    )
  })

  it('stays sound while runs of its entries go and single ones come back in their place', () => {
    const random = new Prng(11)
    const count = 6_000
    const entry = (i: number): Entry => ({ score: i, member: `${i}`.padEnd(20, '.') })
    for (let round = 0; round < 4; round++) {
      const fixture = new Fixture()
      const there = new Set<number>()
      const set = (tree: CountedTree, i: number, isWanted: boolean) => {
        if (there.has(i) === isWanted) return
        if (isWanted) tree.insert(entry(i))
        else tree.remove(entry(i))
        if (isWanted) there.add(i)
        else there.delete(i)
      }
      fixture.change(tree => {
        for (let i = 0; i < count; i++) set(tree, i, true)
      })
      while (there.size > 100) {
        fixture.change(tree => {
          const from = random.below(count)
          const to = Math.min(count, from + 20 + random.below(200))
          for (let i = from; i < to; i++) set(tree, i, false)
          set(tree, from, true)
          set(tree, random.below(count), true)
        })
        fixture.check()
      }
      const sorted = [...there].sort((a, b) => a - b).map(entry)
      assert.deepEqual(fixture.open().slice(0, count), sorted)
      for (const [rank, entry] of sorted.entries()) assert.equal(fixture.open().countBefore(entry), rank)
      fixture.change(tree => {
        for (const i of [...there]) set(tree, i, false)
      })
      assert.deepEqual(fixture.nodes(), [])
    }
  })

  it('of 20,000 members has three levels, however they came, and stays so when most go', () => {
    const random = new Prng(5)
    const shuffled = Array.from({ length: 20_000 }, (_, i) => ({ at: random.next(), i }))
      .sort((a, b) => a.at - b.at)
      .map(({ i }) => i)
    const orders = [shuffled, [...shuffled].sort((a, b) => a - b), [...shuffled].sort((a, b) => b - a)]
    for (const numbers of orders) {
      const fixture = new Fixture()
      const entry = (i: number): Entry => ({ score: i, member: `member:${i}` })
      fixture.change(tree => {
        for (const i of numbers) tree.insert(entry(i))
      })
      assert.equal(fixture.check().depth, 3)
      fixture.change(tree => {
        for (const i of shuffled.slice(0, 19_000)) tree.remove(entry(i))
      })
      const { depth, nodes } = fixture.check()
      assert.ok(depth <= 3 && nodes < 200, `${depth} levels, ${nodes} nodes for 1,000 members`)
    }
  })

  it('leaves full nodes behind whoever appends in order', () => {
    const fixture = new Fixture()
    fixture.change(tree => {
      for (let i = 0; i < 5_000; i++) tree.insert({ score: i, member: `${i}`.padStart(10, '0') })
    })
    const bytes = fixture.nodes().reduce((sum, [, { byteLength }]) => sum + byteLength, 0)
    assert.ok(bytes / fixture.nodes().length > 1_700, `${bytes} in ${fixture.nodes().length} nodes`)
  })

  it('reads and writes one way down for an entry', () => {
    const fixture = new Fixture()
    fixture.change(tree => {
      for (let i = 0; i < 20_000; i++) tree.insert({ score: i, member: `${i}` })
    })
    let [reads, writes] = [0, 0]
    const { rows } = fixture
    const counting = {
      records: new MemoryRecords(),
      get: (key: string) => {
        reads++
        return rows.get(key)
      },
      put: (key: string, value: Uint8Array) => {
        writes++
        rows.put(key, value)
      },
      delete: (key: string) => rows.delete(key),
      range: (): never => {
        throw new Error('a tree needs no ordered look-ups')
      },
    }
    const tree = new CountedTree(counting, fixture.header)
    assert.equal(tree.countBefore({ score: 12_345, member: '12345' }), 12_345)
    assert.equal(reads, 3)
    tree.insert({ score: 12_345.5, member: 'x' })
    tree.flush()
    assert.ok(reads === 3 && writes <= 4, `${reads} reads, ${writes} writes`)
  })

  it('changes no row before it writes, and none in place, whatever kind of bytes a store gives', () => {
    const fixture = new Fixture()
    const store = new Map<string, Buffer>()
    const rows = {
      records: new MemoryRecords(),
      get: (key: string) => store.get(key),
      put: (key: string, value: Uint8Array) => void store.set(key, Buffer.from(value)),
      delete: (key: string) => void store.delete(key),
      range: () => [],
    }
    const filled = new CountedTree(rows, fixture.header)
    for (let i = 0; i < 5_000; i++) filled.insert({ score: i, member: `${i}` })
    filled.flush()
    const held = new Map(store)
    const before = new Map([...store].map(([key, value]) => [key, value.toString('hex')]))
    const tree = new CountedTree(rows, fixture.header)
    tree.insert({ score: 2_500.5, member: 'x' })
    tree.remove({ score: 17, member: '17' })
    assert.equal(tree.countBefore({ score: 4_000, member: '' }), 4_000)
    for (const [key, value] of store) assert.equal(value.toString('hex'), before.get(key))
    tree.flush()
    for (const [key, value] of held) assert.equal(value.toString('hex'), before.get(key))
    assert.notDeepEqual(store, held)
  })

  it('stands on disk as drawn', () => {
    const fixture = new Fixture()
    fixture.change(tree => tree.insert({ score: 1.5, member: 'ab' }))
    const [[number, bytes]] = fixture.nodes() as [[string, Uint8Array]]
    assert.equal(number, numberKey(1))
    assert.equal(Buffer.from(bytes).toString('hex'), '00' + '0001' + '3ff8000000000000' + '0002' + '6162')
    const wide = 'm'.repeat(500)
    fixture.change(tree => {
      for (let i = 0; i < 4; i++) tree.insert({ score: 2 + i, member: wide + i })
      tree.insert({ score: 9, member: 'z' })
    })
    const root = new Map(fixture.nodes()).get(numberKey(fixture.header.root))!
    const hex = Buffer.from(root).toString('hex')
    assert.ok(
      hex.startsWith('01' + '0002' + '0000000000000001' + '0000000000000004' + '3ff8000000000000'),
      hex,
    )
  })
})
