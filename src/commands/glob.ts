/**
 * Redis's patterns: `*` any run, `?` any one, `[a-z]` one of these, `[^a]` none of these, `\` takes the next as it is. Over
 * bytes as latin1 strings.
 *
 * Matching goes back to the last `*` only: whatever the ones before it took at first is as good as any other choice. So
 * it takes at most pattern × text steps, which are counted: a page of a scan may spend no more than so many.
 */
type Token =
  | { readonly kind: 'any' | 'run' }
  | { readonly kind: 'char'; readonly char: string }
  | {
      readonly kind: 'class'
      readonly isNegated: boolean
      readonly ranges: readonly (readonly [from: string, to: string])[]
    }

export class Glob {
  /** What every match begins with. */
  readonly prefix: string
  /** Steps taken so far. */
  steps = 0
  private readonly tokens: readonly Token[]

  constructor(pattern: string) {
    this.tokens = parse(pattern)
    const wild = this.tokens.findIndex(({ kind }) => kind !== 'char')
    const fixed = wild === -1 ? this.tokens : this.tokens.slice(0, wild)
    this.prefix = fixed.map(token => (token.kind === 'char' ? token.char : '')).join('')
  }

  matches(text: string): boolean {
    const { tokens } = this
    let at = 0
    let token = 0
    let run = -1
    let runEnd = 0
    while (at < text.length) {
      this.steps++
      const wanted = tokens[token]
      if (wanted?.kind === 'run') {
        run = token++
        runEnd = at
      } else if (wanted !== undefined && fits(wanted, text[at]!)) {
        token++
        at++
      } else if (run === -1) return false
      else {
        token = run + 1
        at = ++runEnd
      }
    }
    while (tokens[token]?.kind === 'run') token++
    return token === tokens.length
  }
}

function fits(token: Token, char: string): boolean {
  switch (token.kind) {
    case 'any':
      return true
    case 'char':
      return token.char === char
    case 'class':
      return token.ranges.some(([from, to]) => char >= from && char <= to) !== token.isNegated
    case 'run':
      return false
  }
}

/** A `[` that is not closed reaches to the end of the pattern; a `\` at the end is itself. */
function parse(pattern: string): Token[] {
  const tokens: Token[] = []
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern[i]!
    if (char === '?') tokens.push({ kind: 'any' })
    else if (char === '*') {
      if (tokens.at(-1)?.kind !== 'run') tokens.push({ kind: 'run' })
    } else if (char === '\\' && i + 1 < pattern.length) tokens.push({ kind: 'char', char: pattern[++i]! })
    else if (char === '[') {
      const isNegated = pattern[i + 1] === '^'
      if (isNegated) i++
      const ranges: [string, string][] = []
      for (i++; i < pattern.length && pattern[i] !== ']'; i++) {
        if (pattern[i] === '\\' && i + 1 < pattern.length) i++
        const from = pattern[i]!
        if (pattern[i + 1] === '-' && i + 2 < pattern.length) {
          i += 2
          const to = pattern[i]!
          ranges.push(from <= to ? [from, to] : [to, from])
        } else ranges.push([from, from])
      }
      tokens.push({ kind: 'class', isNegated, ranges })
    } else tokens.push({ kind: 'char', char })
  }
  return tokens
}
