/** One value that is read, written, and compared-and-set: the model of Jepsen's etcd and Consul tests. */
import type { FunctionSpec, Model } from './model.ts'
import type { Value } from './operation.ts'

export const read = (usage: string): FunctionSpec => ({
  usage,
  argsMin: 0,
  argsMax: 0,
  step: (state, _args, result) => (result === undefined || result === state ? state : undefined),
  effect: () => 'reads',
  tellsApart: (_args, result) => (result === undefined ? [] : [result]),
  needs: (_args, result) => result,
})

export const write = (usage: string): FunctionSpec => ({
  usage,
  argsMin: 1,
  argsMax: 1,
  step: (_state, args) => args[0]!,
  effect: () => 'overwrites',
  tellsApart: () => [],
})

/** Answers whether it found EXPECTED. An answered "false" is an observation: the value was another one. */
export const compareAndSet: FunctionSpec = {
  usage: 'cas EXPECTED NEW → true | false',
  argsMin: 2,
  argsMax: 2,
  mistake: (_args, result) =>
    result === undefined || result === 'true' || result === 'false' ? null : 'cas answers true or false',
  step(state, args, result) {
    const isEqual = state === args[0]
    if (result !== undefined && (result === 'true') !== isEqual) return undefined
    return isEqual ? args[1]! : state
  },
  effect: (args, result) => (result === 'false' || args[0] === args[1] ? 'reads' : 'changes'),
  tellsApart: args => [args[0]!],
  needs: (args, result) => (result === 'true' ? args[0] : undefined),
  leadsTo: args => args[1],
}

export function registerModel(initial: Value): Model {
  return {
    name: 'register',
    initial,
    functions: new Map([
      ['read', read('read → VALUE or nil')],
      ['write', write('write VALUE')],
      ['cas', compareAndSet],
    ]),
  }
}
