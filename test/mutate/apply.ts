import type { Mutation } from './mutations.ts'

/** The source with the bug in it. Throws where the text to change is not there exactly once: the list has rotted. */
export function applyMutation({ name, file, find, replace }: Mutation, source: string): string {
  const at = source.indexOf(find)
  if (at === -1) throw new Error(`${name}: ${file} has no ${JSON.stringify(find)} any more`)
  if (source.includes(find, at + 1))
    throw new Error(`${name}: ${JSON.stringify(find)} stands twice in ${file}`)
  return source.slice(0, at) + replace + source.slice(at + find.length)
}
