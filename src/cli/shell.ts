/**
 * What every verb of the shell is and what it may touch. A verb describes itself as data: parsing, help, the hunt for
 * unknown options and the usage line are made from that description, so that they can't disagree.
 */
import { type ErrorCode, isError, RemoteError, RoundhouseError } from '../errors.ts'

/** The process around a verb; tests bring their own. */
export interface Shell {
  readonly stdin: Source
  readonly stdout: Output
  readonly stderr: Output
  readonly env: Readonly<Record<string, string | undefined>>
  /** Where `.env` is looked for; absent: the process's working directory. */
  readonly directory?: string
  /** Aborts when the verb shall end: Ctrl-C, SIGTERM, or the end of the supervisor's pipe. The reason is an Interrupted. */
  readonly signal: AbortSignal
  /** What starts this program again, to be followed by a verb: `[node, …, main.js]`. */
  readonly program: readonly string[]
  /** The listener sees the error that nobody caught, just before it ends the process with 1. */
  onFatal(listener: (error: unknown) => void): void
}

/** Where a verb may read from. */
export interface Source {
  /** A person types it. */
  readonly isTerminal: boolean
  /** null: whoever runs the verb reads it himself, as the prompt does. */
  readonly stream: NodeJS.ReadableStream | null
}

export interface Output {
  /** A person looks at it. */
  readonly isTerminal: boolean
  readonly columns: number
  /** For progress bars, which steer the cursor; null where there is no terminal. */
  readonly stream: NodeJS.WriteStream | null
  write(data: string | Uint8Array): void
  /** Resolves when the reader has room for more; absent: he always has. */
  drained?(): Promise<void>
}

export interface Verb {
  /** `['dev', 'start']` for `roundhouse dev start`. */
  readonly path: readonly string[]
  readonly summary: string
  /** Under which heading the list of verbs has it; `cluster` where it says nothing. */
  readonly group?: VerbGroup
  readonly positionals?: readonly Positional[]
  readonly options?: Readonly<Record<string, OptionSpec>>
  /** Command line after `roundhouse` and what it does. */
  readonly examples?: readonly (readonly [commandLine: string, meaning: string])[]
  /** Shown after the options. */
  readonly notes?: string
  /** True: `run` gets what is wrong with the options and reports it together with what it finds itself. */
  readonly collectsMistakes?: boolean
  /** Its failures say whether the write may have been applied. */
  readonly isWrite?: boolean
  /** Answers the exit code. */
  run(input: Input, shell: Shell): Promise<number>
}

/** Headings of the list of verbs, in its order. */
export const verbGroups = {
  data: 'Keys and values',
  streams: 'Streams',
  cluster: 'The cluster',
  node: 'Running nodes',
  tools: 'Tools',
} as const
export type VerbGroup = keyof typeof verbGroups

export interface Positional {
  readonly name: string
  readonly describe: string
  /** `many` takes any number and is the last. */
  readonly kind: 'required' | 'optional' | 'many'
  readonly choices?: readonly string[]
  /** For completion: what to offer here where there is no list of choices. */
  readonly offers?: 'files' | 'commands' | 'topics'
}

export interface OptionSpec {
  readonly describe: string
  readonly kind: 'text' | 'boolean' | 'list'
  readonly alias?: string
  readonly choices?: readonly string[]
  readonly fallback?: string
  /** A path. */
  readonly isFile?: boolean
  /** What people coming from elsewhere type instead: not accepted, but answered with this name. */
  readonly elsewhere?: readonly string[]
  /** Accepted, but not in the help: another name of an option that is. */
  readonly isHidden?: boolean
}

/** A command line that has been checked against its verb. */
export interface Input {
  readonly positionals: readonly string[]
  /** By name: text, boolean, or a list where an option was repeated; undefined where it was not given. */
  readonly options: Readonly<Record<string, unknown>>
  /** What is wrong with the command line; empty for verbs that don't ask for it (`collectsMistakes`). */
  readonly mistakes: readonly string[]
}

// --- Ends -----------------------------------------------------------------------------------------------------------

/** What they mean, for help. */
export const exitCodesText =
  '0 done · 1 failed or refused · 2 not understood · 75 try again, or the outcome is unknown (the text says which) · ' +
  '78 config check found mistakes · 130, 143 a signal ended it before it was done'

/** `badConfig` is what `config check` finds; a command line that is wrong, settings included, is `usage`. */
export const exitCodes = { done: 0, failed: 1, usage: 2, tryAgain: 75, badConfig: 78 } as const

/** A command line that can't be understood. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly mistakes: readonly string[]

  constructor(mistakes: readonly string[]) {
    super(mistakes.join('\n'))
    this.mistakes = mistakes
  }
}

/** The verb was told to end before it was done. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  /** As every shell has it: 128 and the number of the signal. */
  readonly exitCode: number

  constructor(signalNumber: number) {
    super('interrupted')
    this.exitCode = 128 + signalNumber
  }
}

const sigint = 2

/** Of a signal that has aborted. */
export function interrupted({ reason }: AbortSignal): Interrupted {
  return reason instanceof Interrupted ? reason : new Interrupted(sigint)
}

/**
 * 2 for what must be written differently, 75 for what may go better later or may have happened, 128 and more for a signal,
 * 1 for the rest.
 */
export function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode
  if (error instanceof UsageError || isError(error, 'CONFIG')) return exitCodes.usage
  if (!(error instanceof RoundhouseError || error instanceof RemoteError)) return exitCodes.failed
  // Exhausted as well, but the same request will never fit.
  if (error.code === 'REPLY_TOO_LARGE') return exitCodes.failed
  return error.kind === 'unavailable' || error.kind === 'outcome_unknown' || error.kind === 'exhausted'
    ? exitCodes.tryAgain
    : exitCodes.failed
}

/** Waits, and ends early when the verb shall end. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
  })
}

export interface ErrorReport {
  readonly error: {
    readonly code: ErrorCode | 'USAGE' | 'INTERRUPTED' | 'INTERNAL'
    readonly message: string
  }
  /** Of a write: `unknown` when it may have been applied, `not_applied` when it certainly was not. */
  readonly outcome?: 'unknown' | 'not_applied'
}

export function reportOf(error: unknown, isWrite: boolean): ErrorReport {
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof UsageError) return { error: { code: 'USAGE', message } }
  if (error instanceof Interrupted) return { error: { code: 'INTERRUPTED', message } }
  if (!(error instanceof RoundhouseError || error instanceof RemoteError)) {
    return { error: { code: 'INTERNAL', message } }
  }
  const report = { error: { code: error.code, message } }
  if (!isWrite) return report
  return { ...report, outcome: error.kind === 'outcome_unknown' ? 'unknown' : 'not_applied' }
}
