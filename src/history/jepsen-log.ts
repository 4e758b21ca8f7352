/**
 * Lines of a Jepsen test's log (the two seen in the wild: tabs, or columns of spaces):
 *
 *   INFO  jepsen.util - 3	:invoke	:cas	[1 4]
 *   INFO  jepsen.util - 3	:fail	:read	:timed-out
 *
 * There is one register. What other loggers say, and what the nemesis did, is passed over.
 */
import { HistoryError } from './event.ts'
import type { JepsenLine, JepsenValue } from './jepsen.ts'

const logLine = /^(?:TRACE|DEBUG|INFO|WARN|ERROR|FATAL)\s+(\S+)\s+-\s(.*)$/
const operationLine =
  /^(\d+)\s+:([a-z]+)\s+:([a-z]+)\s+(nil|-?\d+|\[\s*(nil|-?\d+)\s+(nil|-?\d+)\s*\]|:[a-z-]+)\s*$/
const accepted =
  'INFO  jepsen.util - PROCESS :invoke|:ok|:fail|:info :read|:write|:cas nil|INTEGER|[INTEGER INTEGER]|:REASON'

/** Null for a line that is no part of the history. Throws HistoryError. */
export function parseJepsenLog(text: string): JepsenLine | null {
  const [, logger, rest] = logLine.exec(text) ?? []
  if (logger === undefined) throw new HistoryError(`not a line of a Jepsen log: accepted is ${accepted}`)
  if (logger !== 'jepsen.util' || rest!.startsWith(':nemesis')) return null
  const [, process, type, f, value, expected, next] = operationLine.exec(rest!) ?? []
  if (process === undefined) throw new HistoryError(`not an operation: accepted is ${accepted}`)
  return { process, type: type!, f: f!, key: '', value: jepsenValueOf(value!, expected, next), timeMs: null }
}

function jepsenValueOf(text: string, expected: string | undefined, next: string | undefined): JepsenValue {
  if (expected !== undefined) return { kind: 'pair', values: [scalar(expected), scalar(next!)] }
  return text.startsWith(':') ? { kind: 'reason' } : { kind: 'value', value: scalar(text) }
}

const scalar = (text: string) => (text === 'nil' ? null : text)
