/** Which of the known words was probably meant; null when none is near enough to be more than a guess. */
export function nearest(word: string, known: readonly string[]): string | null {
  // A long text is no misspelt word, and the work grows with its length.
  if (word.length > wordCharsMax) return null
  let best: string | null = null
  let bestDistance = Math.min(distanceMax, Math.floor((word.length + 1) / 3)) + 1
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

/** Slips between two words: letters more, letters less, others, and neighbours that changed places. Row by row. */
function editDistance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped =
        i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
          ? before[j - 2]! + 1
          : Number.POSITIVE_INFINITY
      next.push(Math.min(replaced, swapped, row[j]! + 1, next[j - 1]! + 1))
    }
    before = row
    row = next
  }
  return row[b.length]!
}
