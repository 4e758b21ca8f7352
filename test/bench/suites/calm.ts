/** Waits until nodes have done what much writing leaves behind (checkpoints), so that it is not in what is measured next. */
import type { OwnCluster } from '../../../src/bench/own-cluster.ts'
import { pause } from './pause.ts'
import type { Context } from './suite.ts'

const sampleMs = 500
/** % of a core; an idle node of 64 shards takes about 5. */
const busyPercent = 20
const quietSamples = 4
const samplesMax = 120

export async function calm({ say, signal }: Context, cluster: OwnCluster): Promise<void> {
  say('until the nodes are calm')
  const cpu = () => cluster.nodes.map(({ process }) => process.cpuS() ?? 0)
  let before = cpu()
  for (let sample = 0, quiet = 0; sample < samplesMax && quiet < quietSamples; sample++) {
    await pause(sampleMs, signal)
    const now = cpu()
    const most = Math.max(...now.map((each, place) => each - before[place]!))
    quiet = (most * 100_000) / sampleMs < busyPercent ? quiet + 1 : 0
    before = now
  }
}
