/**
 * A typed line into words, quoted as in a shell: '…' takes everything as it is, in "…" a backslash escapes " and \, and
 * outside of quotes it takes the next character as it is. Nothing else has a meaning: no variables, no patterns.
 */

/** Throws UnfinishedLine where a quote is not closed or the last character is a lone backslash. */
export function splitWords(line: string): string[] {
  const words: string[] = []
  let word: string | null = null
  let quote: '"' | "'" | null = null
  for (let i = 0; i < line.length; i++) {
    const char = line[i]!
    if (quote === "'") {
      if (char === "'") quote = null
      else word += char
    } else if (char === '\\') {
      const next = line[i + 1]
      if (next === undefined) throw new UnfinishedLine('a backslash at the end')
      const isEscape = quote === null || next === '"' || next === '\\'
      word = (word ?? '') + (isEscape ? next : char + next)
      i += 1
    } else if (quote === '"') {
      if (char === '"') quote = null
      else word += char
    } else if (char === '"' || char === "'") {
      quote = char
      word ??= ''
    } else if (/\s/.test(char)) {
      if (word !== null) words.push(word)
      word = null
    } else word = (word ?? '') + char
  }
  if (quote !== null) throw new UnfinishedLine(`a ${quote} that is not closed`)
  return word === null ? words : [...words, word]
}

export class UnfinishedLine extends Error {
  override readonly name = 'UnfinishedLine'
}
