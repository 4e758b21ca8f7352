/** Writes of one slot carry it: they go one after another, so all below a sequence is acknowledged. */
import { randomBytes } from 'node:crypto'

export class WriteSession {
  private readonly id = Buffer.alloc(16)
  private sequence = 0n

  constructor() {
    this.id.writeUIntBE(Date.now(), 0, 6)
    randomBytes(10).copy(this.id, 6)
  }

  stamp(request: { session: Buffer; sequence: bigint; ackedBelow: bigint }): void {
    this.sequence += 1n
    request.session = this.id
    request.sequence = this.sequence
    request.ackedBelow = this.sequence
  }

  /** null: the plan has none. */
  static forSlots(hasSessions: boolean, slots: number): readonly WriteSession[] | null {
    return hasSessions ? Array.from({ length: slots }, () => new WriteSession()) : null
  }
}
