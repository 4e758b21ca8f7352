/**
 * A file of settings, as YAML, TOML, JSON or `.env`: from its bytes to a list of keys, values and lines. Which keys there
 * are is not known here. Whatever the bytes are, the answer is entries or mistakes that name file and line, never a throw.
 *
 * Settings are flat, so the file is: a key has a scalar or a list of scalars. That is also what keeps the parsers safe.
 * yaml descends the stack with each level of nesting and a few thousand levels end the process, so files that are large
 * or nested are refused before they are parsed.
 */
import { readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { parseEnv } from 'node:util'
import { parse as parseToml, TomlDate, TomlError } from 'smol-toml'
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'

export type FileFormat = 'env' | 'yaml' | 'toml' | 'json'

/**
 * `text` may stand for anything that a text can be parsed to: in YAML and .env the difference between `7` and `"7"` is
 * not the writer's. `nothing` is a key that is there with an empty value: not set.
 */
export type FileValue =
  | { readonly kind: 'text' | 'number' | 'boolean'; readonly text: string }
  | { readonly kind: 'list'; readonly items: readonly string[] }
  | { readonly kind: 'nothing' }
  | { readonly kind: 'other'; readonly what: string }

export interface FileEntry {
  /** As it is written in the file. */
  readonly key: string
  readonly value: FileValue
  /** From 1; null where the parser does not tell. */
  readonly line: number | null
}

export interface SettingsFile {
  readonly path: string
  readonly format: FileFormat
  readonly entries: readonly FileEntry[]
  /** What keeps the file from being read, each with its place. */
  readonly mistakes: readonly string[]
}

const fileBytesMax = 32 * 1024
/** Of `[` and `{` in a file: lists of IPv6 addresses have some. */
const bracketsMax = 200
/** Of `- `, `? ` and `: ` in a line, each of which can open a level. */
const levelsPerLineMax = 8
const tomlDepthMax = 16

const endings: Readonly<Record<string, FileFormat>> = {
  env: 'env',
  yaml: 'yaml',
  yml: 'yaml',
  toml: 'toml',
  json: 'json',
}
const acceptedEndings = '.yaml, .yml, .toml, .json or .env'

export function formatOf(path: string): FileFormat | null {
  const name = basename(path).toLowerCase()
  if (name.startsWith('.env')) return 'env'
  return endings[/\.([a-z]+)$/.exec(name)?.[1] ?? ''] ?? null
}

/** `conf.yaml:3`, or `conf.yaml` where the line is not known. */
export function placeOf(path: string, line: number | null): string {
  return line === null ? path : `${path}:${line}`
}

/** Reads the file; null when there is none and there need not be one. */
export function readSettingsFile(path: string, isOptional = false): SettingsFile | null {
  const broken = (why: string): SettingsFile => ({
    path,
    format: formatOf(path) ?? 'env',
    entries: [],
    mistakes: [`${path}: ${why}`],
  })
  try {
    const { size } = statSync(path)
    if (size > fileBytesMax) return broken(tooLarge)
    return parseSettingsFile(path, readFileSync(path))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (isOptional && code === 'ENOENT') return null
    return broken(reasons[code ?? ''] ?? `can't be read: ${(error as Error).message}`)
  }
}

const tooLarge = `larger than ${fileBytesMax / 1024} KiB: not a file of settings`
const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'a directory, not a file',
  EACCES: 'may not be read by this user',
}

export function parseSettingsFile(path: string, bytes: Uint8Array): SettingsFile {
  const format = formatOf(path)
  const broken = (why: string): SettingsFile => ({
    path,
    format: format ?? 'env',
    entries: [],
    mistakes: [`${path}: ${why}`],
  })
  if (format === null) return broken(`its ending does not tell what it is: accepted are ${acceptedEndings}`)
  if (bytes.byteLength > fileBytesMax) return broken(tooLarge)
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return broken('not UTF-8 text')
  }
  if (format !== 'env' && isNested(text)) return broken('nested too deep: settings are keys with values')
  const { entries, mistakes } = parsers[format](text)
  return {
    path,
    format,
    entries,
    mistakes: mistakes.map(({ line, why }) => `${placeOf(path, line)}: ${printable(why)}`),
  }
}

/** For messages: what a file holds must not steer a terminal. */
export function printable(text: string, charsMax = 200): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ')
  return clean.length > charsMax ? `${clean.slice(0, charsMax)}…` : clean
}

function isNested(text: string): boolean {
  if ((text.match(/[[{]/g) ?? []).length > bracketsMax) return true
  return text
    .split(/[\r\n]/)
    .some(line => (line.replace(/(^|\s)#.*/, '').match(/[-?:](?=\s)/g) ?? []).length > levelsPerLineMax)
}

interface Mistake {
  readonly line: number | null
  readonly why: string
  readonly isDuplicate?: boolean
}

interface Parsed {
  readonly entries: readonly FileEntry[]
  readonly mistakes: readonly Mistake[]
}

const parsers: Readonly<Record<FileFormat, (text: string) => Parsed>> = {
  env: parseDotenv,
  yaml: parseYaml,
  toml: parseTomlText,
  json: parseJson,
}

// --- .env -----------------------------------------------------------------------------------------------------------

const assignment = /^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*(.*)$/

/**
 * Node's own parser says what a value is. It is given one assignment at a time: a line that is none would take the rest
 * of the file with it, silently.
 */
function parseDotenv(text: string): Parsed {
  const lines = text.split(/\r\n|\n|\r/)
  const entries = new Map<string, FileEntry>()
  const mistakes: { line: number; why: string }[] = []
  for (let at = 0; at < lines.length; at++) {
    const line = at + 1
    const written = lines[at]!
    if (/^\s*(#|$)/.test(written)) continue
    const match = assignment.exec(written)
    if (match === null) {
      mistakes.push({ line, why: `${JSON.stringify(printable(written, 40))} is not NAME=value` })
      continue
    }
    const [, key, value] = match as unknown as [string, string, string]
    const quote = /^["'`]/.exec(value)?.[0]
    let assigned = `${key}=${value}`
    if (quote !== undefined && !value.slice(1).includes(quote)) {
      // The value goes on to the line that has the closing quote.
      const end = lines.findIndex((each, place) => place > at && each.includes(quote))
      if (end === -1) {
        mistakes.push({ line, why: `${key}: the quote ${quote} is not closed` })
        continue
      }
      assigned = [assigned, ...lines.slice(at + 1, end + 1)].join('\n')
      at = end
    }
    const parsed = parseEnv(assigned)[key] ?? ''
    // As in a shell, the last assignment counts.
    entries.set(key, { key, line, value: textValue(parsed) })
  }
  return { entries: [...entries.values()], mistakes }
}

const textValue = (text: string): FileValue => (text === '' ? { kind: 'nothing' } : { kind: 'text', text })

// --- YAML -----------------------------------------------------------------------------------------------------------

/** Scalars stay as they are written: `zone: 1.10` is not 1.1, and `node_id: no` is not false. */
function parseYaml(text: string): Parsed {
  const lineCounter = new LineCounter()
  const lineAt = (offset: number | undefined) =>
    offset === undefined ? null : lineCounter.linePos(offset).line
  try {
    const document = parseDocument(text, {
      schema: 'failsafe',
      stringKeys: true,
      prettyErrors: false,
      logLevel: 'error',
      lineCounter,
    })
    const mistakes = document.errors.map(({ pos, message, code }) =>
      code === 'DUPLICATE_KEY'
        ? { line: lineAt(pos[0]), why: 'this key is there already', isDuplicate: true }
        : { line: lineAt(pos[0]), why: `not YAML: ${message}` },
    )
    // What can't be parsed has no keys worth complaining about; a key that is there twice has.
    if (document.errors.some(error => error.code !== 'DUPLICATE_KEY')) return { entries: [], mistakes }
    const { contents } = document
    if (contents === null || (isScalar(contents) && isNull(contents))) return { entries: [], mistakes }
    if (!isMap(contents)) {
      const line = lineAt(contents.range[0])
      return { entries: [], mistakes: [...mistakes, { line, why: `not settings: ${shape}` }] }
    }
    const readNode = (node: unknown): FileValue => {
      if (isAlias(node)) return { kind: 'other', what: 'an alias' }
      if (isSeq(node)) return listOf(node.items.map(readNode))
      if (isMap(node)) return { kind: 'other', what: 'a table' }
      if (node === null || (isScalar(node) && isNull(node))) return { kind: 'nothing' }
      return isScalar(node) ? textValue(String(node.value)) : { kind: 'other', what: 'not a scalar' }
    }
    const entries = contents.items.map(({ key, value }): FileEntry => {
      const line = isScalar(key) ? lineAt(key.range?.[0]) : null
      return { key: isScalar(key) ? String(key.value) : '', value: readNode(value), line }
    })
    return { entries, mistakes }
  } catch (error) {
    return { entries: [], mistakes: [{ line: null, why: `not YAML: ${(error as Error).message}` }] }
  }
}

const shape = 'the file must be keys with values'

function isNull(scalar: { readonly value: unknown; readonly type?: string | undefined }): boolean {
  return (
    scalar.value === null || (scalar.type === 'PLAIN' && /^(~|null|Null|NULL|)$/.test(String(scalar.value)))
  )
}

function listOf(items: readonly FileValue[]): FileValue {
  if (items.length === 0) return { kind: 'nothing' }
  const texts = items.map(item => (item.kind === 'text' ? item.text : null))
  return texts.every(each => each !== null)
    ? { kind: 'list', items: texts }
    : { kind: 'other', what: 'a list of other things than texts' }
}

// --- JSON and TOML --------------------------------------------------------------------------------------------------

function parseJson(text: string): Parsed {
  let root: unknown
  try {
    root = JSON.parse(text)
  } catch (error) {
    const { message } = error as Error
    const position = /position (\d+)/.exec(message)?.[1]
    const line = position === undefined ? null : text.slice(0, Number(position)).split('\n').length
    return { entries: [], mistakes: [{ line, why: `not JSON: ${message}` }] }
  }
  if (typeof root !== 'object' || root === null || Array.isArray(root))
    return { entries: [], mistakes: [{ line: null, why: `not settings: ${shape}` }] }
  // JSON is YAML too, and the YAML parser tells lines, and keys that are there twice.
  const { entries, mistakes } = parseYaml(text)
  const lines = new Map(entries.map(({ key, line }) => [key, line]))
  return {
    entries: Object.entries(root).map(([key, value]) => ({
      key,
      value: valueOfScript(value),
      line: lines.get(key) ?? null,
    })),
    mistakes: mistakes.filter(({ isDuplicate }) => isDuplicate === true),
  }
}

function parseTomlText(text: string): Parsed {
  try {
    const root = parseToml(text, { maxDepth: tomlDepthMax, unsafeKeyBehaviour: 'keep' })
    return {
      entries: Object.entries(root).map(([key, value]) => ({
        key,
        value: valueOfScript(value),
        line: tomlLineOf(text, key),
      })),
      mistakes: [],
    }
  } catch (error) {
    const why = (error as Error).message.split('\n')[0]!.replace(/^Invalid TOML document: /, '')
    const line = error instanceof TomlError ? error.line : null
    return { entries: [], mistakes: [{ line, why: `not TOML: ${why}` }] }
  }
}

/** The parser does not tell where a key stood. A line that alone begins with it is where. */
function tomlLineOf(text: string, key: string): number | null {
  const begins = (line: string) => {
    const match = /^\s*(?:\[+|(?=[^[]))\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*[=.\]]/.exec(line)
    return (match?.[1] ?? match?.[2] ?? match?.[3]) === key
  }
  const lines = text.split('\n')
  const first = lines.findIndex(begins)
  return first === -1 || lines.findLastIndex(begins) !== first ? null : first + 1
}

function valueOfScript(value: unknown): FileValue {
  switch (typeof value) {
    case 'string':
      return textValue(value)
    case 'number':
    case 'bigint':
      return { kind: 'number', text: String(value) }
    case 'boolean':
      return { kind: 'boolean', text: String(value) }
  }
  if (value === null || value === undefined) return { kind: 'nothing' }
  if (Array.isArray(value)) return listOf(value.map(valueOfScript))
  return { kind: 'other', what: value instanceof TomlDate ? 'a date' : 'a table' }
}
