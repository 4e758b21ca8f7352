/** `npm run sim -- --seed 7` or `--seeds 100 [--from 1]`: runs seeds, prints what each showed, exits 1 when one failed. */
import { parseArgs } from 'node:util'
import type { Logger } from '../../src/lib/logger.ts'
import { runSeed } from './campaign.ts'
import type { SimCluster } from './sim-cluster.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string', default: '20' },
    from: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
  },
})

const logs =
  (cluster: SimCluster) =>
  (node: string): Logger => {
    const write = (level: string) => (message: string, fields?: object) => {
      const facts = { ...fields } as { error?: unknown }
      if (facts.error instanceof Error) facts.error = facts.error.stack
      process.stdout.write(
        `${cluster.world.nowMs.toFixed(1)} ${node} ${level} ${message} ${JSON.stringify(facts)}\n`,
      )
    }
    const logger: Logger = {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      child: () => logger,
    }
    return logger
  }

const first = Number(values.seed ?? values.from)
const count = values.seed === undefined ? Number(values.seeds) : 1
const started = Date.now()
let failed = 0
for (let seed = first; seed < first + count; seed++) {
  const result = await runSeed({ seed, ...(values.verbose ? { logs } : {}) })
  const { hash, events, simulatedMs, faults, workload, violations } = result
  console.log(
    `seed ${seed} hash ${hash} events ${events} simulated ${simulatedMs} ms ${JSON.stringify({ faults, workload })}`,
  )
  for (const violation of violations) console.log(`  VIOLATION ${violation}`)
  if (violations.length > 0) failed++
}
console.log(`${((count * 1000) / (Date.now() - started)).toFixed(1)} seeds/s`)
console.log(`${count - failed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
