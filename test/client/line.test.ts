import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Line } from '../../src/client/line.ts'

interface Member {
  readonly name: number
  isWaiting: boolean
}

const member = (name: number): Member => ({ name, isWaiting: false })

describe('a line of ordered calls', () => {
  const [a, b, c] = [member(1), member(2), member(3)]

  it('goes together while all goes well, and one by one from the first that comes back', () => {
    const line = new Line<Member>(7)
    for (const each of [a, b]) {
      line.add(each)
      assert.equal(line.mayGo(each, false), true)
    }
    line.cameBack(a)
    line.add(c)
    assert.equal(line.mayGo(c, false), false)
    assert.deepEqual(line.next(), [], 'b is still under way')
    line.cameBack(b)
    assert.deepEqual(line.next(), [a])
    assert.equal(line.mayGo(b, false), false)
    assert.equal(line.mayGo(a, false), true)
    line.remove(a, true)
    assert.deepEqual(line.next(), [b])
    assert.equal(line.mayGo(b, false), true)
    line.trust()
    line.remove(b, true)
    assert.deepEqual(line.next(), [c])
    assert.equal(line.size, 1)
  })

  it('lets nobody follow one that goes alone', () => {
    const line = new Line<Member>(7)
    const [first, second] = [member(1), member(2)]
    line.add(first)
    line.add(second)
    assert.equal(line.mayGo(second, true), false)
    assert.equal(line.mayGo(first, true), true)
    assert.equal(line.mayGo(second, false), false)
  })

  it('never has two under way out of order after one came back', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(4), { maxLength: 300 }), steps => {
        const line = new Line<Member>(0)
        const away: Member[] = []
        const applied: number[] = []
        let names = 0
        const send = (each: Member) => {
          if (line.mayGo(each, false)) away.push(each)
        }
        const proceed = () => line.next().forEach(send)
        for (const step of steps) {
          if (step <= 1) {
            const each = member(++names)
            line.add(each)
            send(each)
          } else if (away.length > 0) {
            // A node answers in order. When it refuses one, it refuses those behind it.
            if (step === 2) {
              for (const each of away.splice(0)) {
                line.cameBack(each)
                proceed()
              }
            } else {
              const each = away.shift()!
              applied.push(each.name)
              line.trust()
              line.remove(each, true)
            }
            proceed()
          }
        }
        for (let turns = 0; turns < 2 * names + 2 && line.size > 0; turns++) {
          const each = away.shift()
          if (each !== undefined) {
            applied.push(each.name)
            line.trust()
            line.remove(each, true)
          }
          proceed()
        }
        assert.deepEqual(
          applied,
          Array.from({ length: names }, (_, place) => place + 1),
        )
      }),
    )
  })
})
