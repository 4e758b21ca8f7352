import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Sessions, type Ticket } from '../../src/client/sessions.ts'

const minute = 60_000

describe('sessions of a client', () => {
  it('begin with the time and give out sequences from 1 up', () => {
    const sessions = new Sessions(() => 1_700_000_000_000)
    const [first, second] = [sessions.take()!, sessions.take()!]
    assert.equal(first.id.byteLength, 16)
    assert.equal(first.id.readUIntBE(0, 6), 1_700_000_000_000)
    assert.deepEqual([first.sequence, second.sequence], [1, 2])
    assert.deepEqual(first.id, second.id)
  })

  it('move the mark to the oldest sequence that is not settled', () => {
    const sessions = new Sessions()
    const [one, two, three] = [sessions.take()!, sessions.take()!, sessions.take()!]
    two.settle()
    assert.equal(three.ackedBelow(), 1)
    one.settle()
    assert.equal(three.ackedBelow(), 3)
    three.settle()
    assert.equal(three.ackedBelow(), 4)
    one.settle()
    assert.equal(three.ackedBelow(), 4)
  })

  it('are left when a write hangs and a thousand have followed it', () => {
    const sessions = new Sessions()
    const hanging = sessions.take()!
    const others = Array.from({ length: 1_000 }, () => sessions.take()!)
    assert.deepEqual(others[998]!.id, hanging.id)
    assert.notDeepEqual(others[999]!.id, hanging.id)
    assert.equal(others[999]!.sequence, 1)
    assert.equal(sessions.count, 2)
    hanging.settle()
    for (const other of others) other.settle()
    assert.equal(sessions.count, 1)
  })

  it('are renewed after 45 minutes, and when the clock was set back', () => {
    let now = 1_700_000_000_000
    const sessions = new Sessions(() => now)
    const first = sessions.take()!
    now += 44 * minute
    assert.deepEqual(sessions.take()!.id, first.id)
    now += 2 * minute
    const second = sessions.take()!
    assert.notDeepEqual(second.id, first.id)
    now -= 10 * minute
    assert.notDeepEqual(sessions.take()!.id, second.id)
  })

  it('have a limit, and room again when one is done', () => {
    const sessions = new Sessions(Date.now, 2)
    const hanging: Ticket[] = []
    for (;;) {
      const ticket = sessions.take()
      if (ticket === null) break
      hanging.push(ticket)
    }
    assert.equal(hanging.length, 2_000)
    hanging[0]!.settle()
    assert.equal(sessions.take(), null)
    for (const ticket of hanging.slice(1, 1_000)) ticket.settle()
    assert.notEqual(sessions.take(), null)
  })

  it('never have a mark above an unsettled sequence, nor one that lags behind', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 200 }), steps => {
        const sessions = new Sessions()
        const open: Ticket[] = []
        for (const step of steps) {
          if (step === 0 || open.length === 0) open.push(sessions.take()!)
          else open.splice(step % open.length, 1)[0]!.settle()
          for (const ticket of open) {
            const oldest = Math.min(
              ...open.filter(other => other.id.equals(ticket.id)).map(each => each.sequence),
            )
            assert.equal(ticket.ackedBelow(), oldest)
          }
        }
      }),
    )
  })
})
