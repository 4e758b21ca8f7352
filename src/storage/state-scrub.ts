import { spawn } from 'node:child_process'
import { constants, setPriority } from 'node:os'
import { extname } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/**
 * Reads whole checkpoints, rows and records, and says which of them are broken. It runs in a child process (state-scrub-child.ts): LMDB
 * trusts its pages, and a broken one can crash who reads it. When the child dies, the replica it was at is broken and a
 * new child goes on behind it. May run beside a live store; it reads what is checkpointed at the time.
 *
 * A replica is read at once, in one read transaction, since rows and digest must be of one moment and a long transaction
 * would keep LMDB from using pages again. So the rate holds between replicas: after each the child sleeps.
 */
export interface ScrubOptions {
  readonly directory: string
  readonly replicas: readonly number[]
  readonly replicasMax?: number
  /** On the average; absent: as fast as it can. */
  readonly bytesPerSecond?: number
  /** Told of each replica as soon as it is read. */
  readonly onFinding?: (finding: ScrubFinding) => void
  /** Ends the scrub early; what was found so far is answered. */
  readonly signal?: AbortSignal
}

export interface ScrubFinding {
  readonly replica: number
  /** null = every row is what was written, and none is missing. */
  readonly trouble: string | null
}

/** What the child is told. */
export interface ScrubTask {
  /** The node's data directory. */
  readonly directory: string
  readonly replicas: readonly number[]
  readonly replicasMax: number
  readonly bytesPerSecond: number | null
}

/** What the child prints, a line of JSON each: `begin` before it reads a replica, a finding after. */
export type ScrubLine = { readonly begin: number } | ScrubFinding

export async function scrubState(options: ScrubOptions): Promise<ScrubFinding[]> {
  const findings: ScrubFinding[] = []
  let left = [...options.replicas]
  const aborted = () => options.signal?.aborted === true
  while (left.length > 0 && !aborted()) {
    const note = (finding: ScrubFinding) => {
      findings.push(finding)
      options.onFinding?.(finding)
    }
    const outcome = await runChild(options, left, note)
    const done = new Set(findings.map(finding => finding.replica))
    if (aborted()) break
    if (outcome !== null) {
      // A child that dies before it begins any replica (no memory, no executable) would die again and again.
      if (outcome.replica === null)
        throw new Error(`the scrub's process ${outcome.how} before it read anything`)
      note({ replica: outcome.replica, trouble: `the process that read it ${outcome.how}` })
      done.add(outcome.replica)
    }
    left = left.filter(replica => !done.has(replica))
  }
  return findings
}

/** Whoever serves goes before whoever checks. */
function yieldToOthers(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL)
  } catch {
    // It may have ended already, or the system has no such thing.
  }
}

/** null when it came to its end; else where and how it died. */
async function runChild(
  options: ScrubOptions,
  replicas: readonly number[],
  found: (finding: ScrubFinding) => void,
): Promise<{ replica: number | null; how: string } | null> {
  const extension = extname(import.meta.url)
  const entry = fileURLToPath(new URL(`./state-scrub-child${extension}`, import.meta.url))
  const loader = extension === '.ts' ? ['--import', import.meta.resolve('tsx')] : []
  const { replicasMax = 4096, bytesPerSecond = null } = options
  const { directory } = options
  const task: ScrubTask = { directory, replicas, replicasMax, bytesPerSecond }
  const child = spawn(process.execPath, [...loader, entry, JSON.stringify(task)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  yieldToOthers(child.pid)
  const ended = new Promise<string | null>(resolve => {
    child.once('error', error => resolve(`did not start (${error.message})`))
    child.once('close', (code, signal) => resolve(code === 0 ? null : `ended with ${signal ?? code}`))
  })
  const kill = () => void child.kill('SIGKILL')
  options.signal?.addEventListener('abort', kill, { once: true })
  let at: number | null = null
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as ScrubLine
    if ('begin' in line) at = line.begin
    else {
      at = null
      found(line)
    }
  }
  const how = await ended
  options.signal?.removeEventListener('abort', kill)
  return how === null ? null : { replica: at, how }
}
