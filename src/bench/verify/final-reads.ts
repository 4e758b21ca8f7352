/** When all is quiet: every key that was ever written, through every node, into the history and against the books. */
import { recordedRead, shortOf, textOf, type Workload } from './workload.ts'

/** At the same time. */
const lanesMax = 32
const attemptMs = 6_000
/** A node that has answered nothing for so long is left. */
const silenceMsMax = 60_000
/** Of clocks, ms; nothing may have come back beyond it. */
const marginMs = 2_000

export interface FinalReads {
  /** Each through every node, unless it stands among the unreadable. */
  readonly keys: number
  /** What could not be read, and why: without it there is no verdict. */
  readonly unreadable: readonly string[]
}

export async function readEverything(
  workload: Workload,
  nodes: readonly { readonly id: string; readonly address: string }[],
  onProgress: (done: number, count: number) => void = () => {},
): Promise<FinalReads> {
  const { books, settings } = workload
  const { recorder, now, after } = settings
  // A key may have been left to expire just now.
  const ends = books.once.map(({ expiry }) => expiry?.latestMs ?? 0).filter(Number.isFinite)
  const lastMs = ends.reduce((latest, each) => Math.max(latest, each), 0)
  await after(Math.max(0, lastMs + marginMs - now() + 1))
  const unreadable: string[] = []
  const work: ((lane: number) => Promise<void>)[] = []
  for (const { id, address } of nodes) {
    const caller = () => workload.caller(() => address)
    /** null: nothing was asked yet. */
    let heardMs: number | null = null
    let isLeft = false
    /** Ends with the node's silence, so that one that is gone takes that long and no more. */
    const patience = () => {
      heardMs ??= now()
      return { totalMs: Math.max(0, heardMs + silenceMsMax - now()), attemptMs }
    }
    const failed = (key: string, text: string) => {
      if (!isLeft) unreadable.push(`${key} can't be read through ${id}: ${text}`)
      isLeft = true
    }
    for (const series of books.series)
      work.push(async lane => {
        if (isLeft) return
        const { key, kind } = series
        const name = `final.${id}.${lane}`
        const { answer, value } = await recordedRead(recorder, name, key, kind, caller(), patience())
        if (answer.kind !== 'reply') {
          failed(key, answer.text)
          return
        }
        heardMs = now()
        books.judgeEnd(series, value ?? null, id)
      })
    for (const once of books.once)
      work.push(async lane => {
        if (isLeft) return
        const name = `final.${id}.${lane}`
        const begunMs = now()
        const answer =
          once.expiry === null
            ? (await recordedRead(recorder, name, once.key, 'register', caller(), patience())).answer
            : await caller().read('GET', once.key, [], patience())
        if (answer.kind !== 'reply') {
          failed(once.key, answer.text)
          return
        }
        heardMs = now()
        books.judgeOnce(once, shortOf(textOf(answer.response)), begunMs, now(), marginMs, id)
      })
  }
  let next = 0
  let done = 0
  const drive = async (lane: number) => {
    for (let each = work[next++]; each !== undefined; each = work[next++]) {
      await each(lane)
      done += 1
      onProgress(done / work.length, done)
    }
  }
  await Promise.all(Array.from({ length: lanesMax }, (_, lane) => drive(lane)))
  return { keys: books.series.length + books.once.length, unreadable }
}
