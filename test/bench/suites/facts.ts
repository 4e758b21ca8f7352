/** On what machine, of what sources, when. */
import { execFileSync } from 'node:child_process'
import { cpus, loadavg, release, totalmem, type } from 'node:os'

export interface Facts {
  /** 21 November 2026 */
  readonly date: string
  readonly cpu: string
  readonly cores: number
  readonly memoryGib: number
  readonly kernel: string
  readonly node: string
  readonly commit: string
  /** The sources are those of the commit. */
  readonly isClean: boolean
  /** Of the last minute, at the start. */
  readonly load: number
  readonly command: string
}

export function factsNow(root: string, args: readonly string[]): Facts {
  const processors = cpus()
  const git = (...command: string[]) => {
    try {
      return execFileSync('git', command, {
        cwd: root,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      }).trim()
    } catch {
      return null
    }
  }
  const now = new Date()
  const month = now.toLocaleString('en', { month: 'long' })
  return {
    date: `${now.getDate()} ${month} ${now.getFullYear()}`,
    cpu: processors[0]?.model.trim() ?? 'an unknown processor',
    cores: processors.length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: `${type()} ${release()}`,
    node: process.versions.node,
    commit: git('rev-parse', '--short', 'HEAD') ?? 'unknown',
    isClean: git('status', '--porcelain', '--', 'src', 'package-lock.json') === '',
    load: loadavg()[0]!,
    command: ['npm run bench --', ...args].join(' '),
  }
}
