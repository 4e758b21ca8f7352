/**
 * The client as people hold it: typed methods from the table, `run` for any command, pipelines, scans. A `Client` is a
 * cheap view of one engine; `with`, `stale` and `buffers` make further views of the same one, with other settings.
 */
import { readFileSync } from 'node:fs'
import { parseAddresses } from './addresses.ts'
import { type AtomicAppend, type AtomicCommand, type AtomicResult, atomic } from './atomic.ts'
import type { EngineReply } from './call.ts'
import { type ConsumeOptions, Consumer } from './consumer.ts'
import { Engine } from './engine.ts'
import { inputBytes, refusedInput } from './input.ts'
import { Partitions } from './partitions.ts'
import { Pipeline } from './pipeline.ts'
import { type Produced, Producer } from './producer.ts'
import { type NewRecord, type RecordOptions, wireRecord } from './record.ts'
import {
  type Decode,
  decodeBytes,
  decodeText,
  type Page,
  type ReplyKind,
  type ReplyTypes,
  readReply,
  readValue,
  type Value,
} from './reply.ts'
import { Streams } from './streams.ts'
import {
  type CommandSpec,
  commands,
  factsOf,
  type Input,
  type KeyPositions,
  type ScanOptions,
} from './table.ts'
import { securityOf, type TlsOptions } from './tls.ts'
import { placeOf, Watcher, type WatchOptions, type WatchTarget } from './watch.ts'

export interface CallOptions {
  /** How long a call may take, ms, from 1 to 300,000. */
  readonly timeout?: number
  /** Ends calls early; a write that was sent by then has an unknown outcome. */
  readonly signal?: AbortSignal
  /** stale: from any replica, without asking its leader; see `execute` for how old the answer may be. */
  readonly read?: 'linearizable' | 'stale'
}

export interface ConnectOptions extends CallOptions {
  /** Nodes to begin with, any of the cluster: host:port. */
  readonly addresses: string | readonly string[]
  /** true: TLS with the authorities that Node.js brings. */
  readonly tls?: TlsOptions | boolean
  /** Names this program in the nodes' eyes. */
  readonly userAgent?: string
  readonly retry?: {
    /** How often a call is tried; 1: never again. 100 by default: the timeout ends it. */
    readonly attempts?: number
    /** When a node that does not answer is given up and another one asked, ms. 2,000 by default. */
    readonly attemptTimeout?: number
    /** Between two attempts, ms: from minPause, doubled each time, to maxPause. 10 and 200 by default. */
    readonly minPause?: number
    readonly maxPause?: number
  }
  /** Calls on their way at one time; the others wait in the client. 1,024 by default. */
  readonly maxInFlight?: number
  /** Calls that may wait; one more is refused with QUEUE_FULL. 10,000 by default. */
  readonly maxQueued?: number
  /** Bytes of arguments of all these calls. 64 MiB by default. */
  readonly maxBytes?: number
}

/** What `execute` answers: the reply and its circumstances. */
export interface Reply<Data> {
  readonly value: Value<Data>
  /** Raft index, in the key's shard, of the write, or the applied index that the read saw; 0 where no shard was asked. */
  readonly revision: number
  /** Of a stale read: how old its state may be, ms. */
  readonly lagMs: number
  /** host:port of the node that answered. */
  readonly node: string
}

type Table = typeof commands
type ArgsOf<Spec> = Spec extends { readonly args: (...args: infer Args) => unknown } ? Args : never
type KindOf<Spec> = Spec extends { readonly reply: infer Kind extends ReplyKind } ? Kind : never

/** A method for each command of the table. */
export type CommandMethods<Data> = {
  [Name in keyof Table]: (...args: ArgsOf<Table[Name]>) => Promise<ReplyTypes<Data>[KindOf<Table[Name]>]>
}

const timeoutMsDefault = 5_000
/** The shards forget sessions; a write is not tried for longer than this. */
const timeoutMsMax = 300_000
const inFlightMaxDefault = 1_024
const queueMaxDefault = 10_000
const bytesMaxDefault = 64 * 2 ** 20

/** What all views of one engine have of its streams. */
interface Log {
  readonly partitions: Partitions
  readonly producer: Producer
}

export interface ProduceOptions extends RecordOptions {
  /** Where to; else by key, else batch by batch in turn. */
  readonly partition?: number
}

interface ViewSettings<Data> {
  readonly timeoutMs: number
  readonly signal: AbortSignal | null
  readonly isStale: boolean
  readonly decode: Decode<Data>
}

/**
 * Connects to a cluster: resolves when one of the nodes has answered. Rejects with CallError UNREACHABLE when none did
 * within the timeout, and with a TypeError for options that can't be.
 */
export async function connect(target: string | readonly string[] | ConnectOptions): Promise<Client> {
  const isOptions = typeof target === 'object' && 'addresses' in target
  const options: ConnectOptions = isOptions ? target : { addresses: target }
  const { addresses, tls, userAgent, retry = {} } = options
  const settings = withOptions(
    { timeoutMs: timeoutMsDefault, signal: null, isStale: false, decode: decodeText },
    options,
  )
  const engine = new Engine({
    addresses: parseAddresses(addresses),
    security: securityOf(tls),
    userAgent: [userAgent, `roundhouse-client/${version()}`].filter(each => each !== undefined).join(' '),
    inFlightMax: integer('maxInFlight', options.maxInFlight ?? inFlightMaxDefault, 1, 100_000),
    queueMax: integer('maxQueued', options.maxQueued ?? queueMaxDefault, 0, 1_000_000),
    bytesMax: integer('maxBytes', options.maxBytes ?? bytesMaxDefault, 1, 2 ** 31),
    retry: {
      attemptsMax: integer('retry.attempts', retry.attempts ?? 100, 1, 1_000),
      attemptMs: integer('retry.attemptTimeout', retry.attemptTimeout ?? 2_000, 10, timeoutMsMax),
      pauseMs: {
        min: integer('retry.minPause', retry.minPause ?? 10, 1, 60_000),
        max: integer('retry.maxPause', retry.maxPause ?? 200, 1, 60_000),
      },
    },
  })
  try {
    await engine.connect(settings.timeoutMs, settings.signal)
  } catch (error) {
    await engine.destroy()
    throw error
  }
  // The signal was for connecting: a client that is aborted for good is a closed one.
  const partitions = new Partitions(engine)
  const log = { partitions, producer: new Producer(engine, partitions) }
  return new Client(engine, log, { ...settings, signal: null })
}

class Base<Data> {
  private readonly engine: Engine
  private readonly log: Log
  private readonly settings: ViewSettings<Data>

  /** `connect` makes the first, views make the others. */
  constructor(engine: Engine, log: Log, settings: ViewSettings<Data>) {
    this.engine = engine
    this.log = log
    this.settings = settings
  }

  /** Reads from any replica: fast and local, and perhaps a little old. */
  get stale(): Client<Data> {
    return this.with({ read: 'stale' })
  }

  /** Values as Buffers instead of strings. */
  get buffers(): Client<Buffer> {
    return new Client(this.engine, this.log, { ...this.settings, decode: decodeBytes })
  }

  /** The same client with other options for its calls: `client.with({ timeout: 500, signal }).get('k')`. */
  with(options: CallOptions): Client<Data> {
    return new Client(this.engine, this.log, withOptions(this.settings, options))
  }

  /** Any command by its name, with what the cluster answers: for those without a method. */
  async run(command: string, ...args: readonly Input[]): Promise<Value<Data>> {
    const name = command.toUpperCase()
    const { response } = await this.send(name, factsOf(name), args, false)
    return readValue(response, this.settings.decode)
  }

  /** Like `run`, with the circumstances of the reply. */
  async execute(command: string, ...args: readonly Input[]): Promise<Reply<Data>> {
    const name = command.toUpperCase()
    const { response, address } = await this.send(name, factsOf(name), args, false)
    return {
      value: readValue(response, this.settings.decode),
      revision: Number(response.revision),
      lagMs: response.lagMs,
      node: address,
    }
  }

  /** Collects calls and sends them in order: `await client.pipeline().set('a', 1).incr('a').run()`. */
  pipeline(): Pipeline<Data, []> {
    return new Pipeline((spec, args) => this.invoke(spec, args, true))
  }

  /** Keys of all shards. One that is there all the while comes exactly once. */
  async *scan(options: ScanOptions & { readonly type?: string } = {}): AsyncGenerator<Data, void, void> {
    const type = options.type === undefined ? [] : ['TYPE', options.type]
    for await (const page of this.pages('SCAN', [], options, type))
      for (const item of page) yield item as Data
  }

  /** Fields of a hash and their values. */
  async *hscan(
    key: Input,
    options: ScanOptions = {},
  ): AsyncGenerator<[field: Data, value: Data], void, void> {
    for await (const page of this.pages('HSCAN', [key], options))
      for (const item of page) yield item as [Data, Data]
  }

  /** Members of a set. */
  async *sscan(key: Input, options: ScanOptions = {}): AsyncGenerator<Data, void, void> {
    for await (const page of this.pages('SSCAN', [key], options)) for (const item of page) yield item as Data
  }

  /** Members of a sorted set and their scores, in the order of the members. */
  async *zscan(
    key: Input,
    options: ScanOptions = {},
  ): AsyncGenerator<{ member: Data; score: number }, void, void> {
    for await (const page of this.pages('ZSCAN', [key], options)) {
      for (const item of page) {
        const [member, score] = item as [Data, Data]
        yield { member, score: Number(String(score).replace(/inf$/, 'Infinity')) }
      }
    }
  }

  /**
   * Changes of a key, or of all keys with a prefix, as they are committed, in the order of each shard: `for await (const
   * change of client.watch({ prefix: 'user:' }))`. It goes on through failures of nodes; see watch.ts for how it ends.
   */
  watch(target: WatchTarget & WatchOptions): Watcher<Data> {
    const { key, prefix, from, values = true, signal } = target
    if ((key === undefined) === (prefix === undefined))
      throw new TypeError('watch: a key or a prefix is accepted')
    const given = argumentBytes((key ?? prefix)!, 'WATCH', 0)
    const { timeoutMs, decode } = this.settings
    return new Watcher({
      engine: this.engine,
      key: key === undefined ? null : given,
      prefix: key === undefined ? given : null,
      from: placeOf(from, key !== undefined),
      hasValues: values,
      timeoutMs,
      signal: signal ?? this.settings.signal,
      decode,
    })
  }

  /** The catalogue: streams are made, listed, described, changed, truncated and deleted. */
  get streams(): Streams {
    const { timeoutMs, signal } = this.settings
    return new Streams(this.engine, this.log.partitions, { timeoutMs, signal })
  }

  /**
   * Appends a record, or many. Resolves with where they are when they are on the disks of a majority. Calls that are made without
   * waiting for one another make batches by themselves, and those of one partition keep their order, whatever happens. The
   * records of one call for one partition are appended together or not at all.
   */
  produce(stream: string, record: Input | NewRecord, options?: ProduceOptions): Promise<Produced>
  produce(
    stream: string,
    records: readonly (Input | NewRecord)[],
    options?: ProduceOptions,
  ): Promise<readonly Produced[]>
  async produce(
    stream: string,
    given: Input | NewRecord | readonly (Input | NewRecord)[],
    options: ProduceOptions = {},
  ): Promise<Produced | readonly Produced[]> {
    const { timeoutMs, signal } = this.settings
    const { partition = null } = options
    if (partition !== null) integer('partition', partition, 0, 0xffff_ffff)
    const many: readonly (Input | NewRecord)[] | null = Array.isArray(given) ? given : null
    const one = many === null ? [given as Input | NewRecord] : many
    const records = one.map((record, i) =>
      wireRecord(record, options, many === null ? 'PRODUCE' : `PRODUCE: record ${i + 1}`),
    )
    const places = await this.log.producer.produce({ stream, records, partition, timeoutMs, signal })
    return many === null ? places[0]! : places
  }

  /**
   * The records of a stream, and with `follow` those to come: `for await (const record of client.consume('orders'))`. It goes on
   * through failures of nodes, and reads on when its consumer does; see consumer.ts for how it ends.
   */
  consume(stream: string, options: ConsumeOptions = {}): Consumer<Data> {
    const { timeoutMs, decode } = this.settings
    return new Consumer({
      ...{ engine: this.engine, partitions: this.log.partitions, streams: this.streams, stream },
      ...{ wish: options, timeoutMs, decode, signal: options.signal ?? this.settings.signal },
    })
  }

  /**
   * Commands and appends whose keys have one hash tag, as one entry: all are applied, or none (a condition that is not met, such
   * as NX of SET, keeps all out).
   */
  atomic(operations: readonly (AtomicCommand | AtomicAppend)[]): Promise<AtomicResult<Data>> {
    const { timeoutMs, signal, decode } = this.settings
    return atomic(this.engine, operations, decode, { timeoutMs, signal })
  }

  /** Takes no more calls; resolves when those under way are settled. All views close together. */
  close(): Promise<void> {
    return this.engine.close()
  }

  /** Closes without waiting: calls under way reject with CLOSED, sent writes with the outcome unknown. */
  destroy(): Promise<void> {
    return this.engine.destroy()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** What the methods of the table do. */
  protected async invoke(
    spec: CommandSpec<readonly unknown[], ReplyKind>,
    args: readonly unknown[],
    isOrdered: boolean,
  ): Promise<unknown> {
    const { response } = await this.send(spec.name, spec, spec.args(...args), isOrdered)
    return readReply(spec, response, this.settings.decode)
  }

  private async *pages(
    command: string,
    key: readonly Input[],
    { match, count, signal }: ScanOptions,
    more: readonly Input[] = [],
  ): AsyncGenerator<Page<Data>['items'], void, void> {
    const options = [
      ...(match === undefined ? [] : ['MATCH', match]),
      ...(count === undefined ? [] : ['COUNT', count]),
      ...more,
    ]
    const view = signal === undefined ? this : this.with({ signal })
    let cursor = '0'
    do {
      const page = (await view.run(command, ...key, cursor, ...options)) as Page<Data>
      yield page.items
      cursor = page.cursor
    } while (cursor !== '0')
  }

  private send(
    command: string,
    { access, keys }: { readonly access: 'read' | 'write'; readonly keys: KeyPositions },
    args: readonly Input[],
    isOrdered: boolean,
  ): Promise<EngineReply> {
    const { isStale, timeoutMs, signal } = this.settings
    const bytes = args.map((arg, place) => argumentBytes(arg, command, place))
    return this.engine.execute({
      command,
      args: bytes,
      access,
      keys: keysAmong(bytes, keys),
      isStale: isStale && access === 'read',
      isOrdered,
      timeoutMs,
      signal,
    })
  }
}

/** The methods of the table stand on the prototype: a view costs one small object. */
export interface Client<Data = string> extends CommandMethods<Data> {}
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the loop below defines what the interface declares
export class Client<Data = string> extends Base<Data> {}

for (const [name, spec] of Object.entries(commands)) {
  Object.defineProperty(Client.prototype, name, {
    value: function method(this: Client<unknown>, ...args: readonly unknown[]) {
      return this.invoke(spec as unknown as CommandSpec<readonly unknown[], ReplyKind>, args, false)
    },
    writable: true,
    configurable: true,
  })
}

function keysAmong(args: readonly Buffer[], positions: KeyPositions): readonly Buffer[] {
  switch (positions) {
    case 'none':
      return []
    case 'first':
      return args.slice(0, 1)
    case 'pair':
      return args.slice(0, 2)
    case 'all':
      return args
    case 'alternate':
      return args.filter((_, place) => place % 2 === 0)
  }
}

function argumentBytes(value: Input, command: string, place: number): Buffer {
  const bytes = inputBytes(value)
  if (bytes === null) throw refusedInput(`${command}: argument ${place + 1}`, value)
  return bytes
}

function withOptions<Data>(settings: ViewSettings<Data>, options: CallOptions): ViewSettings<Data> {
  const { timeout, signal, read } = options
  if (read !== undefined && read !== 'linearizable' && read !== 'stale')
    throw new TypeError(`read: linearizable or stale is accepted, not ${String(read)}`)
  return {
    ...settings,
    ...(timeout === undefined ? {} : { timeoutMs: integer('timeout', timeout, 1, timeoutMsMax) }),
    ...(signal === undefined ? {} : { signal }),
    ...(read === undefined ? {} : { isStale: read === 'stale' }),
  }
}

function integer(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new TypeError(`${name}: an integer from ${min} to ${max} is accepted, not ${String(value)}`)
}

function version(): string {
  const path = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version
}
