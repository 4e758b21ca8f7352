/**
 * Where calls are written down. A line is with the system before the call that it tells of is sent: a client that is
 * killed leaves a history that is true up to there.
 */
import { closeSync, openSync, writeSync } from 'node:fs'

export class HistoryFile {
  readonly path: string
  private readonly file: number
  private isClosed = false

  /** Throws where there can't be such a file; what it held is lost. */
  constructor(path: string) {
    this.path = path
    this.file = openSync(path, 'w')
  }

  write(line: string): void {
    const bytes = Buffer.from(line)
    for (let from = 0; from < bytes.length; ) from += writeSync(this.file, bytes, from)
  }

  close(): void {
    if (!this.isClosed) closeSync(this.file)
    this.isClosed = true
  }
}
