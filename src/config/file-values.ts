/** What a file gives to which setting, and what is wrong with it. */
import { basename } from 'node:path'
import { nearest } from '../lib/nearest.ts'
import { type FileValue, placeOf, printable, type SettingsFile } from './file.ts'
import type { Form } from './forms.ts'
import { entries, keysOf, type Origin, type Setting, type SettingName, table, variablesOf } from './table.ts'

/** A value with the place that gave it; places of a lower rank win. `value` undefined: it was not accepted. */
export interface Found {
  readonly value: unknown
  readonly origin: Origin
  readonly rank: number
}

const byKey = new Map(entries.flatMap(([name, setting]) => keysOf(setting).map(key => [key, name] as const)))
const byVariable = new Map(
  entries.flatMap(([name, setting]) => variablesOf(setting).map(variable => [variable, name] as const)),
)
/** Said by the systems that Roundhouse replaces, and not needed. */
const idleVariables = ['SEED_NODE_ID']

/**
 * A `.env` is everybody's: compose files and other programs keep their variables there. What is no setting in it is not
 * refused, as a variable is not. Any other file is for this program alone.
 */
const isShared = (file: SettingsFile) => basename(file.path) === '.env'

/** What the file gives. All that is wrong with it goes to `wrong`, also what flags or variables stand before. */
export function valuesIn(
  file: SettingsFile | null,
  wrong: string[],
  rank = 0,
): ReadonlyMap<SettingName, Found> {
  const found = new Map<SettingName, Found>()
  if (file === null) return found
  wrong.push(...file.mistakes)
  const isEnv = file.format === 'env'
  for (const { key, value, line } of file.entries) {
    const name = isEnv ? byVariable.get(key) : byKey.get(key.replaceAll('-', '_'))
    const place = placeOf(file.path, line)
    const origin: Origin = { kind: 'file', path: file.path, line, name: key }
    if (name === undefined) {
      if (!isShared(file) && !idleVariables.includes(key)) wrong.push(`${place}: ${unknownText(key, isEnv)}`)
      continue
    }
    if (value.kind === 'nothing') continue
    if (name === 'configFile' && !isShared(file)) {
      wrong.push(`${place}: ${key}: a file of settings can't name another one`)
      continue
    }
    const before = found.get(name)
    if (before !== undefined) {
      const first = before.origin.name
      // A file that has two names for one thing is wrong; variables have an order. The same key twice is told already.
      if (!isEnv && first !== key)
        wrong.push(`${place}: ${key}: the same setting as ${first}: one of them is accepted`)
      const variables = variablesOf(table[name])
      if (!isEnv || variables.indexOf(first) < variables.indexOf(key)) continue
    }
    const { form } = table[name] as Setting<unknown>
    const text = textOf(value, form)
    const parsed = text === undefined ? undefined : form.parse(text)
    if (parsed === undefined) wrong.push(`${place}: ${key}: ${describe(value, form)} is not ${form.accepted}`)
    found.set(name, { value: parsed, origin, rank })
  }
  return found
}

/** What a form is to parse; undefined where the value is of a kind that can't be meant. */
function textOf(value: FileValue, form: Form<unknown>): string | undefined {
  switch (value.kind) {
    case 'text':
      return value.text
    case 'number':
      return ['integer', 'size', 'duration'].includes(form.name) ? value.text : undefined
    case 'boolean':
      return form.name === 'boolean' ? value.text : undefined
    case 'list':
      return form.name === 'list' ? value.items.join(',') : undefined
    default:
      return undefined
  }
}

function describe(value: FileValue, form: Form<unknown>): string {
  switch (value.kind) {
    case 'text':
      return JSON.stringify(printable(value.text))
    case 'number':
    case 'boolean':
      return `the ${value.kind} ${value.text}${form.name === 'string' ? ', without quotes,' : ''}`
    case 'list':
      return 'a list'
    default:
      return value.kind === 'other' ? value.what : 'nothing'
  }
}

function unknownText(key: string, isEnv: boolean): string {
  const known = [...(isEnv ? byVariable : byKey).keys()]
  const word = isEnv ? key.toUpperCase() : key.toLowerCase().replaceAll('-', '_')
  const meant = nearest(word, known)
  return `unknown setting ${printable(key, 64)}${meant === null ? '' : `: did you mean ${meant}?`}`
}

/** Lines of a shared `.env` that look like settings with a slip of the pen; other programs may mean them. */
export function notesOn(file: SettingsFile | null): string[] {
  if (file === null || !isShared(file)) return []
  return file.entries.flatMap(({ key, line }) => {
    const isOthers =
      byVariable.has(key) || byVariable.has(key.replace(/_?[0-9]+$/, '')) || idleVariables.includes(key)
    const meant = isOthers ? null : nearest(key.toUpperCase(), [...byVariable.keys()])
    return meant === null ? [] : [`${placeOf(file.path, line)}: ${key} is no setting: did you mean ${meant}?`]
  })
}
