import { isError, RoundhouseError } from '../errors.ts'
import { decodePartition, type Partition, partitionIdOf, partitionLog } from '../keyspace/partitions.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Disk } from '../log/ports.ts'
import { baseOffsetOf, segmentName, storeSuffix } from '../log/segment-home.ts'
import { Store, storeHeaderBytes } from '../log/store.ts'

/**
 * Reads every record that a checkpoint's row of a partition names, whole, beside whoever appends to the same files; writes
 * nothing. Answers the bytes that were read. Throws CORRUPT where a record is not what was written, or is missing.
 * `current` is the row as it is now: what was trimmed or dropped while it was read is nobody's trouble.
 */
export function scrubRecords(
  disk: Disk,
  generationDirectory: string,
  row: string,
  value: Bytes,
  current: () => Bytes | undefined,
): number {
  const partition = decodePartition(value)
  const directory = `${generationDirectory}/${partitionLog(partitionIdOf(row), partition.birth)}`
  const { start, end } = partition
  if (start === end) return 0
  const bases = disk
    .list(directory)
    .map(baseOffsetOf)
    .filter(base => base !== null)
  let bytes = 0
  let next = start
  for (const [i, base] of bases.entries()) {
    const limit = Math.min(bases[i + 1] ?? end, end)
    if (limit <= start || base >= end) continue
    const path = `${directory}/${segmentName(base)}${storeSuffix}`
    const found =
      base > next ? { offset: next, bytes: 0, what: 'the file before it is missing' } : read(disk, path, base)
    bytes += found.bytes
    next = Math.max(next, found.offset)
    if (next < limit) return gone(partition, next, current, path, found.what)
  }
  return next < end ? gone(partition, next, current, directory, 'there is no file with it') : bytes
}

function read(disk: Disk, path: string, base: number): { offset: number; bytes: number; what: string } {
  try {
    const store = Store.open(disk, path)
    try {
      const { offset, position } = store.scan({ offset: base, position: storeHeaderBytes })
      return { offset, bytes: position, what: 'a wrong length or checksum' }
    } finally {
      store.close()
    }
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    if (!isMissing && !isError(error, 'CORRUPT')) throw error
    return { offset: base, bytes: 0, what: (error as Error).message }
  }
}

function gone(
  { birth }: Partition,
  offset: number,
  current: () => Bytes | undefined,
  path: string,
  what: string,
): number {
  const bytes = current()
  const now = bytes === undefined ? null : decodePartition(bytes)
  if (now === null || now.birth !== birth || now.start > offset) return 0
  throw new RoundhouseError('CORRUPT', { where: path, what: `record ${offset} of ${path}: ${what}` })
}
