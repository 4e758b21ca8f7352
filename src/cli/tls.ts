/** The shell's own certificates, from flags or variables. */
import { RoundhouseError } from '../errors.ts'
import { type Certificates, loadCertificates } from '../lib/certificates.ts'
import type { Input, OptionSpec, Shell } from './shell.ts'

/** By the names of a node's settings, so that one set of variables does for both. */
const names = { ca: 'tls-ca-path', cert: 'tls-cert-path', key: 'tls-key-path' } as const
const variableOf = (flag: string) => flag.toUpperCase().replaceAll('-', '_')

export const tlsOptionSpecs: Readonly<Record<string, OptionSpec>> = {
  [names.ca]: {
    kind: 'text',
    describe: 'CA of the nodes (PEM): speak TLS [TLS_CA_PATH]',
    isFile: true,
    elsewhere: ['cacert', 'tls', 'ca'],
  },
  [names.cert]: {
    kind: 'text',
    describe: 'Certificate to show them (PEM) [TLS_CERT_PATH]',
    isFile: true,
    elsewhere: ['cert'],
  },
  [names.key]: {
    kind: 'text',
    describe: 'Its private key (PEM) [TLS_KEY_PATH]',
    isFile: true,
    elsewhere: ['key'],
  },
}

/** From the flags, else from the variables; null: plain connections. Throws CONFIG with all that is wrong. */
export function tlsOf(input: Input, shell: Shell): Certificates | null {
  const path = (flag: string) => String(input.options[flag] ?? shell.env[variableOf(flag)] ?? '')
  return readTls({ ca: path(names.ca), cert: path(names.cert), key: path(names.key) })
}

export function readTls(files: {
  readonly ca: string
  readonly cert: string
  readonly key: string
}): Certificates | null {
  if (Object.values(files).every(each => each === '')) return null
  const loaded = loadCertificates(files, Date.now())
  if (!loaded.ok)
    throw new RoundhouseError('CONFIG', { mistakes: loaded.mistakes.map(each => `TLS: ${each}`) })
  return loaded.value
}
