/**
 * The name that stands for all nodes (CLUSTER_DNS), and the addresses behind it as of the last look. Addresses come and go,
 * and no certificate can list those to come: what is dialled because the name led there may prove itself by the name.
 */
import type { LookupAddress } from 'node:dns'
import { splitAddress } from './address.ts'

export class ClusterName {
  private readonly host: string
  private readonly port: number
  private readonly lookup: (host: string) => Promise<readonly Pick<LookupAddress, 'address'>[]>
  private behind: ReadonlySet<string> = new Set()

  constructor(nameAndPort: string, lookup: ClusterName['lookup']) {
    const { host, port } = splitAddress(nameAndPort)
    this.host = host
    this.port = port
    this.lookup = lookup
  }

  /** Rejects where the name is not known; those of the last look count until then. */
  async addresses(): Promise<string[]> {
    const found = (await this.lookup(this.host)).map(({ address }) => address)
    this.behind = new Set(found)
    return found.map(address =>
      address.includes(':') ? `[${address}]:${this.port}` : `${address}:${this.port}`,
    )
  }

  /** By which other name the certificate of this host may be good; null: by none. */
  nameOf(host: string): string | null {
    return this.behind.has(host) ? this.host : null
  }
}
