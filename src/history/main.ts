/**
 * `npm run check-history -- FILE --model register|kv`. The verdict is the exit status: 0 linearizable, 1 NOT, 75 unknown
 * (time or memory ended first); 2 is a command line or a file that can't be understood, 70 a fault of the checker, so
 * that nothing else can be taken for a verdict.
 */
import { createReadStream } from 'node:fs'
import { getSystemErrorMap } from 'node:util'
import yargs from 'yargs'
import { check, type Figures, type Progress, type Verdict } from './check.ts'
import { HistoryError } from './event.ts'
import type { Operation } from './operation.ts'
import { type Format, formats, type History, type ModelName, models, readHistory } from './read-history.ts'
import { windowText } from './window-text.ts'

const exitCodes = { linearizable: 0, 'not-linearizable': 1, usage: 2, fault: 70, unknown: 75 } as const

const usage = 'check-history FILE --model register|kv'
const columns = () => Math.min(process.stdout.columns ?? 110, 160)

class UsageError extends Error {}

interface Asked {
  readonly file: string
  readonly format: Format | null
  readonly model: ModelName | null
  readonly timeoutMs: number
  readonly bytesMax: number
  readonly isJson: boolean
}

/** Null when only help was wanted, which is printed then. */
function askedOf(args: readonly string[]): Asked | null {
  const parser = yargs()
    .scriptName('check-history')
    .usage(
      `Usage: ${usage}\n\nTells whether a recorded history is linearizable. FILE may be - for standard input.`,
    )
    .parserConfiguration({ 'camel-case-expansion': false, 'boolean-negation': false, 'parse-numbers': false })
    .options({
      model: {
        type: 'string',
        requiresArg: true,
        choices: models,
        describe: 'What the store should be',
        defaultDescription: 'what the file says',
      },
      format: {
        type: 'string',
        requiresArg: true,
        choices: ['auto', ...formats],
        default: 'auto',
        describe: 'How the file is written',
      },
      timeout: {
        type: 'string',
        requiresArg: true,
        default: '60s',
        describe: 'Give up after: 500ms, 60s, 10m, 1h',
      },
      memory: {
        type: 'string',
        requiresArg: true,
        default: '1GiB',
        describe: 'Give up when the search takes more: 64MiB, 1GiB',
      },
      output: {
        alias: 'o',
        type: 'string',
        requiresArg: true,
        choices: ['text', 'json'],
        default: 'text',
        describe: 'For people or for tools',
      },
    })
    .epilog(
      'Exit status: 0 linearizable, 1 NOT linearizable, 75 unknown (time or memory ended first),\n2 command line or file not understood, 70 a fault of the checker.',
    )
    .exitProcess(false)
    .version(false)
    .help('help')
    .alias('help', 'h')
    .strictOptions()
    .wrap(columns())
  let failure: string | null = null
  let help = ''
  const parsed = parser.parse([...args], {}, (error, _parsed, text) => {
    if (error !== null && error !== undefined) failure = error.message
    help = text
  }) as Record<string, unknown> & { _: unknown[] }
  if (failure !== null) throw new UsageError(failure)
  if (help !== '') {
    process.stdout.write(`${help}\n`)
    return null
  }
  const repeated = Object.entries(parsed).find(([name, value]) => name !== '_' && Array.isArray(value))
  if (repeated !== undefined) throw new UsageError(`--${repeated[0]} is given more than once`)
  if (parsed._.length !== 1) throw new UsageError(`one FILE is needed, ${parsed._.length} are given`)
  return {
    file: String(parsed._[0]),
    format: parsed.format === 'auto' ? null : (parsed.format as Format),
    model: (parsed.model ?? null) as ModelName | null,
    timeoutMs: amountOf('timeout', String(parsed.timeout), { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }),
    bytesMax: amountOf('memory', String(parsed.memory), { MiB: 2 ** 20, GiB: 2 ** 30 }),
    isJson: parsed.output === 'json',
  }
}

function amountOf(name: string, text: string, units: Readonly<Record<string, number>>): number {
  const [, digits, unit] = /^(\d{1,9})([A-Za-z]+)$/.exec(text) ?? []
  const factor = unit !== undefined && Object.hasOwn(units, unit) ? units[unit]! : 0
  const amount = Number(digits) * factor
  if (amount > 0) return amount
  throw new UsageError(
    `--${name}: ${JSON.stringify(text)}: accepted is a positive integer with ${Object.keys(units).join(', ')}`,
  )
}

async function readFile({ file, format, model }: Asked): Promise<History> {
  try {
    return await readHistory(file === '-' ? process.stdin : createReadStream(file), { format, model })
  } catch (error) {
    if (error instanceof HistoryError) throw new UsageError(`${file}: ${error.message}`)
    const { errno, code } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    throw new UsageError(
      `${file}: ${code}: ${errno === undefined ? '' : (getSystemErrorMap().get(errno)?.[1] ?? '')}`,
    )
  }
}

// --- Output -----------------------------------------------------------------------------------------------------------

const quietMs = 1_000

function showProgress({ phase, key, keysDone, keys, configurations, bytes, elapsedMs }: Progress): void {
  if (elapsedMs < quietMs) return
  const where = keys === 1 ? '' : `, key ${JSON.stringify(key)}, ${keysDone} of ${keys} keys done`
  const text = `${phase}: ${seconds(elapsedMs)} s${where}, ${configurations} configurations, ${Math.round(bytes / 2 ** 20)} MiB`
  process.stderr.write(`\r\x1b[K${text.slice(0, (process.stderr.columns ?? 80) - 1)}`)
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(ms < 10_000 ? 2 : 0)
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

function figuresText({ operations, unknown, keys, configurations, elapsedMs }: Figures): string {
  return (
    `${count(operations, 'operation')} on ${count(keys, 'key')}, ${unknown} of unknown outcome; ` +
    `${count(configurations, 'configuration')}, ${seconds(elapsedMs)} s`
  )
}

function textOf(verdict: Verdict): string[] {
  switch (verdict.kind) {
    case 'linearizable':
      return [`linearizable: ${figuresText(verdict.figures)}`]
    case 'unknown': {
      const { why, undecided, figures } = verdict
      const shown = undecided.slice(0, 5).map(each => JSON.stringify(each))
      return [
        `unknown: ${why === 'time' ? 'time ended (--timeout)' : 'memory ended (--memory)'}: ${figuresText(figures)}`,
        ...(figures.keys === 1
          ? []
          : [
              `${figures.keys - undecided.length} keys are linearizable; not decided: ${shown.join(', ')}${undecided.length > 5 ? ', …' : ''}`,
            ]),
      ]
    }
    case 'not-linearizable':
      return [
        `NOT linearizable: ${figuresText(verdict.figures)}`,
        '',
        ...windowText(verdict.window, columns()),
      ]
  }
}

function jsonOf(file: string, history: History, verdict: Verdict): object {
  const { figures } = verdict
  return {
    verdict: verdict.kind,
    file,
    format: history.format,
    model: history.model.name,
    operations: figures.operations,
    unknown_outcomes: figures.unknown,
    keys: figures.keys,
    configurations: figures.configurations,
    seconds: figures.elapsedMs / 1000,
    ...(verdict.kind === 'unknown' ? { why: verdict.why, undecided_keys: verdict.undecided } : {}),
    ...(verdict.kind === 'not-linearizable'
      ? {
          window: {
            key: verdict.window.key,
            start_line: verdict.window.startsAt,
            is_smallest: verdict.window.isSmallest,
            operations: verdict.window.operations.map(operationJson),
          },
        }
      : {}),
  }
}

function operationJson(operation: Operation): object {
  const { process, f, args, result, calledAt, returnedAt, calledMs, returnedMs } = operation
  return {
    process,
    f,
    args,
    ...(result === undefined ? {} : { value: result }),
    call_line: calledAt,
    // A window has answered operations only, so there is a line.
    return_line: returnedAt,
    ...(calledMs === null ? {} : { call_ms: calledMs, return_ms: returnedMs }),
  }
}

// --- Main -------------------------------------------------------------------------------------------------------------

async function main(args: readonly string[]): Promise<number> {
  const asked = askedOf(args)
  if (asked === null) return 0
  const history = await readFile(asked)
  const isWatched = process.stderr.isTTY === true
  const verdict = check(history.operations, history.model, {
    timeoutMs: asked.timeoutMs,
    bytesMax: asked.bytesMax,
    ...(isWatched ? { onProgress: showProgress } : {}),
  })
  if (isWatched && verdict.figures.elapsedMs >= quietMs) process.stderr.write('\r\x1b[K')
  const text = asked.isJson
    ? JSON.stringify(jsonOf(asked.file, history, verdict))
    : textOf(verdict).join('\n')
  process.stdout.write(`${text}\n`)
  return exitCodes[verdict.kind]
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})
process.on('uncaughtException', error => {
  process.stderr.write(`fault: ${error.stack ?? error.message}\n`)
  process.exit(exitCodes.fault)
})
try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  process.stderr.write(`error: ${error.message}\nusage: ${usage}   (--help tells the rest)\n`)
  process.exitCode = exitCodes.usage
}
