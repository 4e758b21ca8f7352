/** What suites found as a section of docs/benchmarks.md: where it was measured, tables, plots, and where curves bend. */
import type { Facts } from './facts.ts'
import type { Point } from './plot.ts'
import type { Cell, SuiteResult, Table } from './suite.ts'

export interface Part {
  readonly name: string
  readonly summary: string
  readonly seconds: number
  /** null: it failed. */
  readonly result: SuiteResult | null
  readonly error: string | null
}

/** `plots`: the directory of the plots as the page sees it. */
export function sectionOf(facts: Facts, parts: readonly Part[], plots: string): string {
  const lines = [`## Figures of ${facts.date}`, '', factsText(facts), '']
  for (const { name, summary, result, error, seconds } of parts) {
    lines.push(`### ${summary} (\`${name}\`)`, '')
    if (result === null) {
      lines.push(`Not measured: ${error ?? 'it was stopped'}`, '')
      continue
    }
    for (const table of result.tables) lines.push(tableText(table), '')
    for (const { name: file, chart } of result.charts)
      lines.push(`![${chart.title}](${plots}/${file}.svg)`, '')
    for (const note of result.notes) lines.push(note, '')
    for (const each of result.missing ?? []) lines.push(`Not measured: ${each}`, '')
    lines.push(`<!-- ${name}: ${Math.round(seconds)} s -->`, '')
  }
  return `${lines.join('\n').trimEnd()}\n`
}

export function factsText(facts: Facts): string {
  const { cpu, cores, memoryGib, kernel, node, commit, isClean, load, command } = facts
  return (
    `Commit ${commit}${isClean ? '' : ' with changes'}. ${kernel}, ${cores} core${cores === 1 ? '' : 's'} of ${cpu}, ` +
    `${memoryGib} GiB, Node.js ${node}; load average ${load.toFixed(2)} at the start. All nodes **and the client** on that ` +
    `machine. \`${command}\``
  )
}

export function tableText({ caption, head, rows }: Table): string {
  // Columns of numbers stand at the right.
  const isNumber = head.map((_, column) => rows.every(row => typeof (row[column] ?? 0) === 'number'))
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [
    ...(caption === '' ? [] : [`${caption}:`, '']),
    line(head),
    `|${isNumber.map(each => (each ? '--:' : '---')).join('|')}|`,
    ...rows.map(row => line(row.map(cellText))),
  ].join('\n')
}

/** Three digits that count; whole numbers whole. */
export function cellText(cell: Cell): string {
  if (cell === null) return '–'
  if (typeof cell === 'string') return cell.replaceAll('|', '\\|')
  if (Number.isInteger(cell) || Math.abs(cell) >= 100) return Math.round(cell).toLocaleString('en')
  return cell.toFixed(Math.abs(cell) >= 10 ? 1 : 2)
}

/**
 * Between which two neighbours a curve changes most, as a factor: where one should look. null: there are no two points.
 */
export function kneeOf(points: readonly Point[]): { from: Point; to: Point; factor: number } | null {
  const sorted = [...points].sort((a, b) => a.x - b.x)
  let knee: { from: Point; to: Point; factor: number } | null = null
  for (let place = 1; place < sorted.length; place++) {
    const [from, to] = [sorted[place - 1]!, sorted[place]!]
    if (from.y <= 0 || to.y <= 0) continue
    const factor = to.y / from.y
    if (knee === null || Math.abs(Math.log(factor)) > Math.abs(Math.log(knee.factor)))
      knee = { from, to, factor }
  }
  return knee
}

export function kneeText(
  what: string,
  points: readonly Point[],
  x: (value: number) => string,
  y: (value: number) => string = value => cellText(value),
): string {
  const knee = kneeOf(points)
  if (knee === null) return `${what}: one point only.`
  const { from, to, factor } = knee
  return `${what}: the largest step is from ${x(from.x)} to ${x(to.x)}, ${y(from.y)} to ${y(to.y)} (× ${factor.toFixed(2)}).`
}
