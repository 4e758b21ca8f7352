import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { RoundhouseError } from '../errors.ts'
import { type Deferred, deferred } from '../lib/deferred.ts'
import type { CheckpointMeta, SnapshotPart } from '../shard/ports.ts'

/** What the main thread may ask of a state worker (state-worker.ts), and how it is told. */
export type WorkerRequest =
  | { kind: 'commit'; replica: number; meta: CheckpointMeta; rows: readonly Uint8Array[] }
  | { kind: 'drop'; replica: number; broken: boolean }
  /** null = of all replicas. */
  | { kind: 'sweep'; replica: number | null }
  | { kind: 'snapshot'; replica: number; directory: string; partBytes: number }
  /** Files of records beside a copied checkpoint get a second name there. */
  | { kind: 'link'; directory: string; files: readonly StagedFile[] }
  /** Answers the CRC of a file's first `bytes` bytes. */
  | { kind: 'sum'; path: string; bytes: number }
  /** Answers the name of a part that does not fit, or null. */
  | { kind: 'verify'; files: readonly (StagedFile & SnapshotPart)[] }
  | {
      kind: 'install'
      replica: number
      generation: number
      meta: CheckpointMeta
      files: readonly StagedFile[]
      /** The node's data directory, and where in it the logs of records of this generation go. */
      home: string
      records: string
    }
  | { kind: 'close' }

export interface StagedFile {
  readonly name: string
  readonly path: string
}

export type WorkerReply =
  | { readonly id: number; readonly result: unknown }
  | {
      readonly id: number
      readonly failure: {
        readonly text: string
        readonly corrupt: { readonly where: string; readonly what: string } | null
        /** There was no room; what was asked for did not happen, and may be asked for again. */
        readonly noSpace: boolean
        readonly fatal: boolean
      }
    }

/**
 * One worker thread, begun with the first request. It does not keep the process alive but while it owes an answer. A
 * worker that dies takes its requests with it: that is as fatal as a failed write.
 */
export class StateWorker {
  private readonly path: string
  private readonly replicasMax: number
  /** Its work is no hurry: it steps back for others (rests.ts), until the store is closed. */
  private readonly isBulk: boolean
  private readonly hurry = new Int32Array(new SharedArrayBuffer(4))
  private readonly onFatal: (why: string) => Error
  private worker: Worker | null = null
  private closed = false
  private nextId = 0
  private readonly waiting = new Map<number, Deferred<unknown>>()

  /** `onFatal` marks the state as failed and gives the error that everybody gets from now on. */
  constructor(path: string, replicasMax: number, isBulk: boolean, onFatal: (why: string) => Error) {
    this.path = path
    this.replicasMax = replicasMax
    this.isBulk = isBulk
    this.onFatal = onFatal
  }

  request<T>(request: WorkerRequest, transfer: readonly ArrayBuffer[] = []): Promise<T> {
    this.worker ??= this.start()
    const id = this.nextId++
    const answer = deferred<unknown>()
    this.waiting.set(id, answer)
    this.worker.ref()
    this.worker.postMessage({ id, request }, [...transfer])
    return answer.promise as Promise<T>
  }

  /** From now on nobody has time to wait for it to rest. */
  hasten(): void {
    Atomics.store(this.hurry, 0, 1)
    Atomics.notify(this.hurry, 0)
  }

  async close(): Promise<void> {
    this.hasten()
    if (this.worker === null) return
    const worker = this.worker
    const exited = new Promise(resolve => worker.once('exit', resolve))
    const closing = this.request({ kind: 'close' })
    this.closed = true
    await closing
    worker.ref()
    await exited
  }

  private start(): Worker {
    const { path, replicasMax, isBulk, hurry } = this
    const worker = startThread({ path, replicasMax, isBulk, hurry })
    worker.unref()
    worker.on('message', (reply: WorkerReply) => this.settle(reply))
    worker.on('error', error => this.died(error.message))
    worker.on('exit', code => this.died(`its thread ended with ${code}`))
    return worker
  }

  private settle(reply: WorkerReply): void {
    const answer = this.waiting.get(reply.id)!
    this.waiting.delete(reply.id)
    if (this.waiting.size === 0) this.worker?.unref()
    if (!('failure' in reply)) answer.resolve(reply.result)
    else if (reply.failure.fatal) answer.reject(this.onFatal(reply.failure.text))
    else if (reply.failure.noSpace)
      answer.reject(new RoundhouseError('NO_SPACE', { what: 'state', why: reply.failure.text }))
    else if (reply.failure.corrupt !== null)
      answer.reject(new RoundhouseError('CORRUPT', reply.failure.corrupt))
    else answer.reject(new RoundhouseError('STORAGE_FAILED', { what: 'snapshot', why: reply.failure.text }))
  }

  private died(why: string): void {
    if (this.closed && this.waiting.size === 0) return
    const error = this.onFatal(why)
    for (const answer of this.waiting.values()) answer.reject(error)
    this.waiting.clear()
  }
}

export interface WorkerData {
  readonly path: string
  readonly replicasMax: number
  readonly isBulk: boolean
  readonly hurry: Int32Array
}

/**
 * Compiled, the entry is .js and runs as it is. From source it is .ts, and on Node 20 a worker inherits no loader: a line
 * of script registers tsx in it first.
 */
function startThread(workerData: WorkerData): Worker {
  const extension = extname(import.meta.url)
  const entry = new URL(`./state-worker${extension}`, import.meta.url)
  if (extension === '.js') return new Worker(entry, { workerData, execArgv: [] })
  const tsx = import.meta.resolve('tsx/esm/api')
  const script = `import(${JSON.stringify(tsx)}).then(tsx => { tsx.register(); return import(${JSON.stringify(entry.href)}) })`
  return new Worker(script, { workerData, execArgv: [], eval: true })
}
