/**
 * A window for a person: a row an operation in the order of the calls, with a bar from call to return. Time runs by
 * events, not by the clock: what overlaps is what matters.
 *
 *   line   process  operation  answer
 *    4–5   1        write 1    ok      ├──┤
 *    6–7   2        write 2    ok            ├──┤
 *    8–9   1        read       1                   ├──┤
 */
import { callText, type Operation, valueText } from './operation.ts'

/** Of more operations the last ones are shown, the others counted: the end is where no order was left. */
export const rowsMax = 60
const barColumnsMin = 24
/** Columns between two events, at most. */
const gapMax = 4

/** Lines without line breaks. `columns` is how wide they may be, where the bars can be made to fit. */
export function timeline(operations: readonly Operation[], columns: number): string[] {
  const shown = operations.slice(-rowsMax)
  const hasTimes = shown.some(each => each.calledMs !== null)
  const texts = [
    ['line', 'process', 'operation', 'answer', ...(hasTimes ? ['ms'] : [])],
    ...shown.map(each => [
      each.returnedAt === Number.POSITIVE_INFINITY
        ? `${each.calledAt}–`
        : `${each.calledAt}–${each.returnedAt}`,
      each.process,
      callText(each),
      answerText(each),
      ...(hasTimes ? [timesText(each)] : []),
    ]),
  ]
  const widths = texts[0]!.map((_, column) => Math.max(...texts.map(row => row[column]!.length)))
  const bars = barsOf(shown, columns - widths.reduce((sum, each) => sum + each + 2, 2))
  const lines = texts.map((row, index) =>
    `  ${row.map((text, column) => text.padEnd(widths[column]!)).join('  ')}  ${bars[index - 1] ?? ''}`.trimEnd(),
  )
  if (operations.length > shown.length) lines.unshift(`  … ${operations.length - shown.length} before these`)
  return lines
}

function answerText({ result, returnedAt }: Operation): string {
  if (returnedAt === Number.POSITIVE_INFINITY) return 'unknown'
  return result === undefined ? 'ok' : valueText(result)
}

function timesText({ calledMs, returnedMs }: Operation): string {
  const text = (ms: number | null) => (ms === null ? '' : ms.toFixed(3))
  return `${text(calledMs)}–${text(returnedMs)}`
}

function barsOf(operations: readonly Operation[], columns: number): string[] {
  const places = [...new Set(operations.flatMap(each => [each.calledAt, each.returnedAt]))].sort(
    (a, b) => a - b,
  )
  const gap = Math.min(
    gapMax,
    Math.max(1, Math.floor(Math.max(columns, barColumnsMin) / Math.max(1, places.length - 1))),
  )
  const columnOf = new Map(places.map((place, rank) => [place, rank * gap]))
  return operations.map(({ calledAt, returnedAt }) => {
    const from = columnOf.get(calledAt)!
    const to = columnOf.get(returnedAt)!
    const end = returnedAt === Number.POSITIVE_INFINITY ? '▶' : '┤'
    return `${' '.repeat(from)}├${'─'.repeat(Math.max(0, to - from - 1))}${end}`
  })
}
