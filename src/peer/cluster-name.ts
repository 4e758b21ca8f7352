/**
 * The name that stands for all nodes (CLUSTER_DNS), and the addresses behind it as of the last look. Addresses come and go,
 * and no certificate can list those to come: what is dialled because the name led there may prove itself by the name. It
 * must be of the cluster's CA all the same, and say by its identity which node it is.
 */
import type { LookupAddress } from 'node:dns'

export class ClusterName {
  private readonly name: string
  private readonly lookup: (name: string) => Promise<readonly Pick<LookupAddress, 'address'>[]>
  private behind: ReadonlySet<string> = new Set()

  constructor(name: string, lookup: ClusterName['lookup']) {
    this.name = name
    this.lookup = lookup
  }

  /** The addresses behind it now. Rejects where it is not known; those of the last look count until then. */
  async look(): Promise<readonly string[]> {
    const found = (await this.lookup(this.name)).map(({ address }) => address)
    this.behind = new Set(found)
    return found
  }

  /** By which other name the certificate of this host may be good; null: by none. */
  nameOf(host: string): string | null {
    return this.behind.has(host) ? this.name : null
  }
}
