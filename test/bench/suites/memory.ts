/** Memory of processes, as Linux counts it: what is theirs alone apart from pages of files, which the system may take back. */
import { readFileSync } from 'node:fs'
import type { OwnCluster } from '../../../src/bench/own-cluster.ts'

export interface Memory {
  readonly privateMib: number
  readonly filesMib: number
  /** Both together, at their highest. */
  readonly mostMib: number
}

/** Of the node that has most of each; null: the system does not say. */
export async function memoryOf(cluster: OwnCluster): Promise<Memory | null> {
  const all = cluster.nodes.map(({ process }) => read(process.pid))
  if (all.some(each => each === null)) return null
  const most = (name: keyof Memory) => Math.max(...all.map(each => each![name]))
  return { privateMib: most('privateMib'), filesMib: most('filesMib'), mostMib: most('mostMib') }
}

function read(pid: number): Memory | null {
  try {
    return memoryIn(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return null
  }
}

export function memoryIn(status: string): Memory | null {
  const mib = (name: string) => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)
    return found === null ? null : Number(found[1]) / 1_024
  }
  const [privateMib, filesMib, mostMib] = [mib('RssAnon'), mib('RssFile'), mib('VmHWM')]
  return privateMib === null || filesMib === null || mostMib === null
    ? null
    : { privateMib, filesMib, mostMib }
}
