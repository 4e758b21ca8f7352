/** When all is quiet: every key that was ever written, through every node, into the history and against the books. */
import { recordedRead, textOf, type Workload } from './workload.ts'

/** At the same time. */
const lanesMax = 32
const patience = { totalMs: 60_000, attemptMs: 6_000 }
/** Of clocks, ms; nothing may have come back beyond it. */
const marginMs = 2_000

/** The answer is how many keys were read, each through every node. Throws when one can't be read. */
export async function readEverything(
  workload: Workload,
  nodes: readonly { readonly id: string; readonly address: string }[],
): Promise<number> {
  const { books, settings } = workload
  const { recorder, wall, after } = settings
  // A key may have been left to expire just now.
  const lastMs = Math.max(0, ...books.once.map(({ expiry }) => expiry?.latestMs ?? 0).filter(Number.isFinite))
  await after(Math.max(0, lastMs + marginMs - wall() + 1))
  const work: ((lane: number) => Promise<void>)[] = []
  for (const { id, address } of nodes) {
    const caller = () => workload.caller(() => address)
    const failed = (key: string, text: string) => new Error(`${key} can't be read through ${id}: ${text}`)
    for (const series of books.series)
      work.push(async lane => {
        const name = `final.${id}.${lane}`
        const { answer, value } = await recordedRead(
          recorder,
          name,
          series.key,
          series.kind,
          caller(),
          patience,
        )
        if (answer.kind !== 'reply') throw failed(series.key, answer.text)
        books.judgeEnd(series, value ?? null, id)
      })
    for (const once of books.once)
      work.push(async lane => {
        const name = `final.${id}.${lane}`
        const begunMs = wall()
        const answer =
          once.expiry === null
            ? (await recordedRead(recorder, name, once.key, 'register', caller(), patience)).answer
            : await caller().read('GET', once.key, [], patience)
        if (answer.kind !== 'reply') throw failed(once.key, answer.text)
        books.judgeOnce(once, textOf(answer.response), begunMs, wall(), marginMs, id)
      })
  }
  let next = 0
  const drive = async (lane: number) => {
    for (let each = work[next++]; each !== undefined; each = work[next++]) await each(lane)
  }
  await Promise.all(Array.from({ length: lanesMax }, (_, lane) => drive(lane)))
  return books.series.length + books.once.length
}
