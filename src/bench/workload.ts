/** Which commands a load is made of. Keys are numbers under one prefix, drawn evenly. */
import { CommandRequest, Read } from '../gen/clusterpb/cluster.ts'
import { assert } from '../lib/assert.ts'
import type { Random } from '../lib/prng.ts'
import type { KeyWorkload } from './ports.ts'
import { ValueBlock } from './value-block.ts'

export const keyPrefix = 'bench:'
/** Reads among the operations of `mixed`. */
const mixedReads = 0.9

export interface Operation {
  readonly request: CommandRequest
  readonly isWrite: boolean
  /** Keys and values that travel, as far as they are known before the answer. */
  readonly bytes: number
}

export interface KeySpace {
  readonly keys: number
  readonly keyBytes: number
  readonly valueBytes: number
}

/** The fewest bytes in which so many keys have names of one length. */
export function keyBytesMin(keys: number): number {
  return keyPrefix.length + String(keys - 1).length
}

export class Workload {
  readonly name: KeyWorkload
  private readonly space: KeySpace
  private readonly batch: number
  private readonly random: Random
  private readonly values: ValueBlock

  /** `batch`: keys of an MSET. */
  constructor(name: KeyWorkload, space: KeySpace, batch: number, random: Random) {
    assert(space.keyBytes >= keyBytesMin(space.keys), 'keys too short for their number')
    this.name = name
    this.space = space
    this.batch = batch
    this.random = random
    this.values = new ValueBlock(space.valueBytes, random)
  }

  /** Reads find nothing unless the keys were written before. */
  get needsKeys(): boolean {
    return this.name === 'get' || this.name === 'stale-get' || this.name === 'mixed'
  }

  next(): Operation {
    switch (this.name) {
      case 'set':
        return this.set()
      case 'get':
        return this.get(Read.LINEARIZABLE)
      case 'stale-get':
        return this.get(Read.STALE)
      case 'mixed':
        return this.random.next() < mixedReads ? this.get(Read.LINEARIZABLE) : this.set()
      case 'mset':
        return this.mset(Array.from({ length: this.batch }, () => this.random.below(this.space.keys)))
    }
  }

  /** Writes these keys. */
  fill(numbers: readonly number[]): Operation {
    return this.mset(numbers)
  }

  /** Deletes them. */
  clear(numbers: readonly number[]): Operation {
    const [first, ...rest] = numbers.map(number => this.keyName(number))
    const args = rest.map(name => Buffer.from(name))
    return operation('DEL', first!, args, Read.LINEARIZABLE, true, 0)
  }

  keyName(number: number): string {
    return keyPrefix + String(number).padStart(this.space.keyBytes - keyPrefix.length, '0')
  }

  private set(): Operation {
    const { keys, keyBytes, valueBytes } = this.space
    const name = this.keyName(this.random.below(keys))
    return operation('SET', name, [this.values.next()], Read.LINEARIZABLE, true, keyBytes + valueBytes)
  }

  private get(read: Read): Operation {
    const { keys, keyBytes, valueBytes } = this.space
    return operation('GET', this.keyName(this.random.below(keys)), [], read, false, keyBytes + valueBytes)
  }

  private mset(numbers: readonly number[]): Operation {
    const args = numbers.flatMap(number => [Buffer.from(this.keyName(number)), this.values.next()])
    const first = this.keyName(numbers[0]!)
    const bytes = numbers.length * (this.space.keyBytes + this.space.valueBytes)
    return operation('MSET', first, args.slice(1), Read.LINEARIZABLE, true, bytes)
  }
}

function operation(
  command: string,
  key: string,
  args: Buffer[],
  read: Read,
  isWrite: boolean,
  bytes: number,
): Operation {
  // Set field by field: fromPartial would copy every value.
  const request = CommandRequest.create()
  request.command = command
  request.key = key
  request.args = args
  request.read = read
  return { request, isWrite, bytes }
}
