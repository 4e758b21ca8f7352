/** What people write for the nodes of a cluster: `127.0.0.1:8081,127.0.0.1:8082`, a list of such, a bare host. */
const defaultPort = 8080
const portMax = 65_535

/** host:port each, in order, none twice; IPv6 hosts in brackets. Throws TypeError. */
export function parseAddresses(input: string | readonly string[]): string[] {
  const items = [input].flat().flatMap(text => String(text).split(','))
  if (items.length === 0) throw new TypeError('no address of a node is given')
  const found = items.map(item => parseAddress(item.trim()))
  return [...new Set(found)]
}

function parseAddress(text: string): string {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^\s:/[\]]+))(?::([0-9]{1,5}))?$/.exec(text)
  const [, six, host, port = defaultPort] = match ?? []
  const number = Number(port)
  if (match === null || number < 1 || number > portMax) {
    throw new TypeError(
      `${JSON.stringify(text)} is no address of a node: host:port, host (port ${defaultPort}) or [IPv6]:port is accepted`,
    )
  }
  return six === undefined ? `${host}:${number}` : `[${six}]:${number}`
}

/** Of an address that `parseAddresses` made. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(':')
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) }
}
