/**
 * Logs as a port. One line is one event that an operator cares about; its facts are fields, never words inside the
 * message, so that a line can be searched for. pino stays inside this file.
 */
import { type Logger as Pino, pino, stdSerializers } from 'pino'
import pretty from 'pino-pretty'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

/** Facts of an event. An Error belongs under `error`: its code, message and stack are written. */
export type LogFields = Readonly<Record<string, unknown>>

export interface Logger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
  /** A logger whose every line carries `fields` too. */
  child(fields: LogFields): Logger
}

/** The logger of a process: whoever ends the process flushes it first. */
export interface RootLogger extends Logger {
  /** Resolves when all that was logged is written, in its order; or after a second, where nobody takes it. */
  flush(): Promise<void>
}

const flushMsMax = 1_000

export interface LoggerOptions {
  readonly level: LogLevel
  /** For a person at a terminal instead of one JSON object a line. */
  readonly pretty: boolean
  /** With `pretty`; the default is none. */
  readonly colors?: boolean
  /** Write each line before returning: for last words. A node at work must not wait for whoever reads its log. */
  readonly sync?: boolean
  /** File descriptor. */
  readonly descriptor?: number
}

export function createLogger({
  level,
  pretty: isPretty,
  colors = false,
  sync = false,
  descriptor = 1,
}: LoggerOptions): RootLogger {
  const options = {
    level,
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { error: stdSerializers.err },
  }
  if (isPretty) {
    const stream = pretty({
      destination: descriptor,
      sync: true,
      colorize: colors,
      translateTime: 'SYS:HH:MM:ss.l',
      singleLine: true,
      errorLikeObjectKeys: ['error'],
    })
    return { ...adapt(pino(options, stream)), flush: () => Promise.resolve() }
  }
  // A length of 1, not 0, is written as soon as the one before is out; with 0 flush would not wait.
  const destination = pino.destination({ dest: descriptor, sync, minLength: sync ? 0 : 1 })
  const flush = () =>
    new Promise<void>(resolve => {
      const timer = setTimeout(resolve, flushMsMax)
      // Not flushSync: it would overtake the line that is just being written.
      destination.flush(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  return { ...adapt(pino(options, destination)), flush: sync ? () => Promise.resolve() : flush }
}

function adapt(target: Pino): Logger {
  return {
    debug: (message, fields) => target.debug(fields ?? {}, message),
    info: (message, fields) => target.info(fields ?? {}, message),
    warn: (message, fields) => target.warn(fields ?? {}, message),
    error: (message, fields) => target.error(fields ?? {}, message),
    child: fields => adapt(target.child(fields)),
  }
}

const nothing = () => {}
/** For tests and simulations. */
export const silentLogger: RootLogger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => silentLogger,
  flush: () => Promise.resolve(),
}
