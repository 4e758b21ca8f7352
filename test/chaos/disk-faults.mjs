/**
 * Preloaded into the nodes of a chaos run (`NODE_OPTIONS=--import`), their worker threads included: the files of the data
 * directory as a sick disk serves them, and outgoing connections from an address that tells who dials. Plain JavaScript,
 * for it must run as it is. What LMDB does below Node.js is not seen here; a disk that is really full is (test/lib/small-disk).
 *
 * The steering wheel is a file of 32 bytes, read before each call that matters:
 *
 *   0  u8   1: syncs wait until it is 0 again
 *   1  u8   1: the next sync fails with EIO, and nothing is synced; the failing call sets it to 0
 *   2  u8   1: writes find no room (ENOSPC)
 *   3  u8   each sync takes so many milliseconds longer
 *   4  u8   set to 1 by a sync that failed
 */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import net from 'node:net'
import { sep } from 'node:path'

const { ROUNDHOUSE_CHAOS_WHEEL: wheelPath, ROUNDHOUSE_CHAOS_DATA: data, ROUNDHOUSE_CHAOS_SOURCE: source } = process.env
const stallCheckMs = 5

const real = {
  openSync: fs.openSync,
  closeSync: fs.closeSync,
  readSync: fs.readSync,
  fdatasync: fs.fdatasync,
  fdatasyncSync: fs.fdatasyncSync,
  fsync: fs.fsync,
  fsyncSync: fs.fsyncSync,
  write: fs.write,
  writeSync: fs.writeSync,
  writev: fs.writev,
  writevSync: fs.writevSync,
  ftruncateSync: fs.ftruncateSync,
}
const places = { stall: 0, failSync: 1, full: 2, slowMs: 3, failed: 4 }
const wheel = real.openSync(wheelPath, 'r+')
const state = new Uint8Array(8)
const own = new Set()
const parking = new Int32Array(new SharedArrayBuffer(4))

function look() {
  real.readSync(wheel, state, 0, state.length, 0)
  return state
}

function set(place, value) {
  real.writeSync(wheel, Uint8Array.of(value), 0, 1, place)
}

const sleepSync = ms => Atomics.wait(parking, 0, 0, ms)
const failure = (code, errno, syscall, text) =>
  Object.assign(new Error(`${code}: ${text}, ${syscall} (injected)`), { code, errno, syscall })

/** Whether this sync is the one that fails. */
function takesFailure() {
  if (look()[places.failSync] === 0) return false
  set(places.failSync, 0)
  set(places.failed, 1)
  return true
}

const wrapSync = (name, syscall) => fd => {
  if (!own.has(fd)) return real[name](fd)
  while (look()[places.stall] !== 0) sleepSync(stallCheckMs)
  if (state[places.slowMs] > 0) sleepSync(state[places.slowMs])
  if (takesFailure()) throw failure('EIO', -5, syscall, 'i/o error')
  return real[name](fd)
}

const wrapAsync = (name, syscall) => (fd, callback) => {
  if (!own.has(fd)) return real[name](fd, callback)
  const go = () => {
    if (takesFailure()) callback(failure('EIO', -5, syscall, 'i/o error'))
    else real[name](fd, callback)
  }
  const wait = () => {
    if (look()[places.stall] !== 0) setTimeout(wait, stallCheckMs)
    else if (state[places.slowMs] > 0) setTimeout(go, state[places.slowMs])
    else go()
  }
  if (look()[places.stall] === 0 && state[places.slowMs] === 0) go()
  else wait()
}

const isFull = fd => own.has(fd) && look()[places.full] !== 0
const noSpace = syscall => failure('ENOSPC', -28, syscall, 'no space left on device')

if (wheelPath !== undefined && data !== undefined) {
  fs.openSync = (path, ...rest) => {
    const fd = real.openSync(path, ...rest)
    if (typeof path === 'string' && path.startsWith(data + sep)) own.add(fd)
    return fd
  }
  fs.closeSync = fd => {
    own.delete(fd)
    real.closeSync(fd)
  }
  fs.fdatasyncSync = wrapSync('fdatasyncSync', 'fdatasync')
  fs.fsyncSync = wrapSync('fsyncSync', 'fsync')
  fs.fdatasync = wrapAsync('fdatasync', 'fdatasync')
  fs.fsync = wrapAsync('fsync', 'fsync')
  for (const name of ['write', 'writev']) {
    fs[name] = (fd, ...rest) => {
      if (!isFull(fd)) return real[name](fd, ...rest)
      process.nextTick(rest[rest.length - 1], noSpace('write'), 0)
    }
  }
  for (const name of ['writeSync', 'writevSync']) {
    fs[name] = (fd, ...rest) => {
      if (isFull(fd)) throw noSpace('write')
      return real[name](fd, ...rest)
    }
  }
  fs.ftruncateSync = (fd, length = 0) => {
    if (isFull(fd) && length > fs.fstatSync(fd).size) throw noSpace('ftruncate')
    return real.ftruncateSync(fd, length)
  }
  syncBuiltinESMExports()
}

if (source !== undefined) {
  const connect = net.Socket.prototype.connect
  net.Socket.prototype.connect = function (...args) {
    const options = Array.isArray(args[0]) ? args[0][0] : args[0]
    if (options !== null && typeof options === 'object' && options.host === '127.0.0.1') options.localAddress ??= source
    return Reflect.apply(connect, this, args)
  }
}
