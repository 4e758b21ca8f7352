/**
 * `mirror`: copies streams of another cluster into this one, at the same offsets and times, and goes on as they grow. What
 * is copied exactly once and why: mirror-partition.ts.
 */
import { Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { Glob } from '../commands/glob.ts'
import { RoundhouseError } from '../errors.ts'
import type { Stream } from '../gen/roundhouse/v1/streams.ts'
import { fromUtf8, toLatin1 } from '../lib/bytes.ts'
import { connectionOptions, Nodes, outputOption, parseNodes } from './connection.ts'
import { isPassing } from './group-consumer.ts'
import { PartitionMirror, type RangesOfBoth, remadeText } from './mirror-partition.ts'
import { bytesText, printJson } from './print.ts'
import { Progress } from './progress.ts'
import { exitCodes, type Input, pause, type Shell, UsageError, type Verb } from './shell.ts'
import { StreamRanges } from './stream-ranges.ts'
import { readTls } from './tls.ts'

/**
 * Copied at the same time; more are refused, with the flag that chooses among them. All are followed over one connection, on
 * which a node takes 1,000 calls at once.
 */
const partitionsMax = 500
/** Streams that are made at the source while the mirror runs are found so soon. */
const lookMs = 5_000
const progressMs = 500
const endingMsMax = 3_000

const sourceTls = ['from-tls-ca-path', 'from-tls-cert-path', 'from-tls-key-path'] as const

export const mirrorVerb: Verb = {
  path: ['mirror'],
  summary: 'Copy streams from another cluster, and follow them',
  group: 'streams',
  isWrite: true,
  options: {
    from: {
      kind: 'list',
      describe: 'Nodes of the other cluster: host:port,host:port',
      elsewhere: ['source', 'src'],
    },
    streams: {
      kind: 'list',
      describe: "Which streams, by name or pattern such as 'orders*'",
      fallback: '*',
      elsewhere: ['stream', 'topics', 'pattern'],
    },
    once: {
      kind: 'boolean',
      describe: 'End when all that is there is copied; else at Ctrl-C',
      elsewhere: ['no-follow'],
    },
    'skip-gaps': {
      kind: 'boolean',
      describe: 'Where the source let records go before they were copied: begin anew behind them',
    },
    'from-tls-ca-path': {
      kind: 'text',
      isFile: true,
      describe: 'CA of the other cluster (PEM): speak TLS to it',
    },
    'from-tls-cert-path': { kind: 'text', isFile: true, describe: 'Certificate to show it (PEM)' },
    'from-tls-key-path': { kind: 'text', isFile: true, describe: 'Its private key (PEM)' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    [
      "mirror --from 10.0.0.5:8080 --streams 'orders*'",
      'goes on until Ctrl-C, and where it was when started again',
    ],
    ['mirror --from old-log:8400 --streams default --once', 'a log of the systems that Roundhouse replaces'],
  ],
  notes:
    'Streams are made here as they are there (partitions, retention). Only mirrors may write to them. Sessions, consumer\n' +
    'groups and their offsets are not copied.',
  run: async (input, shell) => {
    const { from } = input.options
    if (from === undefined) throw new UsageError(['--from is missing: nodes of the cluster to copy from'])
    const files = sourceTls.map(each => String(input.options[each] ?? ''))
    const tls = readTls({ ca: files[0]!, cert: files[1]!, key: files[2]! })
    // What is under way when it is told to end gets so long to be answered.
    const late = new AbortController()
    let timer: NodeJS.Timeout | undefined
    const onAbort = () => {
      timer = setTimeout(() => late.abort(), endingMsMax)
    }
    shell.signal.addEventListener('abort', onAbort, { once: true })
    const target = Nodes.from(input, { ...shell, signal: late.signal })
    const source = new Nodes(
      parseNodes([from].flat().join(','), '--from'),
      target.timeoutMs,
      shell.signal,
      tls,
    )
    try {
      return await new Mirror(input, shell, source, target).run()
    } finally {
      shell.signal.removeEventListener('abort', onAbort)
      clearTimeout(timer)
      source.close()
      target.close()
    }
  },
}

class Mirror {
  private readonly input: Input
  private readonly shell: Shell
  private readonly source: Nodes
  private readonly target: Nodes
  private readonly wanted: readonly Glob[]
  private readonly once: boolean
  private readonly stop = new AbortController()
  /** By `stream/partition`. */
  private readonly parts = new Map<string, PartitionMirror>()
  /** What the source called them when they were found: one that is made anew under its name is another one. */
  private readonly ids = new Map<string, bigint>()
  private readonly running = new Set<Promise<void>>()
  private failure: unknown = null

  constructor(input: Input, shell: Shell, source: Nodes, target: Nodes) {
    this.input = input
    this.shell = shell
    this.source = source
    this.target = target
    const patterns = [input.options.streams ?? '*'].flat().flatMap(each => String(each).split(','))
    this.wanted = patterns.map(each => new Glob(toLatin1(fromUtf8(each))))
    this.once = input.options.once === true
  }

  async run(): Promise<number> {
    const startedMs = Date.now()
    const progress = new Progress(this.shell.stderr, 'mirror', 'records')
    const timer = setInterval(() => this.show(progress, startedMs), progressMs)
    const onAbort = () => this.stop.abort()
    this.shell.signal.addEventListener('abort', onAbort, { once: true })
    try {
      await this.look()
      if (this.parts.size === 0 && this.once)
        throw new RoundhouseError('NO_SUCH_STREAM', {
          stream: `${[this.input.options.streams ?? '*'].flat().join(', ')} (at the source)`,
        })
      if (this.once) await Promise.all(this.running)
      else await this.goOn()
      await Promise.all(this.running)
      if (this.failure !== null) throw this.failure
      this.show(progress, startedMs)
    } finally {
      clearInterval(timer)
      this.stop.abort()
      this.shell.signal.removeEventListener('abort', onAbort)
      progress.stop()
      await Promise.allSettled(this.running)
    }
    this.report()
    return exitCodes.done
  }

  /** Looks for streams that are new at the source, until told to end or something fails. */
  private async goOn(): Promise<void> {
    while (!this.stop.signal.aborted) {
      await pause(lookMs, this.stop.signal)
      if (this.stop.signal.aborted) return
      try {
        await this.look()
      } catch (error) {
        if (!isPassing(error)) throw error
      }
    }
  }

  private async look(): Promise<void> {
    const found = await this.streamsAtSource()
    const isPlainLog = found === null
    for (const stream of found ?? [plainLog]) {
      if (!this.wanted.some(glob => glob.matches(toLatin1(fromUtf8(stream.name))))) continue
      const known = this.ids.get(stream.name)
      if (known !== undefined && known !== stream.id)
        throw new RoundhouseError('MIRROR', {
          partition: stream.name,
          why: remadeText,
        })
      if (known !== undefined) continue
      await this.make(stream)
      this.ids.set(stream.name, stream.id)
      const ranges = {
        source: new StreamRanges(this.source, stream.name),
        target: new StreamRanges(this.target, stream.name),
      }
      for (let partition = 0; partition < stream.partitions; partition++)
        this.begin(stream, partition, isPlainLog, ranges)
    }
  }

  /** null: the source knows no streams, it is one log. */
  private async streamsAtSource(): Promise<readonly Stream[] | null> {
    return this.source.call(
      'read',
      (_, { streams }) =>
        new Promise((resolve, reject) => {
          const deadline = Date.now() + this.source.timeoutMs
          streams.list({}, new Metadata(), { deadline }, (error, answer) => {
            if (error === null) resolve(answer.streams)
            else if (error.code === status.UNIMPLEMENTED) resolve(null)
            else reject(unreached(this.source.address ?? '', error))
          })
        }),
    )
  }

  private async make(wish: Stream): Promise<void> {
    const request = {
      name: wish.name,
      partitions: wish.partitions,
      ifMissing: true,
      ...(wish.retentionMs === undefined ? {} : { retentionMs: wish.retentionMs }),
      ...(wish.retentionBytes === undefined ? {} : { retentionBytes: wish.retentionBytes }),
    }
    const { stream } = await this.target.call('write', (call, { streams }) =>
      call(streams.create.bind(streams), request),
    )
    if (stream !== undefined && stream.partitions !== wish.partitions)
      throw new RoundhouseError('MIRROR', {
        partition: wish.name,
        why: `it has ${stream.partitions} partitions here, ${wish.partitions} at the source`,
      })
  }

  private begin(
    { name: stream, id }: Stream,
    partition: number,
    isPlainLog: boolean,
    ranges: RangesOfBoth,
  ): void {
    if (this.parts.size >= partitionsMax)
      throw new UsageError([
        `more than ${partitionsMax} partitions: choose some of the streams with --streams`,
      ])
    const skipGaps = this.input.options['skip-gaps'] === true
    const wish = { stream, streamId: id, partition, once: this.once, skipGaps, isPlainLog }
    const mirror = new PartitionMirror(wish, this.source, this.target, ranges, this.stop.signal)
    this.parts.set(`${stream}/${partition}`, mirror)
    const run = mirror.run().catch((error: unknown) => {
      this.failure ??= error
      this.stop.abort()
    })
    this.running.add(run)
    void run.then(() => this.running.delete(run))
  }

  private show(progress: Progress, startedMs: number): void {
    const all = [...this.parts.values()].map(each => each.progress)
    const copied = sum(all.map(each => each.copied))
    const left = sum(all.map(each => Math.max(0, each.end - each.next)))
    const seconds = Math.max(0.001, (Date.now() - startedMs) / 1_000)
    const rate = `${Math.round(copied / seconds)}/s, ${bytesText(sum(all.map(each => each.bytes)))}`
    if (all.length > 0)
      progress.show({ done: copied, total: copied + left, detail: `${rate}, ${all.length} partitions` })
  }

  private report(): void {
    const parts = [...this.parts].map(([name, { progress }]) => ({ name, ...progress }))
    if (this.input.options.output === 'json') {
      printJson(
        this.shell.stdout,
        parts.map(({ name, copied, bytes, next, skipped }) => ({
          partition: name,
          copied,
          bytes,
          end: next,
          skipped,
        })),
      )
      return
    }
    const copied = sum(parts.map(each => each.copied))
    const skipped = sum(parts.map(each => each.skipped))
    this.shell.stdout.write(
      `${copied} records copied, ${this.ids.size} streams, ${parts.length} partitions${skipped === 0 ? '' : `, ${skipped} offsets skipped`}\n`,
    )
  }
}

/** What a log without streams is called here. */
const plainLog: Stream = { name: 'default', id: 0n, partitions: 1, createdMs: 0n }

const sum = (values: readonly number[]) => values.reduce((all, each) => all + each, 0)

function unreached(address: string, error: ServiceError): Error {
  return new RoundhouseError('UNREACHABLE', { address, why: `${status[error.code]}: ${error.details}` })
}
