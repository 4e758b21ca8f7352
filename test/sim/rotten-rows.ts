/**
 * Rot in the rows of a state: LMDB has no checksums of pages, so each row carries one, and whoever reads a row that does
 * not fit is told CORRUPT. The twin in memory keeps values as they are; here some of them are marked as rotten, and a
 * read that meets one fails as LMDB's does. A row that is written again is sound again. The bytes are left alone: what
 * is tried is what becomes of a replica whose rows can't be read, not the checksum.
 */
import { RoundhouseError } from '../../src/errors.ts'
import type { Bytes } from '../../src/lib/bytes.ts'
import type { Random } from '../../src/lib/prng.ts'
import { StatePlatter } from '../../src/storage/memory-state.ts'

type Table = StatePlatter['tables'] extends Map<number, infer Value> ? Value : never

class CheckedTables extends Map<number, Table> {
  readonly rotten = new WeakSet<Bytes>()
  /** The simulator itself looks: it is told all. */
  isLooking = false

  override set(replica: number, table: Table): this {
    const { rows } = table
    const get = rows.get.bind(rows)
    const entries = rows.entries.bind(rows)
    const checked = (value: Bytes | undefined) => {
      if (value !== undefined && !this.isLooking && this.rotten.has(value))
        throw new RoundhouseError('CORRUPT', {
          where: `replica ${replica}'s state`,
          what: 'the checksum of a row',
        })
      return value
    }
    rows.get = key => checked(get(key))
    rows.entries = (...from) => {
      const its = entries(...from)
      const next = its.next.bind(its)
      its.next = () => {
        const step = next()
        if (step.done !== true) checked(step.value[1])
        return step
      }
      return its
    }
    return super.set(replica, table)
  }
}

export class RottablePlatter {
  readonly platter = new StatePlatter()
  private readonly tables = new CheckedTables()
  private hasRotted = false

  constructor() {
    Object.assign(this.platter, { tables: this.tables })
  }

  /** Lets the simulator read rows whatever their state. */
  look<Seen>(run: () => Seen): Seen {
    const before = this.tables.isLooking
    this.tables.isLooking = true
    try {
      return run()
    } finally {
      this.tables.isLooking = before
    }
  }

  /** All rows of one replica but those that `isSpared` names by their keys. */
  rotAll(replica: number, isSpared: (key: string) => boolean): void {
    const rows = this.tables.get(replica)?.rows
    if (rows === undefined) return
    this.look(() => {
      for (const [key, value] of [...rows.entries()]) if (!isSpared(key)) this.spoil(rows, key, value)
    })
  }

  private spoil(rows: Table['rows'], key: string, value: Bytes): void {
    // Its own array: a value may be shared with a memtable, in which nothing rots.
    const copy = new Uint8Array(value)
    rows.set(key, copy)
    this.tables.rotten.add(copy)
    this.hasRotted = true
  }

  /** One row of one replica; the answer is the replica, null where there is nothing to rot. */
  rot(random: Random): number | null {
    const replicas = [...this.tables.keys()].sort((a, b) => a - b)
    const replica = replicas[random.below(Math.max(1, replicas.length))]
    const rows = replica === undefined ? undefined : this.tables.get(replica)?.rows
    if (replica === undefined || rows === undefined || rows.size === 0) return null
    const at = random.below(rows.size)
    return this.look(() => {
      let i = 0
      for (const [key, value] of rows.entries()) {
        if (i++ < at) continue
        this.spoil(rows, key, value)
        break
      }
      return replica
    })
  }

  /** What a scrub finds: the replicas with rows that can't be read. */
  broken(): number[] {
    if (!this.hasRotted) return []
    return this.look(() =>
      [...this.tables]
        .filter(([, { rows }]) => [...rows.entries()].some(([, value]) => this.tables.rotten.has(value)))
        .map(([replica]) => replica),
    )
  }
}
