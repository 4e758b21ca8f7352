/**
 * One process at a time in a directory: who holds it listens on the Unix socket `LOCK` there. The kernel closes the
 * socket with the process, kill -9 included, and finds it by its inode, so containers that share a volume see each
 * other where process ids and abstract names don't reach. One kernel only: over NFS another machine's lock looks dead.
 *
 * Finding `LOCK` dead and taking it over are two steps, and no call does both. So nobody may act on what one look at
 * `LOCK` told him; instead (the flag principle; Herlihy, Shavit, The Art of Multiprocessor Programming §2):
 *
 * 1. raise a flag: listen on `LOCK.<random>`;
 * 2. look: list the directory, connect to every other flag, then to `LOCK`;
 * 3. all dead → rename the flag to `LOCK`. A live `LOCK` → give up. A live flag → the greater name gives up, the
 *    smaller waits until it is gone and looks again.
 *
 * Of two processes, the one whose flag rose later looks after both stand, so it sees the other: they can't both pass.
 * A rename hides nobody: `LOCK` is looked at after the flags that become it. The smallest flag gives up for a holder
 * only, so somebody wins. A flag that is bound but does not listen yet looks dead and may be swept by a holder; its
 * owner then meets that holder or, if it has died since, finds nothing to rename, and gives up.
 */
import { once } from 'node:events'
import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  type Stats,
} from 'node:fs'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Random } from './prng.ts'
import { systemReason } from './system-reason.ts'

export const lockName = 'LOCK'
const flagPattern = /^LOCK\.[0-9a-f]{32}$/
/** sockaddr_un holds 108 bytes with the final zero on Linux, 104 elsewhere; a longer path would be cut silently. */
const addressBytesMax = process.platform === 'linux' ? 107 : 103
/** Starters that may wait for one of us at a time. */
const waitersMax = 256

export type LockResult =
  | { readonly kind: 'locked'; release(): void }
  /** `why` is for people, and speaks of the directory as "it". */
  | { readonly kind: 'refused'; readonly why: string }

/** Whether `name` belongs to a lock, held, wanted or left behind. */
export function isLockName(name: string): boolean {
  return name === lockName || flagPattern.test(name)
}

/**
 * Takes the lock of `directory`, which must exist, or says why not. The lock keeps no process alive. `waitMsMax` bounds
 * how long a starter waits for another one that neither gives up nor wins (a stopped process).
 */
export async function lockDirectory(
  directory: string,
  random: Random,
  { waitMsMax = 5_000 }: { readonly waitMsMax?: number } = {},
): Promise<LockResult> {
  const flag = `${lockName}.${Buffer.from(random.bytes(16)).toString('hex')}`
  let descriptor: number
  try {
    descriptor = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    return { kind: 'refused', why: `it can't be opened: ${systemReason(error)}` }
  }
  const prefix = addressPrefix(directory, descriptor, flag)
  if (prefix === null) {
    closeSync(descriptor)
    const most = addressBytesMax - Buffer.byteLength(flag) - 1
    return { kind: 'refused', why: `its path is too long for the socket of its lock: at most ${most} bytes` }
  }

  const waiters = new Set<Socket>()
  let isHeld = false
  const server = createServer(socket => {
    socket.on('error', () => {})
    if (isHeld) {
      socket.destroy()
      return
    }
    waiters.add(socket)
    socket.once('close', () => waiters.delete(socket))
  })
  server.maxConnections = waitersMax
  const dismissWaiters = () => {
    for (const socket of waiters) socket.destroy()
  }
  const end = () => {
    server.close(() => closeSync(descriptor))
    dismissWaiters()
  }

  try {
    await listen(server, join(prefix, flag))
  } catch (error) {
    closeSync(descriptor)
    return { kind: 'refused', why: `the socket of its lock can't be made: ${systemReason(error)}` }
  }
  const withdraw = () => {
    rmSync(join(directory, flag), { force: true })
    end()
  }
  try {
    const look = await lookUntilAlone(directory, prefix, flag, waitMsMax)
    if (look.kind === 'refused') {
      withdraw()
      return look
    }
    renameSync(join(directory, flag), join(directory, lockName))
    isHeld = true
    dismissWaiters()
    for (const name of look.dead) rmSync(join(directory, name), { force: true })
    const own = lstatSync(join(directory, lockName))
    return {
      kind: 'locked',
      release() {
        // The name goes before the socket: once that is closed, `LOCK` may be somebody else's.
        if (isSameFile(own, statOf(join(directory, lockName)))) rmSync(join(directory, lockName))
        end()
      },
    }
  } catch (error) {
    withdraw()
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return { kind: 'refused', why: 'another process took its lock meanwhile' }
    return { kind: 'refused', why: `its lock can't be taken: ${systemReason(error)}` }
  }
}

/** Looks at all others until one look finds every one dead, or one that we must yield to. */
async function lookUntilAlone(
  directory: string,
  prefix: string,
  own: string,
  waitMsMax: number,
): Promise<{ kind: 'alone'; dead: string[] } | { kind: 'refused'; why: string }> {
  const refused = (why: string) => ({ kind: 'refused', why }) as const
  const deadline = performance.now() + waitMsMax
  for (;;) {
    const dead: string[] = []
    let waited = false
    for (const name of [...flagsIn(directory).filter(name => name !== own), lockName]) {
      const path = join(directory, name)
      const found = statOf(path)
      if (found !== null && !found.isSocket()) {
        return refused(
          `${name} in it is no socket, so it is not this program's; move it away if it is not needed`,
        )
      }
      const probe = await connect(join(prefix, name))
      if (probe.kind === 'dead') {
        if (name !== lockName) dead.push(name)
        continue
      }
      if (probe.kind === 'unknown')
        return refused(`whether ${name} in it is held can't be told: ${probe.why}`)
      waited = true
      if (probe.kind === 'leaving') continue
      if (name === lockName || name < own) {
        if (probe.kind === 'alive') probe.socket.destroy()
        return refused(`another process ${name === lockName ? 'holds it' : 'is opening it'}`)
      }
      const isGone =
        probe.kind === 'alive' && (await isClosedWithin(probe.socket, deadline - performance.now()))
      if (!isGone) return refused('another process is opening it and does not go on')
    }
    if (!waited) return { kind: 'alone', dead }
    if (performance.now() > deadline) return refused('other processes open and leave it without end')
  }
}

/** Sockets are opened below this; through the descriptor where the path itself is too long for an address. */
function addressPrefix(directory: string, descriptor: number, longestName: string): string | null {
  if (Buffer.byteLength(join(directory, longestName)) <= addressBytesMax) return directory
  const through = `/proc/self/fd/${descriptor}`
  return process.platform === 'linux' && existsSync(through) ? through : null
}

async function listen(server: Server, path: string): Promise<void> {
  server.listen({ path, exclusive: true, backlog: waitersMax })
  await once(server, 'listening')
  // A failed accept (no descriptors left) changes nothing: the socket listens on.
  server.on('error', () => {})
  server.unref()
}

type Probe =
  | { readonly kind: 'alive'; readonly socket: Socket }
  /** It has more callers than the kernel keeps for it: a stopped process. */
  | { readonly kind: 'deaf' }
  /** It closed while we called: look again. */
  | { readonly kind: 'leaving' }
  | { readonly kind: 'dead' }
  | { readonly kind: 'unknown'; readonly why: string }

/** The kernel answers for the process that listens: a stopped or busy one is alive. */
function connect(path: string): Promise<Probe> {
  return new Promise(settle => {
    const socket = createConnection({ path })
    socket.once('connect', () => settle({ kind: 'alive', socket }))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const { code } = error
      if (code === 'ECONNREFUSED' || code === 'ENOENT') settle({ kind: 'dead' })
      else if (code === 'ECONNRESET') settle({ kind: 'leaving' })
      else if (code === 'EAGAIN') settle({ kind: 'deaf' })
      else settle({ kind: 'unknown', why: systemReason(error) })
    })
  })
}

function isClosedWithin(socket: Socket, ms: number): Promise<boolean> {
  return new Promise(settle => {
    socket.once('close', () => settle(true))
    socket.setTimeout(Math.max(1, ms), () => {
      settle(false)
      socket.destroy()
    })
    socket.resume()
  })
}

function flagsIn(directory: string): string[] {
  return readdirSync(directory)
    .filter(name => flagPattern.test(name))
    .sort()
}

function statOf(path: string): Stats | null {
  return lstatSync(path, { throwIfNoEntry: false }) ?? null
}

function isSameFile(a: Stats, b: Stats | null): boolean {
  return b !== null && a.dev === b.dev && a.ino === b.ino
}
