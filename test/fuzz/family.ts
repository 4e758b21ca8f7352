/**
 * One decoder and how it is tried: a great many bad inputs, and after each of them a value or the error that its
 * documentation promises. Anything else is a finding: another exception, more time than an input may take, memory that
 * was taken for a length that nobody checked, or memory that does not come back.
 */
import { performance } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type ErrorCode, isError } from '../../src/errors.ts'
import { Prng } from '../../src/lib/prng.ts'
import type { Heartbeat } from './watchdog.ts'

export type Outcome = 'taken' | 'refused'

export interface Family {
  readonly name: string
  /** What it may throw, in words, for the table. */
  readonly refuses: string
  /** Of the inputs that are asked for, this part: 1 for a decoder of microseconds, less for a whole recovery. */
  readonly share: number
  /** An input meets what the ones before it left: it can't be tried alone. */
  readonly isStateful?: boolean
  /** A fault that is known and not mended yet: findings are expected, and the family is run where it is named. */
  readonly awaits?: string
  /** The trial of one input, drawn from `random`. It throws what is neither a value nor a documented error. */
  open(random: Prng): Promise<Trial>
}

export interface Trial {
  /** Tries one input. */
  run(random: Prng): Outcome | Promise<Outcome>
  /** Lets go of what it holds, and throws where the inputs together broke something. */
  close?(): void | Promise<void>
}

export const limits = {
  /**
   * One input, by the best of three tries, the later ones by the processor's time: a busy machine and the collector are not
   * the decoder's fault. What waits and computes nothing is the watchdog's to find.
   */
  inputMsMax: 250,
  /** Growth of the process's largest size within a family. */
  peakBytesMax: 256 * 1024 * 1024,
  /** Growth of what is held after a family, its trial still open. */
  heldBytesMax: 24 * 1024 * 1024,
  /** Findings of one family that are told. */
  findingsMax: 5,
} as const

export interface Figures {
  readonly family: string
  readonly inputs: number
  readonly taken: number
  readonly refused: number
  readonly seconds: number
  readonly slowestMs: number
  readonly peakBytes: number
  readonly heldBytes: number
  /** Each names seed, family and number: `--seed S --family F --only N` tries it again. */
  readonly findings: readonly string[]
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function heldBytes(): number {
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

const peakBytes = () => process.resourceUsage().maxRSS * 1024

/** The generator of one input: its own, so that it can be tried alone. */
function randomOf(seed: number, family: string, number: number): Prng {
  let hash = seed >>> 0
  for (let i = 0; i < family.length; i++) hash = Math.imul(hash ^ family.charCodeAt(i), 0x01000193) >>> 0
  return new Prng((hash ^ Math.imul(number + 1, 0x9e3779b1)) >>> 0)
}

export interface RunOptions {
  readonly seed: number
  readonly inputs: number
  /** Only this one. */
  readonly only?: number
  readonly heartbeat?: Heartbeat
}

export async function runFamily(family: Family, options: RunOptions): Promise<Figures> {
  const { seed, heartbeat, only } = options
  const count = Math.max(1, Math.ceil(options.inputs * family.share))
  const from = only ?? 0
  const to = only === undefined ? count : only + 1
  const findings: string[] = []
  const counts = { taken: 0, refused: 0 }
  let slowestMs = 0
  heartbeat?.beat(family.name, 0)
  const trial = await family.open(new Prng(seed))
  const attempt = async (number: number): Promise<number> => {
    heartbeat?.beat(family.name, number)
    const startedMs = performance.now()
    const outcome = trial.run(randomOf(seed, family.name, number))
    counts[outcome instanceof Promise ? await outcome : outcome]++
    return performance.now() - startedMs
  }
  const note = (number: number, what: string) => {
    if (findings.length < limits.findingsMax)
      findings.push(
        family.isStateful === true
          ? `--seed ${seed} --family ${family.name}, the ${number + 1}. input: ${what}`
          : `--seed ${seed} --family ${family.name} --only ${number}: ${what}`,
      )
  }
  // What is compiled, cached and grown at the first inputs is not theirs.
  const warmUp = Math.min(to, from + 200)
  let heldFrom = 0
  let peakFrom = 0
  const startedMs = performance.now()
  for (let number = from; number < to; number++) {
    if (number === warmUp || number === from) {
      heldFrom = heldBytes()
      peakFrom = peakBytes()
    }
    try {
      let ms = await attempt(number)
      for (let tries = 1; ms > limits.inputMsMax && tries < 3; tries++) {
        const before = { ...counts }
        const from = process.cpuUsage()
        const wallMs = await attempt(number)
        const { user, system } = process.cpuUsage(from)
        ms = Math.min(ms, wallMs, (user + system) / 1000)
        Object.assign(counts, before)
      }
      if (ms > limits.inputMsMax)
        note(number, `took ${ms.toFixed(0)} ms, at most ${limits.inputMsMax} are due`)
      slowestMs = Math.max(slowestMs, ms)
    } catch (error) {
      note(number, error instanceof Error ? (error.stack ?? error.message) : String(error))
    }
  }
  const seconds = (performance.now() - startedMs) / 1000
  const peak = peakBytes() - peakFrom
  const held = heldBytes() - heldFrom
  if (peak > limits.peakBytesMax) note(from, `the process grew by ${peak} bytes`)
  if (held > limits.heldBytesMax) note(from, `${held} bytes are held after the last input`)
  try {
    await trial.close?.()
  } catch (error) {
    note(from, error instanceof Error ? (error.stack ?? error.message) : String(error))
  }
  return {
    family: family.name,
    inputs: to - from,
    ...counts,
    seconds,
    slowestMs,
    peakBytes: peak,
    heldBytes: held,
    findings,
  }
}

/** Runs a decoder that answers a value or throws one of `codes`. */
export function decodes(codes: readonly ErrorCode[], decode: () => unknown): Outcome {
  try {
    decode()
    return 'taken'
  } catch (error) {
    if (isError(error) && codes.includes(error.code)) return 'refused'
    throw error
  }
}

/** `decodes` for what answers later. */
export async function settles(codes: readonly ErrorCode[], work: Promise<unknown>): Promise<Outcome> {
  try {
    await work
    return 'taken'
  } catch (error) {
    if (isError(error) && codes.includes(error.code)) return 'refused'
    throw error
  }
}
