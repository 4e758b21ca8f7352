/** What callers give, as bytes for the wire. */
import type { Input } from './table.ts'

/** null: it is nothing that is stored. */
export function inputBytes(value: Input): Buffer | null {
  if (typeof value === 'string') return Buffer.from(value, 'utf8')
  if (Buffer.isBuffer(value)) return value
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  if (typeof value === 'number' || typeof value === 'bigint') return Buffer.from(String(value), 'latin1')
  return null
}

export function refusedInput(where: string, value: unknown): TypeError {
  const given = value === null ? 'null' : Array.isArray(value) ? 'an array' : typeof value
  return new TypeError(`${where} is ${given}; a string, number, bigint or Uint8Array is accepted`)
}

/** Throws TypeError, which begins with `where`. */
export function toBytes(value: Input, where: string): Buffer {
  const bytes = inputBytes(value)
  if (bytes === null) throw refusedInput(where, value)
  return bytes
}
