import { limits } from '../keyspace/limits.ts'
import type { End } from '../keyspace/lists.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Command, Reply } from './command.ts'
import { parseAmount } from './integer.ts'
import { refuseNotPositive } from './refusals.ts'
import { count, nil, ReplyBudget, valueOrNil } from './replies.ts'

/** What the commands of both ends of a list share. */
export function pushCommand(name: string, end: End): Command {
  return {
    name,
    summary: `Adds elements at the ${end} of a list, one after another; answers its new length`,
    usage: 'key element [element …]',
    arity: { min: 2, max: Number.POSITIVE_INFINITY },
    keys: 'first',
    access: 'write',
    run: (keyspace, [key, ...elements]) => count(keyspace.lists.push(key!, elements, end)),
  }
}

/** Without a count one element or nil, with one a list of elements. */
export function popCommand(name: string, end: End): Command {
  return {
    name,
    summary: `Takes the element at the ${end} of a list, or so many of them, the outermost first`,
    usage: 'key [count]',
    arity: { min: 1, max: 2 },
    keys: 'first',
    access: 'write',
    frees: true,
    check: args => void (args[1] === undefined || parseCount(args[1])),
    run(keyspace, [key, text]) {
      const popped = keyspace.lists.pop(key!, end, text === undefined ? 1 : parseCount(text))
      if (popped === undefined) return nil
      return text === undefined ? valueOrNil(popped[0]) : valueList(popped, 'pop fewer at once')
    },
  }
}

/** Throws REPLY_TOO_LARGE. */
export function valueList(values: Iterable<Bytes>, hint: string): Reply {
  const budget = new ReplyBudget(hint)
  const items: { value: Bytes }[] = []
  for (const value of values) {
    budget.spend(value)
    items.push({ value })
  }
  return { kind: 'list', items }
}

/** An index from the front, or from the back down from -1. Beyond the safe integers one is as far outside as another. */
export function parseIndex(text: Bytes): number {
  return clamped(parseAmount(text))
}

function parseCount(text: Bytes): number {
  const amount = parseAmount(text)
  if (amount < 0n) refuseNotPositive(text)
  return clamped(amount)
}

function clamped(amount: bigint): number {
  const max = BigInt(2 * limits.elementsMax)
  return Number(amount > max ? max : amount < -max ? -max : amount)
}
