/**
 * Calls made by h2load (nghttp2): one connection, one thread, one and the same request again and again. It knows HTTP/2
 * and not gRPC: a call that was refused is a success to it, so whoever uses it asks the server how many it served.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { grpcFrame } from '../../lib/grpc-frame.ts'
import { cpuOf, OwnProcess } from '../own-process.ts'

export interface H2loadCommand {
  readonly binary: string
  /** host:port, plain HTTP/2. */
  readonly address: string
  /** /package.Service/Method */
  readonly path: string
  readonly message: Uint8Array
  readonly inFlight: number
  readonly warmUpMs: number
  readonly durationMs: number
  /** For its file of the request. */
  readonly directory: string
}

export interface H2loadFigures {
  readonly requestsPerSecond: number
  /** Answered with 2xx in the window. */
  readonly succeeded: number
  readonly failed: number
  readonly meanMs: number
}

const cpuEveryMs = 100

export function h2loadArguments(command: H2loadCommand, bodyPath: string): string[] {
  const { address, path, inFlight, warmUpMs, durationMs } = command
  return [
    ...[
      '-D',
      `${durationMs}ms`,
      '--warm-up-time',
      `${warmUpMs}ms`,
      '-c',
      '1',
      '-t',
      '1',
      '-m',
      String(inFlight),
    ],
    ...['-d', bodyPath, '-H', 'content-type: application/grpc', '-H', 'te: trailers'],
    `http://${address}${path}`,
  ]
}

export async function h2load(
  command: H2loadCommand,
  signal: AbortSignal,
): Promise<H2loadFigures & { readonly cpuS: number | null }> {
  const body = join(command.directory, 'body')
  writeFileSync(body, grpcFrame(command.message))
  const load = new OwnProcess({
    ...{ name: 'h2load', directory: command.directory, isSupervised: false },
    command: [command.binary, ...h2loadArguments(command, body)],
    env: { PATH: process.env.PATH ?? '' },
  })
  let cpuS: number | null = null
  // What it took is known only while it runs.
  const timer = setInterval(() => {
    if (load.isRunning) cpuS = cpuOf(load.pid) ?? cpuS
  }, cpuEveryMs)
  const stop = () => void load.kill()
  signal.addEventListener('abort', stop, { once: true })
  try {
    await load.ended
  } finally {
    clearInterval(timer)
    signal.removeEventListener('abort', stop)
  }
  signal.throwIfAborted()
  const figures = figuresIn(load.output)
  if (figures === null) throw new Error(`h2load: not understood:\n${load.lastLines()}`)
  return { ...figures, cpuS }
}

/** Of what it prints at its end; null: that is not there. */
export function figuresIn(output: string): H2loadFigures | null {
  const rate = /^finished in .*?, ([\d.]+) req\/s/m.exec(output)
  const requests = /(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/.exec(output)
  const time = /^time for request: +\S+ +\S+ +([\d.]+)(us|ms|s) /m.exec(output)
  if (rate === null || requests === null) return null
  return {
    requestsPerSecond: Number(rate[1]),
    succeeded: Number(requests[1]),
    // Those that were still under way at the end are no failures, and count in none of these.
    failed: Number(requests[3]) + Number(requests[4]),
    meanMs: time === null ? 0 : Number(time[1]) * { us: 1e-3, ms: 1, s: 1e3 }[time[2] as 'us' | 'ms' | 's'],
  }
}
