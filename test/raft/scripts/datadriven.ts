/**
 * The text format of the scripts: a directive, optional input, `----`, and what it must answer.
 *
 *   # comment
 *   directive arg key=value list=(a,b)
 *   input, any number of lines
 *   ----
 *   expected, up to a blank line; after a second `----` up to a line pair `----` `----`, blank lines included
 */
export interface Directive {
  readonly line: number
  readonly name: string
  /** In order; a bare word has no values. */
  readonly args: readonly { readonly key: string; readonly values: readonly string[] }[]
  readonly input: readonly string[]
  readonly expected: readonly string[]
}

export function parse(text: string): Directive[] {
  const lines = text.split('\n')
  const directives: Directive[] = []
  for (let at = 0; at < lines.length; ) {
    const start = at
    let head = lines[at++]!.trim()
    if (head === '' || head.startsWith('#')) continue
    while (head.endsWith('\\')) head = head.slice(0, -1) + ' ' + (lines[at++] ?? '').trim()
    const input: string[] = []
    while (at < lines.length && lines[at] !== '----') input.push(lines[at++]!)
    if (at === lines.length) throw new Error(`line ${start + 1}: no ---- after "${head}"`)
    at++
    const expected: string[] = []
    if (lines[at] === '----') {
      at++
      while (at < lines.length && !(lines[at] === '----' && lines[at + 1] === '----'))
        expected.push(lines[at++]!)
      at += 2
    } else {
      while (at < lines.length && lines[at]!.trim() !== '') expected.push(lines[at++]!)
    }
    directives.push({ line: start + 1, ...parseHead(head), input, expected })
  }
  return directives
}

function parseHead(head: string): Pick<Directive, 'name' | 'args'> {
  const [, name = '', rest = ''] = /^(\S+)\s*(.*)$/.exec(head) ?? []
  const args = [...rest.matchAll(/([^\s=]+)(?:=(?:\(([^)]*)\)|(\S*)))?/g)].map(([, key, list, single]) => ({
    key: key!,
    values:
      list !== undefined
        ? list
            .split(',')
            .map(value => value.trim())
            .filter(value => value !== '')
        : single !== undefined
          ? [single]
          : [],
  }))
  return { name, args }
}

/** The values of `key`, null when it is not given. */
export function argsOf(directive: Directive, key: string): readonly string[] | null {
  return directive.args.find(arg => arg.key === key)?.values ?? null
}

export function argOf(directive: Directive, key: string): string | null {
  return argsOf(directive, key)?.[0] ?? null
}

/** Bare words that are numbers: the replicas a directive is about. */
export function idsOf(directive: Directive): number[] {
  return directive.args
    .filter(arg => arg.values.length === 0 && /^\d+$/.test(arg.key))
    .map(arg => Number(arg.key))
}

/** What a machine says beside its task is not judged; saying nothing else is `ok`. */
export function judged(lines: readonly string[]): string[] {
  const kept = lines.filter(line => !/^\s*(DEBUG|INFO|WARN|ERROR|FATAL)\b/.test(line))
  return kept.length === 0 ? ['ok'] : kept
}
