/** Which of the known words was probably meant; null when none is near enough to be more than a guess. */
export function nearest(word: string, known: readonly string[]): string | null {
  // A long text is no misspelt word, and the work grows with its length.
  if (word.length > wordCharsMax) return null
  let best: string | null = null
  let bestDistance = Math.min(distanceMax, word.length - 1) + 1
  for (const each of known) {
    const distance = editDistance(word, each)
    if (distance >= bestDistance) continue
    best = each
    bestDistance = distance
  }
  return best
}

const wordCharsMax = 64
const distanceMax = 3

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}
