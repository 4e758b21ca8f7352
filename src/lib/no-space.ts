import { constants } from 'node:os'

/** What systems call a write that found no room: the disk, a quota, the largest file that is allowed. */
const codes = ['ENOSPC', 'EDQUOT', 'EFBIG']
const numbers = codes.map(code => constants.errno[code as 'ENOSPC'])

/**
 * Whether a call failed for want of room, so that the same call may succeed later. A sync never counts: what it should
 * have made durable was accepted before, and may be lost.
 */
export function isNoSpace(error: unknown): boolean {
  const { code, syscall } = error as { code?: unknown; syscall?: unknown }
  const isMeant = typeof code === 'number' ? numbers.includes(code) : codes.includes(String(code))
  return isMeant && syscall !== 'fdatasync' && syscall !== 'fsync'
}
