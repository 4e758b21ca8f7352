/** First in, first out, without moving the rest at each step. */
export class Fifo<Item> {
  private items: (Item | undefined)[] = []
  private head = 0

  get length(): number {
    return this.items.length - this.head
  }

  get first(): Item | undefined {
    return this.items[this.head]
  }

  push(item: Item): void {
    this.items.push(item)
  }

  shift(): Item | undefined {
    const item = this.items[this.head]
    if (item === undefined) return undefined
    this.items[this.head++] = undefined
    if (2 * this.head >= this.items.length) {
      this.items = this.items.slice(this.head)
      this.head = 0
    }
    return item
  }

  /** In the place of the first. */
  replace(item: Item): void {
    this.items[this.head] = item
  }

  clear(): void {
    this.items = []
    this.head = 0
  }

  *[Symbol.iterator](): Generator<Item> {
    for (let i = this.head; i < this.items.length; i++) yield this.items[i] as Item
  }
}
