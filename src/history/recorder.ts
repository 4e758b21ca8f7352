/**
 * Records what clients see, as it happens. Each call is written before it is sent: a recorder that dies takes no call
 * with it that anybody could have seen the effect of.
 *
 *   const recorder = new Recorder({ model: 'kv', about: 'seed 7', now: () => clock.now(), write: line => file.write(line) })
 *   const call = recorder.invoke('c3', 'set', 'k1', ['v'])
 *   … call.ok() or call.fail('NOT_LEADER') or call.unknown('no answer')
 */
import type { HistoryEvent } from './event.ts'
import { eventLine, headerLine } from './json-lines.ts'
import type { Value } from './operation.ts'

export interface RecorderOptions {
  /** The model that the functions and values belong to. */
  readonly model: string | null
  readonly about: string | null
  /** Milliseconds since an arbitrary start, never going back. */
  readonly now: () => number
  /** Gets whole lines with their line breaks, in order. */
  readonly write: (line: string) => void
}

/** One call; exactly one of these ends it. */
export interface RecordedCall {
  /** `value` undefined: the answer says no more than that it was done. */
  ok(value?: Value): void
  /** It certainly had no effect. */
  fail(error: string): void
  /** It may have taken effect, or do so later. */
  unknown(error: string): void
}

export class Recorder {
  private readonly options: RecorderOptions

  constructor(options: RecorderOptions) {
    this.options = options
    options.write(headerLine(options))
  }

  /** A process has one call at a time; it may call again when that has ended, however it did. */
  invoke(process: string, f: string, key: string, args: readonly Value[] = []): RecordedCall {
    const { now, write } = this.options
    const put = (event: HistoryEvent, error?: string) => write(eventLine(event, error))
    put({ type: 'invoke', process, f, key, args, timeMs: now() })
    return {
      ok: value => put({ type: 'ok', process, value, timeMs: now() }),
      fail: error => put({ type: 'fail', process, timeMs: now() }, error),
      unknown: error => put({ type: 'info', process, timeMs: now() }, error),
    }
  }
}
