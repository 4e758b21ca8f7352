/** Members, placements and their loads, for the tests of this room. */
import xxhash from 'xxhash-wasm'
import type { PlacementMember, ShardPlacement } from '../../src/ring/place.ts'
import type { Hash64 } from '../../src/ring/ring.ts'

const { h64 } = await xxhash()
export const hash64: Hash64 = text => h64(text)

export function member(nodeId: string, changed: Partial<PlacementMember> = {}): PlacementMember {
  return { nodeId, zone: '', weight: 1, isEligible: true, ...changed }
}

/** node1 … nodeN, dealt round the zones. */
export function members(count: number, zones = 1): PlacementMember[] {
  return Array.from({ length: count }, (_, i) => member(`node${i + 1}`, { zone: `zone${i % zones}` }))
}

export function replicasOn(shards: readonly ShardPlacement[], nodeId: string): number {
  return shards.filter(shard => shard.replicas.includes(nodeId)).length
}

export function leadersOn(shards: readonly ShardPlacement[], nodeId: string): number {
  return shards.filter(shard => shard.leader === nodeId).length
}
