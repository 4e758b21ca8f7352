/** A quick part of `npm run fuzz`: the same seed each time, so that what fails here fails again. */
import assert from 'node:assert/strict'
import { after, describe, it } from 'node:test'
import { Prng } from '../../src/lib/prng.ts'
import { families } from './families.ts'
import { decodes, runFamily } from './family.ts'
import { Mutator } from './mutate.ts'
import { Heartbeat } from './watchdog.ts'

const seed = 20_260_720
/** For a decoder of microseconds; a whole recovery gets its share of them. */
const inputs = 4_000

describe('bad input', () => {
  const heartbeat = new Heartbeat()
  after(() => heartbeat.stop())

  for (const family of families) {
    const known = family.awaits === undefined ? {} : { skip: family.awaits }
    it(`of the kind ${family.name} is read or refused: ${family.refuses}`, known, async t => {
      const figures = await runFamily(family, { seed, inputs, heartbeat })
      assert.deepEqual(figures.findings, [])
      // Inputs that all stop at the first check would show nothing.
      assert.ok(figures.taken > 0 && figures.refused > 0, JSON.stringify(figures))
      t.diagnostic(`${figures.inputs} inputs, ${figures.refused} refused, ${figures.seconds.toFixed(1)} s`)
    })
  }
})

/** A few ms of what a program computes: who only asks for the time is most of it in the system, not in himself. */
function computeMore(): void {
  for (let i = 0, hash = 0; i < 3_000_000; i++) hash = Math.imul(hash ^ i, 0x01000193)
}

describe('the harness', () => {
  const family = (run: (random: Prng) => 'taken' | 'refused') => ({
    name: 'none',
    refuses: '',
    share: 1,
    open: async () => ({ run }),
  })
  const of = (run: (random: Prng) => 'taken' | 'refused') => runFamily(family(run), { seed, inputs: 2_000 })

  it('finds an exception that is none of those that are documented, and tries it again by its number', async () => {
    const run = (random: Prng) =>
      decodes(['CORRUPT'], () => {
        if (random.below(500) === 0) throw new TypeError('not documented')
      })
    const { findings } = await of(run)
    assert.ok(findings.length > 0)
    const only = Number(/--only (\d+): TypeError/.exec(findings[0]!)![1])
    const again = await runFamily(family(run), { seed, inputs: 1, only })
    assert.equal(again.findings.length, 1)
  })

  it('finds an input that takes too long', async () => {
    let left = 3
    const { findings } = await of(random => {
      if (random.below(1_900) === 0 && left-- > 0)
        for (const from = process.cpuUsage(); process.cpuUsage(from).user < 350_000; ) computeMore()
      return 'taken'
    })
    assert.deepEqual([left <= 0, findings.length], [true, 1])
  })

  it('finds memory that is taken for one input, and memory that is kept', async () => {
    const kept: Uint8Array[] = []
    const { findings } = await of(random => {
      kept.push(new Uint8Array(32 * 1024))
      if (random.below(1_900) === 0) new Uint8Array(400 * 1024 * 1024).fill(1)
      return 'taken'
    })
    assert.equal(findings.filter(each => /the process grew/.test(each)).length, 1)
    assert.equal(findings.filter(each => /are held/.test(each)).length, 1)
  })

  it('damages every byte of what it is given, sooner or later, and says the same again for the same seed', () => {
    const whole = new Uint8Array(40).map((_, i) => i + 100)
    const mutator = new Mutator([whole])
    const draw = () => {
      const random = new Prng(seed)
      return Array.from({ length: 2_000 }, () => mutator.next(random))
    }
    const all = draw()
    assert.deepEqual(draw(), all)
    for (let at = 0; at < whole.length; at++)
      assert.ok(all.some(each => each.byteLength === whole.length && each[at] !== whole[at]))
    assert.ok(all.some(each => each.byteLength < 20) && all.some(each => each.byteLength > 60))
  })
})
