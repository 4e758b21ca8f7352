/** Numbers and durations of the bench's command line, and all that is wrong with them. */
import { parseDuration } from '../config/forms.ts'

const durationMsMax = 3_600_000

export class BenchFlags {
  readonly mistakes: string[] = []

  integer(name: string, text: string, min: number, max: number, parse = integerIn): number {
    const value = parse(text)
    if (value !== undefined && value >= min && value <= max) return value
    this.mistakes.push(`--${name}: ${JSON.stringify(text)} is not a number from ${min} to ${max}`)
    return min
  }

  /** ms. */
  duration(name: string, text: string, min: number): number {
    const value = parseDuration(text)
    if (value !== undefined && value >= min && value <= durationMsMax) return value
    this.mistakes.push(`--${name}: ${JSON.stringify(text)} is not a duration up to 1h, such as 10s`)
    return min
  }
}

function integerIn(text: string): number | undefined {
  return /^[0-9]{1,9}$/.test(text) ? Number(text) : undefined
}
