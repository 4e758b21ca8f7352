/**
 * Where a child's output goes: a file that ends at a size, with one predecessor kept beside it, so that a forgotten
 * cluster fills no disk. Bytes in, lines out: complete lines go to a listener as well.
 */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs'

/** A node's log and its predecessor together take at most twice this. */
export const logFileBytesMax = 16 * 2 ** 20
/** A line longer than this is handed on in pieces. */
const lineBytesMax = 64 * 1024

export class LogFile {
  private readonly path: string
  private readonly bytesMax: number
  private descriptor: number
  private bytes: number

  constructor(path: string, bytesMax = logFileBytesMax) {
    this.path = path
    this.bytesMax = bytesMax
    this.descriptor = openSync(path, 'a')
    this.bytes = fstatSync(this.descriptor).size
  }

  write(data: Uint8Array): void {
    if (this.bytes > 0 && this.bytes + data.byteLength > this.bytesMax) {
      closeSync(this.descriptor)
      renameSync(this.path, `${this.path}.1`)
      this.descriptor = openSync(this.path, 'a')
      this.bytes = 0
    }
    writeSync(this.descriptor, data)
    this.bytes += data.byteLength
  }

  close(): void {
    closeSync(this.descriptor)
  }
}

/** Cuts chunks into lines. */
export class Lines {
  private rest = ''
  private readonly decoder = new TextDecoder()
  private readonly onLine: (line: string) => void

  constructor(onLine: (line: string) => void) {
    this.onLine = onLine
  }

  push(chunk: Uint8Array): void {
    const parts = (this.rest + this.decoder.decode(chunk, { stream: true })).split('\n')
    this.rest = parts.pop()!
    for (const line of parts) this.onLine(line)
    if (this.rest.length > lineBytesMax) this.end()
  }

  end(): void {
    if (this.rest !== '') this.onLine(this.rest)
    this.rest = ''
  }
}
