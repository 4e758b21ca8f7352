import type { Bytes } from '../lib/bytes.ts'

/**
 * The disk as the logs see it. The real one is `log/file-disk.ts`; a simulation has a twin that loses, tears or garbles
 * what was not synced, fails and stalls. Paths are relative to the disk's root, with '/' between parts.
 *
 * Synchronous calls are for opening, recovery and cold reads. What is done while people wait (`File.commit`, and what ends
 * in `Aside`) must not hold the main thread while the device works.
 */
export interface Disk {
  /** Opens for reading and writing. `create` makes the file if it is missing, else a missing one throws. */
  open(path: string, options?: { readonly create?: boolean }): File
  exists(path: string): boolean
  /** Names in a directory, sorted; a missing directory is empty. */
  list(directory: string): string[]
  /** Makes the directory and its parents. */
  makeDirectory(directory: string): void
  /** Atomic in the namespace; durable after `syncDirectory` of both parents. */
  rename(from: string, to: string): void
  unlink(path: string): void
  /** Removes a directory with all that is in it; a missing one is fine. */
  removeTree(directory: string): void
  /** Makes the names in a directory durable. */
  syncDirectory(directory: string): void
  /** The same, off the main thread. A failure is final, as for `File.sync`. */
  syncDirectoryAside(directory: string, done: (error: Error | null) => void): void
  /**
   * Removes a file, or a directory with all that is in it, off the main thread; a missing one is fine. Nobody may make the
   * same name again before `done`.
   */
  removeAside(path: string, done: (error: Error | null) => void): void
  /** Bytes that are free for this process on the file system. */
  freeBytes(): number
}

export interface File {
  readonly path: string
  size(): number
  /** Up to `length` bytes from `position`; fewer only at the end of the file. */
  read(position: number, length: number): Bytes
  /** Writes all of `bytes`; not durable before `sync`. */
  write(position: number, bytes: Bytes): void
  truncate(size: number): void
  /** fdatasync. A failure is final: the caller must stop, never try again. */
  sync(): void
  /**
   * Writes `chunks` one after another from `position`, then fdatasync, which is off the main thread. `done` gets null when all of it
   * is on the platter. At most one commit a file is under way. A failure is final, as for `sync`.
   */
  commit(position: number, chunks: readonly Bytes[], done: (error: Error | null) => void): void
  close(): void
}
