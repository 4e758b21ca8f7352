/**
 * `watch KEY` or `watch --prefix P`: changes of keys as they are committed. A call that breaks off is taken up where it
 * was, through another node; whoever ends it is told the cursor to go on from. Where that skips changes, as after COMPACTED,
 * it is never told without the error; why the message with that cursor may not come, see client/watch.ts.
 */
import type { ServiceError } from '@grpc/grpc-js'
import { compactedText, type ReceivedChange, WatchState } from '../client/watch-state.ts'
import { RemoteError } from '../errors.ts'
import { WatchClient, WatchRequest, type WatchResponse } from '../gen/roundhouse/v1/watch.ts'
import { cursorText, parseCursor, type WatchCursor } from '../lib/watch-cursor.ts'
import { type Colors, colorsFor } from './colors.ts'
import { type Connection, connectionOptions, type Nodes, outputOption } from './connection.ts'
import { isPassing } from './group-consumer.ts'
import { jsonOf, printJson, quoted } from './print.ts'
import { errorOf } from './remote-error.ts'
import { type Input, type Shell, UsageError, type Verb } from './shell.ts'
import { integerOf, timeText, withNodes } from './streams.ts'

/** A call that was open for so long had begun well. */
const openMsMin = 1_000

export const watchVerb: Verb = {
  path: ['watch'],
  summary: 'Print changes of a key, or of all keys with a prefix, as they come',
  group: 'data',
  positionals: [{ name: 'key', kind: 'optional', describe: 'Only this one' }],
  options: {
    prefix: {
      kind: 'text',
      alias: 'p',
      describe: "All keys that begin so; '' for all keys",
      elsewhere: ['match', 'pattern'],
    },
    from: {
      kind: 'text',
      describe: 'Go on after this cursor, as an earlier watch told it; by default what comes from now on',
      elsewhere: ['rev', 'revision', 'cursor', 'since', 'offset'],
    },
    max: { kind: 'text', describe: 'End after so many changes', elsewhere: ['limit', 'count'] },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['watch user:1', 'what happens to a key, until Ctrl-C'],
    ['watch --prefix user: -o json', 'one JSON object a line'],
    ['watch --prefix user: --from 0:12,1:9', 'from where an earlier one ended'],
  ],
  notes:
    'Changes of one shard come in their order; those of different shards have no order among each other. Ctrl-C ends with the\n' +
    'cursor to go on from (-o json: as the last line). Nodes keep the last changes of each shard, in memory: a cursor that is\n' +
    'too old ends the watch as COMPACTED, with the cursor to begin anew from.',
  run: (input, shell) => withNodes(input, shell, nodes => new Watching(input, shell, nodes).run()),
}

class Watching {
  private readonly shell: Shell
  private readonly nodes: Nodes
  private readonly colors: Colors
  private readonly target: NonNullable<WatchRequest['target']>
  private state: WatchState
  private readonly max: number
  private readonly isJson: boolean
  private printed = 0
  /** Of what was printed; after COMPACTED where to begin anew. */
  private places: WatchCursor
  /** A node went on from the cursor that was given: it is one. */
  private isTaken = false
  /** What ended it as COMPACTED while the message with the cursor did not come; a watch begun anew tells one. */
  private overtaken: RemoteError | null = null

  constructor(input: Input, shell: Shell, nodes: Nodes) {
    const [key] = input.positionals
    const { prefix, from, max, output } = input.options
    if ((key === undefined) === (prefix === undefined))
      throw new UsageError(['a key or --prefix is needed, and not both'])
    this.target =
      key === undefined
        ? { $case: 'prefix', value: Buffer.from(String(prefix)) }
        : { $case: 'key', value: Buffer.from(key) }
    const cursor = from === undefined ? null : parseCursor(String(from))
    if (from !== undefined && cursor === null)
      throw new UsageError([`--from: ${JSON.stringify(from)} is no cursor, such as 0:12,1:9`])
    this.shell = shell
    this.nodes = nodes
    this.colors = colorsFor(shell.stdout, shell.env)
    this.state = new WatchState(cursor)
    this.places = this.state.cursor
    this.isJson = output === 'json'
    this.max =
      max === undefined ? Number.POSITIVE_INFINITY : integerOf(max, '--max', 1, Number.MAX_SAFE_INTEGER)
  }

  async run(): Promise<void> {
    let failure: unknown = null
    try {
      while (!this.isDone) await this.nodes.call('read', (_, connection) => this.attempt(connection))
    } catch (error) {
      // With the new cursor goes that it skips changes, whoever pressed Ctrl-C meanwhile.
      if (this.shell.signal.aborted && !isCompacted(error)) return
      failure = error
      throw error
    } finally {
      // Nothing goes on from a cursor that was refused.
      if (failure === null || this.isTaken || isCompacted(failure)) this.tellCursor()
    }
  }

  private get isDone(): boolean {
    return this.shell.signal.aborted || this.printed >= this.max
  }

  /** Resolves when it is over, or when what came before a break was worth another attempt. */
  private async attempt(connection: Connection): Promise<void> {
    const startedMs = Date.now()
    const before = this.printed
    let failure: unknown = null
    try {
      await this.follow(connection)
    } catch (error) {
      failure = error
    }
    // Also where the call broke off between the message and its status: from the new cursor on there is a gap.
    if (this.state.isCompacted)
      throw isCompacted(failure) ? failure : new RemoteError('COMPACTED', compactedText)
    if (this.overtaken !== null && this.state.isCreated) {
      this.places = this.state.cursor
      throw this.overtaken
    }
    if (isCompacted(failure)) {
      this.overtaken = failure
      this.state = new WatchState(null)
      return
    }
    const wasWell = this.printed > before || Date.now() - startedMs > openMsMin
    if (failure !== null && !(wasWell && isPassing(failure))) throw failure
  }

  private async follow({ address, channel }: Connection): Promise<void> {
    const { signal } = this.shell
    const client = new WatchClient(address, this.nodes.credentials, { channelOverride: channel })
    const call = client.watch(
      WatchRequest.fromPartial({ target: this.target, cursor: this.state.asked, values: true }),
    )
    const cancel = () => void setImmediate(() => call.cancel())
    signal.addEventListener('abort', cancel, { once: true })
    if (signal.aborted) cancel()
    try {
      for await (const message of call as AsyncIterable<WatchResponse>) {
        const changes = this.state.take(message)
        if (this.overtaken !== null) {
          if (this.state.isCreated) return
          continue
        }
        this.isTaken = true
        if (changes.length === 0) this.places = this.state.cursor
        for (const change of changes) {
          if (this.isDone) return
          this.print(change)
        }
        await this.shell.stdout.drained?.()
        if (this.isDone) return
      }
    } catch (error) {
      if (signal.aborted) return
      throw errorOf(error as ServiceError, address, this.nodes.timeoutMs)
    } finally {
      this.state.broken()
      signal.removeEventListener('abort', cancel)
      cancel()
    }
  }

  private print({ shard, index, number, kind, key, type, timestampMs, value, place }: ReceivedChange): void {
    this.printed++
    if (place !== null) this.places = { ...this.places, [shard]: place }
    const { stdout } = this.shell
    if (this.isJson) {
      printJson(stdout, {
        ...{ kind, key: jsonOf(key), type },
        ...(value === null ? {} : { value: jsonOf(value) }),
        ...{ revision: index, number, shard, timestamp: timeText(timestampMs) },
      })
      return
    }
    const what = value !== null ? ` ${quoted(value)}` : type === 'string' ? '' : ` (${type})`
    const verb = kind === 'set' ? this.colors.green('set   ') : this.colors.red(kind.padEnd(6))
    stdout.write(`${this.colors.dim(timeText(timestampMs))}  ${verb}  ${quoted(key)}${what}\n`)
  }

  private tellCursor(): void {
    const text = cursorText(Object.entries(this.places).map(([shard, place]) => [Number(shard), place]))
    if (text === '') return
    if (this.isJson) printJson(this.shell.stdout, { cursor: text })
    else this.shell.stderr.write(`go on from here: --from ${text}\n`)
  }
}

function isCompacted(error: unknown): error is RemoteError {
  return error instanceof RemoteError && error.code === 'COMPACTED'
}
