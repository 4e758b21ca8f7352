import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Fifo } from '../../src/lib/fifo.ts'
import { Prng } from '../../src/lib/prng.ts'

describe('a queue', () => {
  it('that is empty has no first', () => {
    const fifo = new Fifo<number>()
    assert.deepEqual([fifo.length, fifo.first, fifo.shift(), [...fifo]], [0, undefined, undefined, []])
    fifo.push(1)
    assert.equal(fifo.shift(), 1)
    assert.deepEqual([fifo.length, fifo.first, fifo.shift(), [...fifo]], [0, undefined, undefined, []])
  })

  it('gives back what it was given, in the same order, whatever comes between', () => {
    const random = new Prng(7)
    const fifo = new Fifo<number>()
    let items: number[] = []
    for (let i = 1; i <= 20_000; i++) {
      // It grows for a while, then it shrinks.
      const kind = random.below(100)
      if (kind < (Math.floor(i / 500) % 2 === 0 ? 60 : 30)) {
        fifo.push(i)
        items.push(i)
      } else if (kind < 95) assert.equal(fifo.shift(), items.shift())
      else if (kind < 99 && items.length > 0) {
        fifo.replace(-i)
        items[0] = -i
      } else if (random.below(20) === 0) {
        fifo.clear()
        items = []
      }
      assert.deepEqual([fifo.length, fifo.first], [items.length, items[0]])
      if (i % 100 === 0) assert.deepEqual([...fifo], items)
    }
  })

  it('of a hundred thousand is emptied step by step in no time', () => {
    const fifo = new Fifo<number>()
    for (let i = 0; i < 100_000; i++) fifo.push(i)
    const from = process.cpuUsage()
    for (let i = 0; i < 100_000; i++) assert.equal(fifo.shift(), i)
    // Moving the rest at each step would be five thousand million moves.
    assert.ok(process.cpuUsage(from).user < 1_000_000)
  })
})
