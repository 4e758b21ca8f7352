/**
 * Calls that are collected first and then sent together. Those of one shard are applied in the order in which they were
 * added; those of different shards side by side. It is no transaction: each call succeeds or fails by itself.
 */
import type { ReplyKind, ReplyTypes } from './reply.ts'
import { type CommandSpec, commands } from './table.ts'

type Table = typeof commands
type ArgsOf<Spec> = Spec extends { readonly args: (...args: infer Args) => unknown } ? Args : never
type ResultOf<Spec, Data> = Spec extends { readonly reply: infer Kind extends ReplyKind }
  ? ReplyTypes<Data>[Kind]
  : never

/** The commands' methods again: each adds its call, and its result to the results. */
export type PipelineMethods<Data, Results extends readonly unknown[]> = {
  [Name in keyof Table]: (
    ...args: ArgsOf<Table[Name]>
  ) => Pipeline<Data, [...Results, ResultOf<Table[Name], Data>]>
}

type AnySpec = CommandSpec<readonly unknown[], ReplyKind>
type Invoke = (spec: AnySpec, args: readonly unknown[]) => Promise<unknown>

class Base<Results extends readonly unknown[]> {
  private readonly invoke: Invoke
  private readonly calls: { readonly spec: AnySpec; readonly args: readonly unknown[] }[] = []

  constructor(invoke: Invoke) {
    this.invoke = invoke
  }

  get length(): number {
    return this.calls.length
  }

  /** Sends all of it; the results in order. Rejects with the first error, but not before every call is settled. */
  async run(): Promise<Results> {
    const results = await this.settle()
    for (const result of results) if (result.status === 'rejected') throw result.reason
    return results.map(result => (result as PromiseFulfilledResult<unknown>).value) as unknown as Results
  }

  /** Like `run`, with each call's outcome by itself. Never rejects. */
  async settle(): Promise<{ -readonly [Place in keyof Results]: PromiseSettledResult<Results[Place]> }> {
    const calls = this.calls.splice(0)
    const results = await Promise.allSettled(calls.map(({ spec, args }) => this.invoke(spec, args)))
    return results as { -readonly [Place in keyof Results]: PromiseSettledResult<Results[Place]> }
  }

  protected add(spec: AnySpec, args: readonly unknown[]): void {
    this.calls.push({ spec, args })
  }
}

export interface Pipeline<Data, Results extends readonly unknown[]> extends PipelineMethods<Data, Results> {}
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the loop below defines what the interface declares
// biome-ignore lint/correctness/noUnusedVariables: Data is the interface's
export class Pipeline<Data, Results extends readonly unknown[]> extends Base<Results> {}

for (const [name, spec] of Object.entries(commands)) {
  Object.defineProperty(Pipeline.prototype, name, {
    value: function method(this: Pipeline<unknown, []>, ...args: readonly unknown[]) {
      this.add(spec as unknown as AnySpec, args)
      return this
    },
    writable: true,
    configurable: true,
  })
}
