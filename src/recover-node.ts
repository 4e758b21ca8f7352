import type { OpenSurvivors, Survivors } from './cli/recover.ts'
import { RoundhouseError } from './errors.ts'
import { systemClock } from './lib/clock.ts'
import { systemRandom } from './lib/prng.ts'
import { FileDisk } from './log/file-disk.ts'
import { metaGroup } from './node/meta-register.ts'
import { decodeConfiguration, encodeConfiguration, startOf } from './shard/configuration.ts'
import { configurationAtEnd, forceConfiguration } from './shard/forced.ts'
import { openDataDirectory } from './storage/data-directory.ts'
import { Journal } from './storage/journal.ts'
import { LmdbStateStore } from './storage/lmdb-state.ts'

/**
 * Opens a stopped node's directory to see which of its groups have lost their majority, and to force those whose replica
 * here survives. Nothing is written before `force`.
 */
export const openSurvivors: OpenSurvivors = async (path, lost, wins) => {
  const directory = await openDataDirectory({ path, nodeId: null, random: systemRandom })
  const { journal, recovered } = Journal.open({
    disk: new FileDisk(directory.path),
    directory: 'journal',
    clock: systemClock,
    random: systemRandom,
  })
  const state = new LmdbStateStore({ directory: directory.path })
  const { nodeId, clusterId } = directory.identity
  const at = Date.now()
  const forced = new Map<number, Uint8Array>()
  const known = new Set<string>()
  const groups: Survivors['groups'][number][] = []
  for (const recovery of recovered) {
    const { replica, lastIndex, hardState } = recovery
    const facts = { replica, lastIndex, term: hardState.term, commit: hardState.commit }
    if (recovery.configuration === null) {
      groups.push({
        ...facts,
        group: null,
        isMeta: false,
        kind: 'unusable',
        why: 'its configuration is lost',
      })
      continue
    }
    const noted = decodeConfiguration(recovery.configuration)
    const named = { ...facts, group: noted.group, isMeta: noted.group === metaGroup }
    const damaged = noted.quarantined ?? (recovery.damaged === null ? null : 'its log is damaged')
    if (damaged !== null) {
      groups.push({ ...named, kind: 'unusable', why: damaged })
      continue
    }
    const start = { replica, lastIndex, hardState, ...startOf(noted, state.open(replica).checkpointed) }
    const configuration = configurationAtEnd(journal, start, systemRandom)
    for (const member of configuration.members) known.add(member.node)
    const verdict = forceConfiguration({ ...start, configuration }, lost, wins, at)
    if (verdict.kind === 'forced') {
      forced.set(replica, encodeConfiguration(verdict.configuration))
      groups.push({ ...named, kind: 'forced', lost: verdict.lost })
    } else if (verdict.kind === 'others') groups.push({ ...named, kind: 'others', nodes: verdict.nodes })
    else groups.push({ ...named, kind: 'healthy' })
  }
  return {
    nodeId,
    clusterId: clusterId ?? '',
    known: [...known].filter(node => node !== '' && node !== nodeId).sort(),
    groups: groups.sort((a, b) => (a.group ?? -1) - (b.group ?? -1)),
    force: () => {
      const records = [...forced].map(([replica, configuration]) => ({
        replica,
        hardState: null,
        entries: [],
        configuration,
      }))
      return new Promise<void>((resolve, reject) => {
        journal.write(records, error =>
          error === null
            ? resolve()
            : reject(new RoundhouseError('STORAGE_FAILED', { what: 'journal', why: error.message })),
        )
      })
    },
    close: async () => {
      await state.close()
      await new Promise<void>(resolve => journal.close(() => resolve()))
      directory.close()
    },
  }
}
