/**
 * Calls that are to be applied in the order in which they were made: the writes of a shard, and the reads behind them.
 * While all goes well they are under way together, since their node keeps the order of one stream. As soon as one comes
 * back without an answer the line is careful: everybody comes back first, then the oldest goes alone; when a leader has
 * answered it the others follow, together again.
 *
 *   oldest → [ under way | under way | waits | waits ]
 *
 * One thing is left: a node that refuses a call and leads again at once may apply those that were behind it.
 */
export class Line<Member extends { isWaiting: boolean }> {
  readonly place: number
  /** In the order of the calls. */
  private readonly members = new Set<Member>()
  private underWay = 0
  private waiting = 0
  private isCareful = false

  constructor(place: number) {
    this.place = place
  }

  get size(): number {
    return this.members.size
  }

  add(member: Member): void {
    this.members.add(member)
  }

  /** Takes the call off the line, whatever it was doing. */
  remove(member: Member, wasUnderWay: boolean): void {
    if (wasUnderWay) this.underWay--
    this.wake(member)
    this.members.delete(member)
  }

  /** `isAlone`: nobody may follow it, because its way does not keep the order. False: it waits from now on. */
  mayGo(member: Member, isAlone: boolean): boolean {
    if (isAlone) this.isCareful = true
    const [oldest] = this.members
    if (this.isCareful && (this.underWay > 0 || member !== oldest)) {
      if (!member.isWaiting) this.waiting++
      member.isWaiting = true
      return false
    }
    this.wake(member)
    this.underWay++
    return true
  }

  /** It failed and is to go again: it waits, and so do all others. */
  cameBack(member: Member): void {
    this.underWay--
    this.isCareful = true
    if (!member.isWaiting) this.waiting++
    member.isWaiting = true
  }

  /** A leader answered the one that went alone. */
  trust(): void {
    if (this.underWay <= 1) this.isCareful = false
  }

  /** Who goes now of those that wait. */
  next(): readonly Member[] {
    if (this.waiting === 0) return []
    if (!this.isCareful) return [...this.members].filter(member => member.isWaiting)
    const [oldest] = this.members
    return this.underWay === 0 && oldest !== undefined ? [oldest] : []
  }

  private wake(member: Member): void {
    if (member.isWaiting) this.waiting--
    member.isWaiting = false
  }
}
