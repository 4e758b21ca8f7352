/** Certificates for tests: certs.sh writes most of them, openssl the odd ones. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, cpSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { CertificateFiles } from '../../src/lib/certificates.ts'

export const certsProgram = resolve(import.meta.dirname, '../../certs.sh')

let serials = 1000
const directories = new Set<string>()
process.on('exit', () => {
  for (const path of directories) rmSync(path, { recursive: true, force: true })
})

export function emptyDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'roundhouse-tls-'))
  directories.add(path)
  return path
}

export interface Oddity {
  readonly name: string
  /** As openssl takes it: /O=Roundhouse/CN=ada */
  readonly subject: string
  readonly alternatives?: string
  /** From now on; negative: it has expired. */
  readonly days?: number
  /** certs.sh gives people none for servers. */
  readonly usage?: string
}

/** A directory with a CA and what it has signed. */
export class CertificateDirectory {
  readonly path: string = emptyDirectory()

  /** Makes these names; without any those that certs.sh makes by itself. Or begins with what another directory has. */
  constructor(...from: readonly string[] | [CertificateDirectory]) {
    const [first] = from
    if (first instanceof CertificateDirectory) cpSync(first.path, this.path, { recursive: true })
    else this.make(...(from as readonly string[]))
  }

  make(...args: readonly string[]): string {
    return execFileSync(certsProgram, ['--dir', this.path, ...args], { encoding: 'utf8' })
  }

  file(name: string): string {
    return join(this.path, name)
  }

  of(name: string): CertificateFiles {
    return { cert: this.file(`${name}.crt`), key: this.file(`${name}.key`), ca: this.file('ca.crt') }
  }

  /** What certs.sh would not make, signed by this CA. */
  issue({
    name,
    subject,
    alternatives,
    days = 100,
    usage = 'clientAuth,serverAuth',
  }: Oddity): CertificateFiles {
    const { cert, key, ca } = this.of(name)
    const extensions = this.file(`${name}.ext`)
    const request = this.file(`${name}.csr`)
    writeFileSync(
      extensions,
      `extendedKeyUsage=${usage}\n${alternatives === undefined ? '' : `subjectAltName=${alternatives}\n`}`,
    )
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', key)
    openssl('req', '-new', '-key', key, '-subj', subject, '-out', request)
    openssl(
      ...['x509', '-req', '-in', request, '-CA', ca, '-CAkey', this.file('ca.key')],
      ...['-set_serial', String(++serials), '-days', String(days), '-extfile', extensions, '-out', cert],
    )
    return { cert, key, ca }
  }

  /** Puts another certificate in place, each file in one step, as certs.sh does. */
  replace(name: string, by: CertificateFiles): void {
    const to = this.of(name)
    for (const part of ['key', 'cert'] as const) {
      copyFileSync(by[part], `${to[part]}.new`)
      renameSync(`${to[part]}.new`, to[part])
    }
  }
}

export function openssl(...args: string[]): string {
  return execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}
