/**
 * What was typed at the prompt, kept for the next time: one line a line, the newest last, readable by its owner only.
 * Values are typed there too, so it can be switched off, and a line that begins with a space is not kept.
 */
import { appendFileSync, chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'

export const historyLinesMax = 1_000
const ownerOnly = 0o600

/** ROUNDHOUSE_HISTORY, else below XDG_STATE_HOME, else in the home directory; null: none is kept. */
export function historyPath(
  env: Readonly<Record<string, string | undefined>>,
  home = homedir(),
): string | null {
  if (env.ROUNDHOUSE_HISTORY !== undefined)
    return env.ROUNDHOUSE_HISTORY === '' ? null : env.ROUNDHOUSE_HISTORY
  const { XDG_STATE_HOME: state = '' } = env
  return state === '' ? join(home, '.roundhouse_history') : join(state, 'roundhouse', 'history')
}

export class HistoryFile {
  private readonly path: string
  private last = ''

  constructor(path: string) {
    this.path = path
  }

  /** The newest first, as readline wants them. Throws what the system says, except that there is no file yet. */
  load(): string[] {
    let text = ''
    try {
      text = readFileSync(this.path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    const all = text.split('\n').filter(line => line !== '')
    const kept = all.slice(-historyLinesMax)
    if (all.length > 2 * historyLinesMax) {
      const draft = `${this.path}.new`
      writeFileSync(draft, `${kept.join('\n')}\n`, { mode: ownerOnly })
      renameSync(draft, this.path)
    } else if (text !== '') chmodSync(this.path, ownerOnly)
    this.last = kept.at(-1) ?? ''
    return kept.reverse()
  }

  /** Appended at once: prompts side by side keep each other's lines. */
  add(line: string): void {
    if (line.trim() === '' || line.startsWith(' ') || line === this.last) return
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 })
    appendFileSync(this.path, `${line}\n`, { mode: ownerOnly })
    this.last = line
  }
}
