/**
 * The identity in a node's certificate: a URI among its subject alternative names, `roundhouse://node/<id>`. Host names
 * say where a node is, which changes; this says who it is, which does not.
 */
const form = /^roundhouse:\/\/node\/([A-Za-z0-9][A-Za-z0-9._-]{0,63})$/

export function nodeUri(nodeId: string): string {
  return `roundhouse://node/${nodeId}`
}

/** The node's id; null where it is another URI. */
export function nodeOfUri(uri: string): string | null {
  return form.exec(uri)?.[1] ?? null
}
