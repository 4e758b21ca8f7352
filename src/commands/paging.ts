import { RoundhouseError } from '../errors.ts'
import type { ValueType } from '../keyspace/keys.ts'
import { limits } from '../keyspace/limits.ts'
import type { Element, PageLimits, ScannedType } from '../keyspace/scan.ts'
import { type Bytes, toLatin1 } from '../lib/bytes.ts'
import type { Command, ListItem } from './command.ts'
import { readElementCursor, scanEnd, writeElementCursor } from './cursor.ts'
import { Glob } from './glob.ts'
import { parseAmount } from './integer.ts'
import { refuseSyntax } from './refusals.ts'
import { scoreBytes } from './score.ts'

/** What the four scans share: options, a page's limits, and what a page of elements looks like. */
export interface ScanOptions {
  /** null = all. */
  readonly glob: Glob | null
  /** Rows to visit, wanted or not: a hint, and no more than 10,000. */
  readonly count: number
  readonly type: ValueType | 'none' | null
  readonly isWithoutValues: boolean
}

const countDefault = 10

type OptionName = 'MATCH' | 'COUNT' | 'TYPE' | 'NOVALUES'

/** Options begin at `from`. Throws SYNTAX, NOT_INTEGER, TOO_LARGE. */
export function parseScanOptions(
  args: readonly Bytes[],
  from: number,
  known: readonly OptionName[],
): ScanOptions {
  let glob: Glob | null = null
  let count = countDefault
  let type: ValueType | 'none' | null = null
  let isWithoutValues = false
  for (let i = from; i < args.length; i++) {
    const name = known.find(name => name === toLatin1(args[i]!).toUpperCase())
    if (name === 'NOVALUES') {
      isWithoutValues = true
      continue
    }
    const value = args[i + 1]
    if (name === undefined || value === undefined) refuseSyntax(`scan options are ${known.join(', ')}`)
    if (name === 'MATCH') glob = globOf(value)
    else if (name === 'COUNT') count = countOf(value)
    else type = typeOf(value)
    i++
  }
  return { glob, count, type, isWithoutValues }
}

function globOf(pattern: Bytes): Glob | null {
  const { byteLength } = pattern
  if (byteLength > limits.patternBytesMax)
    throw new RoundhouseError('TOO_LARGE', {
      what: 'pattern',
      bytes: byteLength,
      max: limits.patternBytesMax,
    })
  const text = toLatin1(pattern)
  return text === '*' ? null : new Glob(text)
}

function countOf(text: Bytes): number {
  const count = parseAmount(text)
  if (count < 1n) refuseSyntax('COUNT is an integer from 1 up')
  return Number(count > limits.rowsVisitedMax ? limits.rowsVisitedMax : count)
}

/** As in Redis, a type that is none of ours is the type of no key. */
function typeOf(text: Bytes): ValueType | 'none' {
  const name = toLatin1(text).toLowerCase()
  const types: readonly ValueType[] = ['string', 'hash', 'list', 'set', 'zset']
  return types.find(type => type === name) ?? 'none'
}

export function pageLimits({ glob, count }: ScanOptions): PageLimits {
  return { rowsMax: count, isTired: () => glob !== null && glob.steps > limits.scanStepsMax }
}

/** HSCAN, SSCAN and ZSCAN. */
export function elementScan(
  name: string,
  type: ScannedType,
  words: string,
  known: readonly OptionName[],
): Command {
  return {
    name,
    summary: `A page of ${words}, and the cursor of the next`,
    usage: `key cursor ${known.map(option => (option === 'NOVALUES' ? '[NOVALUES]' : `[${option} ${option === 'MATCH' ? 'pattern' : 'count'}]`)).join(' ')}`,
    arity: { min: 2, max: Number.POSITIVE_INFINITY },
    keys: 'first',
    access: 'read',
    check(args) {
      readElementCursor(args[1]!)
      parseScanOptions(args, 2, known)
    },
    run(keyspace, args) {
      const options = parseScanOptions(args, 2, known)
      const { glob, isWithoutValues } = options
      const page = keyspace.scanElements(
        args[0]!,
        type,
        readElementCursor(args[1]!),
        pageLimits(options),
        name => glob === null || glob.matches(name),
      )
      const items = page.items.map(element => (isWithoutValues ? { key: element.name } : itemOf(element)))
      return { kind: 'list', items, cursor: page.after === null ? scanEnd : writeElementCursor(page.after) }
    },
  }
}

function itemOf({ name, value }: Element): ListItem {
  if (value === undefined) return { key: name }
  return { key: name, value: typeof value === 'number' ? scoreBytes(value) : value }
}
