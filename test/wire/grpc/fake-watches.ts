/** Watches behind the port that wires see, of which a test says what comes. */
import type { OpenWatch, WatchNews, WatchService, WatchWish } from '../../../src/node/ports.ts'

export class FakeWatches implements WatchService {
  readonly wishes: WatchWish[] = []
  readonly open_ = new Set<FakeWatch>()
  /** Answered before a watch waits; null: nothing yet. */
  onNext: () => WatchNews | Error | null = () => null
  /** Where a watch stands. */
  place = 7

  async open(wish: WatchWish): Promise<OpenWatch> {
    this.wishes.push(wish)
    const watch = new FakeWatch(this)
    this.open_.add(watch)
    return watch
  }
}

class FakeWatch implements OpenWatch {
  private readonly watches: FakeWatches
  private end: () => void = () => {}

  constructor(watches: FakeWatches) {
    this.watches = watches
  }

  get cursor(): ReadonlyMap<number, number> {
    return new Map([[0, this.watches.place]])
  }

  async next(_bytesMax: number, waitMs: number): Promise<WatchNews> {
    const news = this.watches.onNext()
    if (news instanceof Error) throw news
    if (news !== null) return news
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, waitMs)
      this.end = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    return { kind: 'idle' }
  }

  close(): void {
    this.watches.open_.delete(this)
    this.end()
  }
}
