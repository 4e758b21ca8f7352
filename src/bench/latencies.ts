/** Latencies in an HDR histogram: three digits from a microsecond to two minutes, whatever their number. */
import { build, type Histogram } from 'hdr-histogram-js'
import type { Latency } from './ports.ts'

const usMax = 120_000_000

export class Latencies {
  private readonly histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: usMax,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 32,
  })

  get count(): number {
    return this.histogram.totalCount
  }

  add(ms: number): void {
    this.histogram.recordValue(Math.min(usMax, Math.max(1, Math.round(ms * 1_000))))
  }

  /** Milliseconds; zeros when nothing was recorded. */
  summary(): Latency {
    if (this.count === 0) return { mean: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0 }
    const at = (percentile: number) => this.histogram.getValueAtPercentile(percentile) / 1_000
    const { mean, maxValue } = this.histogram
    return {
      mean: Math.round(mean) / 1_000,
      p50: at(50),
      p90: at(90),
      p99: at(99),
      p999: at(99.9),
      max: maxValue / 1_000,
    }
  }
}
