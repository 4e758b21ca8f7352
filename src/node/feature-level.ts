import type { CommandTable } from '../commands/machine.ts'
import { levelOf } from '../commands/release.ts'
import { RoundhouseError } from '../errors.ts'
import type { Register, RegisteredNode } from './meta-register.ts'

/**
 * The level of the cluster: what every member understands, so what may be written to a log (commands/release.ts). A node
 * looks it up in its own copy of the register. A copy that is behind says less, never more: the level only rises, and
 * only when the members' own registrations say that they support it.
 */

/** Of a node that was registered before there were levels. */
export const levelOfNode = ({ level }: Pick<RegisteredNode, 'level'>) => level ?? 1

/** What all of them support; those that left decide nothing. */
export function commonLevel(nodes: readonly Pick<RegisteredNode, 'level' | 'state'>[]): number {
  const levels = nodes.filter(({ state }) => state !== 'left').map(levelOfNode)
  return levels.length === 0 ? 1 : Math.min(...levels)
}

/** Throws LEVEL_TOO_LOW where an entry of these operations is not for this cluster yet. */
export function refuseAbove(
  register: Pick<Register, 'level' | 'nodes'> | null,
  operations: readonly { readonly command: string }[],
  table: CommandTable,
): void {
  const needed = levelOf(operations, table)
  const level = register?.level ?? 1
  if (needed <= level) return
  const { command } = operations.find(each => levelOf([each], table) === needed)!
  const behind = (register?.nodes ?? []).filter(node => node.state !== 'left' && levelOfNode(node) < needed)
  throw new RoundhouseError('LEVEL_TOO_LOW', {
    ...{ command, needed, level },
    behind: behind.map(node => `${node.nodeId} (${levelOfNode(node)})`).join(', '),
  })
}
