/**
 * From bytes to operations, line by line: memory is that of the operations, not of the file. The format is told by the
 * first line that says something.
 */

import { parseEdn } from './edn.ts'
import { HistoryBuilder, HistoryError } from './event.ts'
import { eventOf } from './jepsen.ts'
import { parseJepsenLog } from './jepsen-log.ts'
import { parseEvent, parseHeader } from './json-lines.ts'
import { kvModel } from './kv-model.ts'
import type { Model } from './model.ts'
import type { Operation, Value } from './operation.ts'
import { registerModel } from './register-model.ts'

export const formats = ['jepsen-log', 'edn', 'json'] as const
export type Format = (typeof formats)[number]
export const models = ['register', 'kv'] as const
export type ModelName = (typeof models)[number]

/** A line of more characters is refused. */
export const lineCharactersMax = 16 * 2 ** 20

export interface ReadOptions {
  /** Null: told by the first line. */
  readonly format: Format | null
  /** Null: what the history says itself, in its header. */
  readonly model: ModelName | null
}

export interface History {
  readonly format: Format
  readonly model: Model
  /** Those that failed are left out. */
  readonly operations: Operation[]
}

/** A line that can't be taken; the message begins with its number. */
export class LineError extends HistoryError {
  readonly line: number

  constructor(line: number, what: string) {
    super(`line ${line}: ${what}`)
    this.line = line
  }
}

/** Throws LineError, or HistoryError for what is wrong with the whole. */
export async function readHistory(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: ReadOptions,
): Promise<History> {
  const reader = new HistoryReader(options)
  for await (const lines of linesOf(chunks)) {
    for (const { text, number, isCutOff } of lines) {
      try {
        reader.line(text, number, isCutOff)
      } catch (error) {
        throw error instanceof HistoryError ? new LineError(number, error.message) : error
      }
    }
  }
  return reader.end()
}

class HistoryReader {
  private readonly options: ReadOptions
  private format: Format | null
  private model: Model | null = null
  private builder: HistoryBuilder | null = null

  constructor(options: ReadOptions) {
    this.options = options
    this.format = options.format
  }

  line(text: string, number: number, isCutOff: boolean): void {
    if (text.trim() === '') return
    this.format ??= formatOf(text)
    if (this.builder === null) {
      // The first line of our own format is its header.
      const named = this.format === 'json' ? parseHeader(text).model : null
      this.model = modelOf(this.options.model ?? known(named), this.format)
      this.builder = new HistoryBuilder(this.model)
      if (this.format === 'json') return
    }
    const { builder } = this
    if (this.format === 'json') {
      // Cut off by a crash of the recorder: what it would have said is unknown, as what comes after it is.
      if (!isCutOff || isJson(text)) builder.add(parseEvent(text), number)
      return
    }
    const line = this.format === 'edn' ? parseEdn(text) : parseJepsenLog(text)
    if (line !== null) builder.add(eventOf(line, builder.openCall(line.process)), number)
  }

  end(): History {
    if (this.builder === null) throw new HistoryError('the history is empty: at least one line is needed')
    return { format: this.format!, model: this.model!, operations: this.builder.operations() }
  }
}

function formatOf(text: string): Format {
  if (/^\s*\{\s*:/.test(text)) return 'edn'
  if (/^\s*\{/.test(text)) return 'json'
  if (/^[A-Z]+\s+\S+\s+-\s/.test(text)) return 'jepsen-log'
  throw new HistoryError(
    'no known format: accepted are a Jepsen log (INFO  jepsen.util - 0 :invoke :read nil), EDN ({:process 0, …}) and JSON ({"format":"roundhouse-history",…})',
  )
}

function known(name: string | null): ModelName {
  const found = models.find(each => each === name)
  if (found !== undefined) return found
  throw new HistoryError(
    name === null
      ? `the history names no model: say which it is, ${models.join(' or ')}`
      : `model ${JSON.stringify(name)}: accepted are ${models.join(', ')}`,
  )
}

function modelOf(name: ModelName, format: Format): Model {
  // The EDN key-value histories are of stores that answer the empty string for what is missing.
  const absent: Value = name === 'kv' && format === 'edn' ? '' : null
  return name === 'kv' ? kvModel(absent) : registerModel(absent)
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

interface Line {
  readonly text: string
  /** From 1. */
  readonly number: number
  /** The last one, without a line break. */
  readonly isCutOff: boolean
}

/** The lines that each chunk completes. */
async function* linesOf(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<Line[]> {
  const decoder = new TextDecoder()
  let rest = ''
  let number = 0
  for await (const chunk of chunks) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = parts.pop()!
    yield parts.map(text => ({
      text: text.endsWith('\r') ? text.slice(0, -1) : text,
      number: ++number,
      isCutOff: false,
    }))
    if (rest.length > lineCharactersMax) {
      throw new LineError(
        number + 1,
        `longer than ${lineCharactersMax} characters: accepted is one event a line`,
      )
    }
  }
  rest += decoder.decode()
  if (rest !== '') yield [{ text: rest, number: number + 1, isCutOff: true }]
}
