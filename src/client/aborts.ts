/** Listeners of signals, one a signal however many wait for it: Node.js warns of many. */
export class Aborts {
  private readonly waiting = new WeakMap<AbortSignal, Set<() => void>>()

  /** Answers how to stop listening. */
  listen(signal: AbortSignal, onAbort: () => void): () => void {
    let all = this.waiting.get(signal)
    if (all === undefined) {
      const listening = new Set<() => void>()
      all = listening
      this.waiting.set(signal, all)
      signal.addEventListener(
        'abort',
        () => {
          for (const each of [...listening]) each()
        },
        { once: true },
      )
    }
    all.add(onAbort)
    return () => void all.delete(onAbort)
  }
}
