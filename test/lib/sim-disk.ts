/**
 * A disk in memory that is honest about what a crash may do to it.
 *
 * A file is 512-byte sectors. A write changes the *cache*; what the sector held before is remembered until a sync puts
 * it on the *platter*. At a crash each unsynced sector is kept, lost, torn (its first bytes are new, the rest old) or
 * garbled, each on its own, and the size of the file lies between the synced and the last one. Only bytes that were
 * being written are garbled (powersafe overwrite): no file system promises less for a sector that is rewritten with
 * the same bytes. Names are changes to a directory; of the unsynced ones a prefix survives, for each directory.
 *
 * Deterministic: commits complete when the `schedule` that was passed in says so, randomness is passed to `crash`.
 * After a crash every file that was open is dead: a use throws, its commit never completes.
 */
import { assert } from '../../src/lib/assert.ts'
import type { Bytes } from '../../src/lib/bytes.ts'
import type { Random } from '../../src/lib/prng.ts'
import type { Disk, File } from '../../src/log/ports.ts'

export const sectorBytes = 512
const pageBytes = 4096

export type SectorFate = 'kept' | 'lost' | 'torn' | 'garbled'
export type DiskOperation = 'read' | 'write' | 'sync' | 'truncate' | 'open' | 'syncDirectory'

/** What a crash does, decided by a test; `SimDisk.crash` draws one at random. */
export interface CrashFate {
  /** How many of `pending` unsynced changes of a directory survive. */
  names(directory: string, pending: number): number
  sector(path: string, sector: number): SectorFate
  /** The size of a file whose size was `synced` at its last sync and was `last` at the crash. */
  size(path: string, synced: number, last: number): number
  random: Random
}

export interface SimDiskOptions {
  /** Calls `run` later, never inside the call itself: the device's latency. */
  readonly schedule: (run: () => void) => void
  readonly capacityBytes?: number
}

/** One generation of unsynced sectors: what each held before, and the bytes of it that were written. */
type Layer = Map<number, { old: Bytes; from: number; to: number }>

interface FileNode {
  readonly kind: 'file'
  readonly pages: Map<number, Uint8Array>
  size: number
  sizeSynced: number
  /** Written since the last sync began. */
  dirty: Layer
  /** Older layers, newest first: of a commit under way, and those that a failed sync dropped for ever. */
  below: Layer[]
}

interface DirectoryNode {
  readonly kind: 'directory'
  cache: Map<string, Node>
  platter: Map<string, Node>
  pending: { name: string; node: Node | null }[][]
}

type Node = FileNode | DirectoryNode

export class SimDisk implements Disk {
  /** Asked before every operation; an error makes it fail. A failed sync drops what it should have synced. */
  fault: ((operation: DiskOperation, path: string) => Error | null) | null = null
  capacityBytes: number
  /** Of the device since it was made: what a test asserts costs with. */
  readonly counts = { writes: 0, syncs: 0, commits: 0, directorySyncs: 0, bytesWritten: 0, reads: 0 }
  private readonly schedule: (run: () => void) => void
  private root: DirectoryNode = makeDirectoryNode()
  private life = 0
  private stalled: (() => void)[] | null = null

  constructor(options: SimDiskOptions) {
    this.schedule = options.schedule
    this.capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY
  }

  open(path: string, options: { readonly create?: boolean } = {}): File {
    this.check('open', path)
    const { parent, name } = this.parentOf(path)
    let node = parent.cache.get(name)
    if (node === undefined) {
      if (options.create !== true) throw failure('ENOENT', path)
      node = { kind: 'file', pages: new Map(), size: 0, sizeSynced: 0, dirty: new Map(), below: [] }
      change(parent, [{ name, node }])
    }
    if (node.kind !== 'file') throw failure('EISDIR', path)
    return new SimFile(this, node, path, this.life)
  }

  exists(path: string): boolean {
    return this.find(path) !== undefined
  }

  list(directory: string): string[] {
    const node = this.find(directory)
    return node?.kind === 'directory' ? [...node.cache.keys()].sort() : []
  }

  makeDirectory(directory: string): void {
    let node = this.root
    for (const part of partsOf(directory)) {
      let next = node.cache.get(part)
      if (next === undefined) {
        next = makeDirectoryNode()
        change(node, [{ name: part, node: next }])
      }
      if (next.kind !== 'directory') throw failure('ENOTDIR', directory)
      node = next
    }
  }

  rename(from: string, to: string): void {
    const source = this.parentOf(from)
    const target = this.parentOf(to)
    const node = source.parent.cache.get(source.name)
    if (node === undefined) throw failure('ENOENT', from)
    const added = { name: target.name, node }
    const removed = { name: source.name, node: null }
    if (source.parent === target.parent) {
      change(source.parent, [removed, added])
    } else {
      change(target.parent, [added])
      change(source.parent, [removed])
    }
  }

  unlink(path: string): void {
    const { parent, name } = this.parentOf(path)
    const node = parent.cache.get(name)
    if (node === undefined) throw failure('ENOENT', path)
    if (node.kind !== 'file') throw failure('EISDIR', path)
    change(parent, [{ name, node: null }])
  }

  removeTree(directory: string): void {
    this.removeNow(directory)
  }

  private removeNow(directory: string): void {
    if (!this.exists(directory)) return
    const { parent, name } = this.parentOf(directory)
    change(parent, [{ name, node: null }])
  }

  syncDirectory(directory: string): void {
    this.syncNames(directory)
  }

  private syncNames(directory: string): void {
    this.check('syncDirectory', directory)
    const node = this.find(directory)
    if (node?.kind !== 'directory') throw failure('ENOENT', directory)
    node.platter = new Map(node.cache)
    node.pending = []
    this.counts.directorySyncs++
  }

  syncDirectoryAside(directory: string, done: (error: Error | null) => void): void {
    const { life } = this
    this.later(() => {
      if (this.isAlive(life)) done(attempted(() => this.syncNames(directory)))
    })
  }

  removeAside(path: string, done: (error: Error | null) => void): void {
    const { life } = this
    this.later(() => {
      if (this.isAlive(life)) done(attempted(() => this.removeNow(path)))
    })
  }

  freeBytes(): number {
    return Math.max(0, this.capacityBytes - usedBytes(this.root))
  }

  // --- What only a test does ---

  /** The next `operation` (on `path`, where given) fails with EIO, once. */
  failOnce(operation: DiskOperation, path?: string): void {
    const before = this.fault
    this.fault = (asked, where) => {
      if (asked !== operation || (path !== undefined && where !== path)) return before?.(asked, where) ?? null
      this.fault = before
      return failure('EIO', where)
    }
  }

  /** Somebody else takes the device's room but for `leftBytes`; the answer gives it back. */
  fill(leftBytes = 0): () => void {
    const before = this.capacityBytes
    this.capacityBytes = usedBytes(this.root) + leftBytes
    return () => {
      this.capacityBytes = before
    }
  }

  /** Commits stop completing, as on a device that hangs, until `unstall`. */
  stall(): void {
    this.stalled ??= []
  }

  unstall(): void {
    const waiting = this.stalled ?? []
    this.stalled = null
    for (const run of waiting) this.schedule(run)
  }

  /** Power off and on again: what was not synced meets a random fate. */
  crash(random: Random): void {
    const fates: readonly SectorFate[] = ['kept', 'lost', 'torn', 'garbled']
    // Mostly whole or mostly lost images find other mistakes than an even mix does.
    const leaning = random.next()
    this.crashWith({
      random,
      names: (_, pending) => random.below(pending + 1),
      sector: () =>
        random.next() < 0.15 ? fates[random.below(4)]! : random.next() < leaning ? 'kept' : 'lost',
      size: (_, synced, last) =>
        [synced, last, Math.min(synced, last) + random.below(Math.abs(last - synced) + 1)][random.below(3)]!,
    })
  }

  crashWith(fate: CrashFate): void {
    this.life++
    this.stalled = null
    settleNames(this.root, '', fate)
    const seen = new Set<FileNode>()
    walk(this.root, '', (path, file) => {
      if (!seen.has(file)) settleFile(path, file, fate)
      seen.add(file)
    })
  }

  /** The sectors that a crash now would put at risk, in order of path and sector. */
  unsynced(): { path: string; sector: number }[] {
    const found: { path: string; sector: number }[] = []
    walk(this.root, '', (path, file) => {
      const sectors = new Set([...file.dirty.keys(), ...file.below.flatMap(layer => [...layer.keys()])])
      for (const sector of [...sectors].sort((a, b) => a - b)) found.push({ path, sector })
    })
    return found
  }

  /** Rot: flips one bit of what is on the platter and in the cache. */
  flipBit(path: string, position: number, bit = 0): void {
    const node = this.find(path)
    if (node?.kind !== 'file' || position >= node.size) throw failure('ENOENT', path)
    pageFor(node, Math.floor(position / pageBytes))[position % pageBytes]! ^= 1 << bit
  }

  /** An independent disk with the same content, unsynced parts included; no file is open on it. */
  clone(schedule = this.schedule): SimDisk {
    const copy = new SimDisk({ schedule, capacityBytes: this.capacityBytes })
    copy.root = cloneNode(this.root, new Map()) as DirectoryNode
    return copy
  }

  // --- For SimFile ---

  isAlive(life: number): boolean {
    return life === this.life
  }

  check(operation: DiskOperation, path: string): void {
    const error = this.fault?.(operation, path) ?? null
    if (error !== null) throw error
  }

  later(run: () => void): void {
    this.schedule(() => {
      if (this.stalled === null) run()
      else this.stalled.push(run)
    })
  }

  private find(path: string): Node | undefined {
    let node: Node | undefined = this.root
    for (const part of partsOf(path)) {
      if (node?.kind !== 'directory') return undefined
      node = node.cache.get(part)
    }
    return node
  }

  private parentOf(path: string): { parent: DirectoryNode; name: string } {
    const parts = partsOf(path)
    const name = parts.pop()
    const parent = this.find(parts.join('/'))
    if (name === undefined || parent?.kind !== 'directory') throw failure('ENOENT', path)
    return { parent, name }
  }
}

class SimFile implements File {
  readonly path: string
  private readonly disk: SimDisk
  private readonly node: FileNode
  private readonly life: number
  private isCommitting = false
  private isClosed = false

  constructor(disk: SimDisk, node: FileNode, path: string, life: number) {
    this.disk = disk
    this.node = node
    this.path = path
    this.life = life
  }

  size(): number {
    this.assertOpen()
    return this.node.size
  }

  read(position: number, length: number): Bytes {
    this.assertOpen()
    this.disk.check('read', this.path)
    this.disk.counts.reads++
    const out = new Uint8Array(Math.max(0, Math.min(length, this.node.size - position)))
    for (let at = 0; at < out.byteLength; ) {
      const inPage = (position + at) % pageBytes
      const count = Math.min(pageBytes - inPage, out.byteLength - at)
      const page = this.node.pages.get(Math.floor((position + at) / pageBytes))
      if (page !== undefined) out.set(page.subarray(inPage, inPage + count), at)
      at += count
    }
    return out
  }

  write(position: number, bytes: Bytes): void {
    this.assertOpen()
    this.disk.check('write', this.path)
    const growth = position + bytes.byteLength - this.node.size
    if (growth > 0 && growth > this.disk.freeBytes()) throw failure('ENOSPC', this.path)
    this.disk.counts.writes++
    this.disk.counts.bytesWritten += bytes.byteLength
    putBytes(this.node, position, bytes)
  }

  truncate(size: number): void {
    this.assertOpen()
    this.disk.check('truncate', this.path)
    const { node } = this
    for (let at = size; at < node.size; ) {
      const next = Math.min(node.size, (Math.floor(at / pageBytes) + 1) * pageBytes)
      if (node.pages.has(Math.floor(at / pageBytes))) putBytes(node, at, new Uint8Array(next - at))
      at = next
    }
    node.size = size
  }

  sync(): void {
    this.assertOpen()
    const { node } = this
    const layer = node.dirty
    node.dirty = new Map()
    try {
      this.disk.check('sync', this.path)
    } catch (error) {
      node.below.unshift(layer)
      throw error
    }
    this.disk.counts.syncs++
    forget(node.below, layer)
    node.sizeSynced = node.size
  }

  commit(position: number, chunks: readonly Bytes[], done: (error: Error | null) => void): void {
    this.assertOpen()
    assert(!this.isCommitting, `${this.path}: a commit is under way`)
    this.isCommitting = true
    const { node, disk } = this
    let trouble: Error | null = null
    let at = position
    try {
      for (const chunk of chunks) {
        this.write(at, chunk)
        at += chunk.byteLength
      }
    } catch (error) {
      trouble = error as Error
    }
    const layer = node.dirty
    const size = node.size
    if (trouble === null) {
      node.dirty = new Map()
      node.below.unshift(layer)
    }
    disk.later(() => {
      if (!disk.isAlive(this.life)) return
      this.isCommitting = false
      if (trouble === null) {
        try {
          disk.check('sync', this.path)
          // A failed sync leaves its layer at risk for ever: the kernel has marked the pages clean.
          node.below = node.below.filter(other => other !== layer)
          forget(node.below, layer)
          node.sizeSynced = size
          disk.counts.commits++
        } catch (error) {
          trouble = error as Error
        }
      }
      done(trouble)
    })
  }

  close(): void {
    this.assertOpen()
    assert(!this.isCommitting, `${this.path}: closed while a commit is under way`)
    this.isClosed = true
  }

  private assertOpen(): void {
    assert(!this.isClosed, `${this.path}: used after close`)
    assert(this.disk.isAlive(this.life), `${this.path}: used after the crash of its disk`)
  }
}

function attempted(work: () => void): Error | null {
  try {
    work()
    return null
  } catch (error) {
    return error as Error
  }
}

function makeDirectoryNode(): DirectoryNode {
  return { kind: 'directory', cache: new Map(), platter: new Map(), pending: [] }
}

/** One namespace operation: its changes happen all or not at all. */
function change(directory: DirectoryNode, changes: { name: string; node: Node | null }[]): void {
  directory.pending.push(changes)
  applyNames(directory.cache, changes)
}

function applyNames(names: Map<string, Node>, changes: readonly { name: string; node: Node | null }[]): void {
  for (const { name, node } of changes) {
    if (node === null) names.delete(name)
    else names.set(name, node)
  }
}

function pageFor(file: FileNode, index: number): Uint8Array {
  let page = file.pages.get(index)
  if (page === undefined) {
    page = new Uint8Array(pageBytes)
    file.pages.set(index, page)
  }
  return page
}

function putBytes(file: FileNode, position: number, bytes: Bytes): void {
  file.size = Math.max(file.size, position + bytes.byteLength)
  for (let at = 0; at < bytes.byteLength; ) {
    const inPage = (position + at) % pageBytes
    const inSector = (position + at) % sectorBytes
    const count = Math.min(sectorBytes - inSector, bytes.byteLength - at)
    const piece = bytes.subarray(at, at + count)
    at += count
    const pageIndex = Math.floor((position + at - count) / pageBytes)
    if (!file.pages.has(pageIndex) && piece.every(byte => byte === 0)) continue
    const page = pageFor(file, pageIndex)
    if (Buffer.compare(page.subarray(inPage, inPage + count), piece) === 0) continue
    const sector = Math.floor((position + at - count) / sectorBytes)
    const known = file.dirty.get(sector)
    if (known === undefined) {
      const start = inPage - inSector
      file.dirty.set(sector, {
        old: page.slice(start, start + sectorBytes),
        from: inSector,
        to: inSector + count,
      })
    } else {
      known.from = Math.min(known.from, inSector)
      known.to = Math.max(known.to, inSector + count)
    }
    page.set(piece, inPage)
  }
}

/** The sectors of `layer` are on the platter: what older layers knew of them is past. */
function forget(below: readonly Layer[], layer: Layer): void {
  for (const older of below) for (const sector of layer.keys()) older.delete(sector)
}

function settleNames(directory: DirectoryNode, path: string, fate: CrashFate): void {
  const kept = directory.pending.length === 0 ? 0 : fate.names(path, directory.pending.length)
  for (const changes of directory.pending.slice(0, kept)) applyNames(directory.platter, changes)
  directory.pending = []
  directory.cache = new Map(directory.platter)
  for (const [name, node] of directory.cache) {
    if (node.kind === 'directory') settleNames(node, path === '' ? name : `${path}/${name}`, fate)
  }
}

function settleFile(path: string, file: FileNode, fate: CrashFate): void {
  const sectors = new Set([...file.dirty.keys(), ...file.below.flatMap(layer => [...layer.keys()])])
  for (const sector of [...sectors].sort((a, b) => a - b)) {
    const page = pageFor(file, Math.floor((sector * sectorBytes) / pageBytes))
    const start = (sector * sectorBytes) % pageBytes
    const bytes = page.subarray(start, start + sectorBytes)
    for (const layer of [file.dirty, ...file.below]) {
      const written = layer.get(sector)
      if (written === undefined) continue
      const { old, from, to } = written
      const chosen = fate.sector(path, sector)
      if (chosen === 'lost') {
        bytes.set(old)
        continue
      }
      const cut = from + fate.random.below(to - from)
      if (chosen === 'torn') bytes.set(old.subarray(cut), cut)
      if (chosen === 'garbled') bytes.set(fate.random.bytes(to - from), from)
      break
    }
  }
  const size = file.size === file.sizeSynced ? file.size : fate.size(path, file.sizeSynced, file.size)
  for (const [index, page] of file.pages) {
    if ((index + 1) * pageBytes > size) page.fill(0, Math.max(0, size - index * pageBytes))
  }
  file.size = size
  file.sizeSynced = size
  file.dirty = new Map()
  file.below = []
}

function walk(directory: DirectoryNode, path: string, visit: (path: string, file: FileNode) => void): void {
  for (const [name, node] of [...directory.cache].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const full = path === '' ? name : `${path}/${name}`
    if (node.kind === 'file') visit(full, node)
    else walk(node, full, visit)
  }
}

function usedBytes(directory: DirectoryNode): number {
  let sum = 0
  walk(directory, '', (_, file) => {
    sum += file.size
  })
  return sum
}

function cloneNode(node: Node, known: Map<Node, Node>): Node {
  const before = known.get(node)
  if (before !== undefined) return before
  if (node.kind === 'file') {
    const copyLayer = (layer: Layer): Layer =>
      new Map([...layer].map(([sector, written]) => [sector, { ...written }]))
    const copy: FileNode = {
      ...node,
      pages: new Map([...node.pages].map(([index, page]) => [index, page.slice()])),
      dirty: copyLayer(node.dirty),
      below: node.below.map(copyLayer),
    }
    known.set(node, copy)
    return copy
  }
  const copy = makeDirectoryNode()
  known.set(node, copy)
  const copyNames = (names: Map<string, Node>) =>
    new Map([...names].map(([name, child]) => [name, cloneNode(child, known)]))
  copy.cache = copyNames(node.cache)
  copy.platter = copyNames(node.platter)
  copy.pending = node.pending.map(changes =>
    changes.map(({ name, node: child }) => ({ name, node: child === null ? null : cloneNode(child, known) })),
  )
  return copy
}

function partsOf(path: string): string[] {
  return path.split('/').filter(part => part !== '' && part !== '.')
}

function failure(code: 'ENOENT' | 'EISDIR' | 'ENOTDIR' | 'ENOSPC' | 'EIO', path: string): Error {
  return Object.assign(new Error(`${code}: simulated disk, ${path}`), { code })
}
