/**
 * Small charts as SVG: lines over a linear or logarithmic x, or groups of bars. They carry their own background in a light
 * and a dark form, so that they can be read wherever a page shows them.
 *
 *        title
 *   y label
 *   |      ___ series                       plot area: `area`; ticks of y are lines across it,
 *   |  ___/                                 those of x stand where points are
 *   +-------------  x label
 *   ■ series  ■ series
 */

export interface Chart {
  readonly title: string
  readonly x: Axis
  readonly y: Axis
  readonly series: readonly Series[]
  /** Groups side by side, one for each x, in the order in which they come. Else lines. */
  readonly isBars?: boolean
}

export interface Axis {
  readonly label: string
  readonly isLog?: boolean
  readonly format?: (value: number) => string
}

export interface Series {
  readonly name: string
  readonly points: readonly Point[]
}

export interface Point {
  readonly x: number
  readonly y: number
  /** Stands below a group of bars. */
  readonly name?: string
}

const width = 640
const height = 360
const area = { left: 72, right: 616, top: 48, bottom: 262 } as const
const ticksMax = 6
/** Told apart without their colours as well: by dashes. */
const dashes = ['', '6 3', '2 3', '8 3 2 3', '1 4', '12 4']
const colors = {
  light: ['#1f5fbf', '#c2410c', '#15803d', '#7c3aed', '#a16207', '#0e7490'],
  dark: ['#7fb2ff', '#ff9d66', '#6ee7a0', '#c4a5ff', '#fcd34d', '#67e8f9'],
} as const

export function svgOf(chart: Chart): string {
  const points = chart.series.flatMap(each => each.points)
  const xs = [...new Set(points.map(each => each.x))]
  if (chart.isBars !== true) xs.sort((a, b) => a - b)
  const yAxis = axisOf(
    points.map(each => each.y),
    chart.y.isLog === true,
  )
  const atY = (value: number) => round(area.bottom - yAxis.part(value) * (area.bottom - area.top))
  const atX = chart.isBars === true ? slotOf(xs) : lineOf(xs, chart.x.isLog === true)
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(chart.title)}">`,
    `<style>${styles(chart.series.length)}</style>`,
    `<rect class="back" width="${width}" height="${height}" rx="6"/>`,
    text(area.left, 24, chart.title, 'title'),
    text(area.left, 40, chart.y.label, 'small'),
    text((area.left + area.right) / 2, area.bottom + 40, chart.x.label, 'small middle'),
    ...yAxis.ticks.flatMap(value => [
      `<line class="grid" x1="${area.left}" x2="${area.right}" y1="${atY(value)}" y2="${atY(value)}"/>`,
      text(area.left - 8, atY(value) + 4, (chart.y.format ?? countText)(value), 'small end'),
    ]),
    ...xs.flatMap(value => {
      const name = points.find(each => each.x === value)?.name ?? (chart.x.format ?? countText)(value)
      return text(atX(value), area.bottom + 18, name, 'small middle')
    }),
    ...chart.series.flatMap((series, place) =>
      chart.isBars === true
        ? barsOf(series, place, chart.series.length, atX, atY, xs.length)
        : linesOf(series, place, atX, atY),
    ),
    ...legendOf(chart.series, chart.isBars === true),
    '</svg>',
  ]
  return `${parts.join('\n')}\n`
}

/** 1,000 as 1k: short enough for an axis. */
export function countText(value: number): string {
  const size = Math.abs(value)
  const short = (by: number, unit: string) => `${Number((value / by).toPrecision(3))}${unit}`
  if (size >= 1e9) return short(1e9, 'G')
  if (size >= 1e6) return short(1e6, 'M')
  return size >= 1e3 ? short(1e3, 'k') : String(Number(value.toPrecision(3)))
}

/** Round numbers that hold all values, from 0 or, on a logarithmic axis, from the power of ten below the least. */
export function axisOf(
  values: readonly number[],
  isLog: boolean,
): { readonly ticks: readonly number[]; readonly part: (value: number) => number } {
  const most = Math.max(0, ...values)
  if (isLog) {
    const above = values.filter(each => each > 0)
    const from = Math.floor(Math.log10(Math.min(...above, most || 1)))
    const to = Math.max(from + 1, Math.ceil(Math.log10(most || 10) - 1e-9))
    const ticks = Array.from({ length: to - from + 1 }, (_, place) => 10 ** (from + place))
    return { ticks, part: value => (value <= 0 ? 0 : (Math.log10(value) - from) / (to - from)) }
  }
  const step = stepFor(most === 0 ? 1 : most)
  const count = Math.max(1, Math.ceil(most / step - 1e-9))
  const ticks = Array.from({ length: count + 1 }, (_, place) => Number((place * step).toPrecision(12)))
  return { ticks, part: value => value / (count * step) }
}

/** 1, 2 or 5 of a power of ten, so that there are few ticks. */
function stepFor(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / ticksMax))
  return power * ([1, 2, 5, 10].find(each => most / (each * power) <= ticksMax) ?? 10)
}

type Place = (value: number) => number

/** Over the width, half a slot free at either side. */
function lineOf(xs: readonly number[], isLog: boolean): Place {
  const of = (value: number) => (isLog ? Math.log(value) : value)
  const [least, most] = [of(xs[0] ?? 1), of(xs.at(-1) ?? 1)]
  const inner = { left: area.left + 24, right: area.right - 24 }
  return value =>
    round(
      most === least
        ? (inner.left + inner.right) / 2
        : inner.left + ((of(value) - least) / (most - least)) * (inner.right - inner.left),
    )
}

function slotOf(xs: readonly number[]): Place {
  const slot = (area.right - area.left) / Math.max(1, xs.length)
  return value => round(area.left + (xs.indexOf(value) + 0.5) * slot)
}

function linesOf({ points }: Series, place: number, atX: Place, atY: Place): string[] {
  const sorted = [...points].sort((a, b) => a.x - b.x)
  const path = sorted.map(({ x, y }, at) => `${at === 0 ? 'M' : 'L'}${atX(x)} ${atY(y)}`).join('')
  return [
    `<path class="line s${place}" d="${path}"/>`,
    ...sorted.map(
      ({ x, y }) =>
        `<circle class="fill s${place}" cx="${atX(x)}" cy="${atY(y)}" r="3"><title>${countText(y)}</title></circle>`,
    ),
  ]
}

function barsOf(
  { points }: Series,
  place: number,
  count: number,
  atX: Place,
  atY: Place,
  groups: number,
): string[] {
  const group = ((area.right - area.left) / Math.max(1, groups)) * 0.8
  const bar = group / count
  return points.flatMap(({ x, y }) => {
    const left = round(atX(x) - group / 2 + place * bar)
    return [
      `<rect class="fill s${place}" x="${left}" y="${atY(y)}" width="${round(bar * 0.92)}" height="${round(area.bottom - atY(y))}"/>`,
      text(round(left + bar * 0.46), atY(y) - 4, countText(y), 'tiny middle'),
    ]
  })
}

function legendOf(series: readonly Series[], isBars: boolean): string[] {
  const slot = (width - 32) / Math.max(1, Math.min(3, series.length))
  return series.flatMap(({ name }, place) => {
    const x = round(24 + (place % 3) * slot)
    const y = height - 30 + Math.floor(place / 3) * 18
    const sign = isBars
      ? `<rect class="fill s${place}" x="${x}" y="${y - 9}" width="24" height="10"/>`
      : `<path class="line s${place}" d="M${x} ${y - 4}h24"/>`
    return [sign, text(x + 30, y, name, 'small')]
  })
}

function styles(count: number): string {
  const of = (palette: readonly string[]) =>
    Array.from({ length: count }, (_, place) => {
      const color = palette[place % palette.length]!
      return `.line.s${place}{stroke:${color}}.fill.s${place}{fill:${color}}`
    }).join('')
  const dashed = Array.from({ length: count }, (_, place) => {
    const dash = dashes[place % dashes.length]!
    return dash === '' ? '' : `.line.s${place}{stroke-dasharray:${dash}}`
  }).join('')
  return (
    'text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}.small{font-size:12px}' +
    '.tiny{font-size:10px}.middle{text-anchor:middle}.end{text-anchor:end}.back{fill:#ffffff}' +
    `.grid{stroke:#d0d7de;stroke-width:1}.line{fill:none;stroke-width:2}${dashed}${of(colors.light)}` +
    `@media (prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#0d1117}.grid{stroke:#30363d}${of(colors.dark)}}`
  )
}

function text(x: number, y: number, content: string, style: string): string {
  return `<text class="${style}" x="${x}" y="${y}">${escaped(content)}</text>`
}

function escaped(content: string): string {
  return content.replace(/[&<>"]/g, each => `&#${each.charCodeAt(0)};`)
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
