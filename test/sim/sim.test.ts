import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runSeed } from './campaign.ts'

/** A few seeds with each test run; `npm run sim -- --seeds 1000` for a campaign. */
const seeds = Array.from({ length: Number(process.env.SIM_SEEDS ?? 12) }, (_, i) => i + 1)

describe('a simulated cluster', () => {
  for (const seed of seeds) {
    it(`keeps its promises under the faults of seed ${seed}`, async () => {
      const { violations, workload } = await runSeed({ seed, chaosMs: 5_000 })
      assert.deepEqual(violations, [])
      assert.ok(workload.acknowledged > 0, 'no call was answered')
    })
  }

  it('runs the same way twice from one seed', async () => {
    const [first, second] = [
      await runSeed({ seed: 3, chaosMs: 3_000 }),
      await runSeed({ seed: 3, chaosMs: 3_000 }),
    ]
    assert.deepEqual(first, second)
  })
})
