/**
 * Jepsen's history.edn, a map a line:
 *
 *   {:process 9, :type :invoke, :f :append, :key "0", :value "x 9 0 y"}
 *
 * `:key` may be missing where there is one object. `:time` (nanoseconds), `:index` and `:error` are understood, other
 * keys passed over. Values are strings, integers, nil, true, false, keywords, and vectors of two of these.
 */
import { HistoryError } from './event.ts'
import type { JepsenLine, JepsenValue } from './jepsen.ts'
import type { Value } from './operation.ts'

const accepted =
  '{:process INTEGER, :type :invoke|:ok|:fail|:info, :f :FUNCTION, :key KEY, :value VALUE|[VALUE VALUE]|nil}'

type Edn =
  | { readonly kind: 'scalar'; readonly value: Value }
  | { readonly kind: 'keyword'; readonly name: string }
  | { readonly kind: 'vector'; readonly items: readonly Edn[] }

/** Null for a line of the nemesis. Throws HistoryError. */
export function parseEdn(text: string): JepsenLine | null {
  const map = new Reader(text).map()
  const process = map.get('process')
  if (process?.kind === 'keyword' && process.name === 'nemesis') return null
  const time = map.get('time')
  return {
    process: scalarOf('process', process),
    type: keywordOf('type', map.get('type')),
    f: keywordOf('f', map.get('f')),
    key: map.has('key') ? scalarOf('key', map.get('key')) : '',
    value: map.has('error')
      ? { kind: 'reason' }
      : jepsenValueOf(map.get('value') ?? { kind: 'scalar', value: null }),
    timeMs: time === undefined ? null : nanosecondsOf(scalarOf('time', time)) / 1e6,
  }
}

function nanosecondsOf(text: string): number {
  if (!/^-?\d+$/.test(text)) throw wrong(`:time is ${JSON.stringify(text)} and not nanoseconds`)
  return Number(text)
}

function scalarOf(name: string, edn: Edn | undefined): string {
  if (edn?.kind === 'scalar' && edn.value !== null) return edn.value
  throw wrong(edn === undefined ? `:${name} is missing` : `:${name} has a wrong value`)
}

function keywordOf(name: string, edn: Edn | undefined): string {
  if (edn?.kind === 'keyword') return edn.name
  throw wrong(edn === undefined ? `:${name} is missing` : `:${name} is no keyword`)
}

function jepsenValueOf(edn: Edn): JepsenValue {
  if (edn.kind === 'keyword') return { kind: 'reason' }
  if (edn.kind === 'scalar') return { kind: 'value', value: edn.value }
  const [first, second] = edn.items
  if (edn.items.length !== 2 || first?.kind !== 'scalar' || second?.kind !== 'scalar') {
    throw wrong(':value is no vector of two values')
  }
  return { kind: 'pair', values: [first.value, second.value] }
}

const wrong = (what: string) => new HistoryError(`${what}: accepted is ${accepted}`)

/** The part of EDN that such lines are made of. Commas are spaces. */
class Reader {
  private readonly text: string
  private at = 0

  constructor(text: string) {
    this.text = text
  }

  map(): Map<string, Edn> {
    const map = new Map<string, Edn>()
    this.expect('{')
    while (!this.skips('}')) {
      const key = this.value()
      if (key.kind !== 'keyword') throw this.unexpected('a keyword')
      if (map.has(key.name)) throw wrong(`:${key.name} stands twice`)
      map.set(key.name, this.value())
    }
    this.spaces()
    if (this.at < this.text.length) throw this.unexpected('the end of the line')
    return map
  }

  private value(): Edn {
    this.spaces()
    const char = this.text[this.at]
    if (char === '"') return { kind: 'scalar', value: this.string() }
    if (char === '[') {
      this.at++
      const items: Edn[] = []
      while (!this.skips(']')) items.push(this.value())
      return { kind: 'vector', items }
    }
    const word = /[^\s,"[\](){};]+/y
    word.lastIndex = this.at
    const found = word.exec(this.text)?.[0]
    if (found === undefined) throw this.unexpected('a value')
    this.at += found.length
    if (found.startsWith(':') && found.length > 1) return { kind: 'keyword', name: found.slice(1) }
    if (found === 'nil') return { kind: 'scalar', value: null }
    if (/^(-?\d+|true|false)$/.test(found)) return { kind: 'scalar', value: found }
    this.at -= found.length
    throw this.unexpected('a string, an integer, nil, true, false or a keyword')
  }

  /** EDN's escapes are JSON's, but for `\\b`, `\\f` and `\\/`, which do no harm. */
  private string(): string {
    const literal = /"(?:[^"\\]|\\.)*"/y
    literal.lastIndex = this.at
    const found = literal.exec(this.text)?.[0]
    if (found === undefined) throw this.unexpected('a string that ends')
    try {
      const text = JSON.parse(found) as string
      this.at += found.length
      return text
    } catch {
      throw this.unexpected('a string with the escapes \\" \\\\ \\n \\r \\t \\uXXXX')
    }
  }

  private spaces(): void {
    while (/[\s,]/.test(this.text[this.at] ?? 'x')) this.at++
  }

  private skips(char: string): boolean {
    this.spaces()
    if (this.text[this.at] !== char) return false
    this.at++
    return true
  }

  private expect(char: string): void {
    if (!this.skips(char)) throw this.unexpected(char)
  }

  private unexpected(what: string): HistoryError {
    const found =
      this.at < this.text.length ? JSON.stringify(this.text.slice(this.at, this.at + 16)) : 'the end'
    return wrong(`column ${this.at + 1}: ${found} where ${what} should be`)
  }
}
