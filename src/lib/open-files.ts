/**
 * How many files and sockets this process may have open at one time; null where the system does not say, or sets no limit.
 * Node.js raises the soft limit to the hard one when it starts, so what `ulimit -n` says in a shell may be less.
 */
import { readFileSync } from 'node:fs'

export function openFilesMax(): number | null {
  try {
    return parseLimits(readFileSync('/proc/self/limits', 'utf8'))
  } catch {
    // Not Linux. A report of the process takes a while, and its limits are the same.
    const { userLimits } = process.report.getReport() as { userLimits?: { open_files?: { soft?: unknown } } }
    const soft = userLimits?.open_files?.soft
    return typeof soft === 'number' ? soft : null
  }
}

/** The soft limit in the text of /proc/self/limits. */
export function parseLimits(text: string): number | null {
  const soft = /^Max open files\s+(\d+)/m.exec(text)?.[1]
  return soft === undefined ? null : Number(soft)
}
