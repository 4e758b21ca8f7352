/**
 * Certificates that are taken anew when their files change, while everything goes on. Files are looked at, not listened
 * to: mounted secrets change by a link behind a link, which file events miss. Two looks in a row must see the same before
 * files are read, for certificate and key are replaced one after the other. Files that can't be used change nothing but
 * the log.
 */
import type { X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { type Certificates, type Loaded, nameOf, untimely } from './certificates.ts'
import type { Clock } from './clock.ts'
import type { Logger } from './logger.ts'

export const watchLimits = {
  /** Between two looks at the files. */
  pollMs: 1_000,
  /** From so long before a certificate expires on, the log says so … */
  warnBeforeMs: 14 * 24 * 3_600_000,
  /** … this often. */
  warnEveryMs: 24 * 3_600_000,
} as const

export interface CertificateWatchOptions<Sets> {
  readonly paths: readonly string[]
  /** What is in the files now. */
  readonly load: () => Loaded<Sets>
  readonly clock: Clock
  readonly log: Logger
  readonly pollMs?: number
}

/** `Sets` are certificates by their use, such as those of the port and those for peers. */
export class CertificateWatch<Sets extends Readonly<Record<string, Certificates>>> {
  private readonly options: CertificateWatchOptions<Sets>
  private readonly listeners: ((sets: Sets) => void)[] = []
  private sets: Sets
  /** How the files looked when they were last read. */
  private read: string
  /** How they looked the last time. */
  private seen: string
  private warnedMs = Number.NEGATIVE_INFINITY
  private isClosed = false
  private cancelTimer: () => void = () => {}

  private constructor(options: CertificateWatchOptions<Sets>, sets: Sets, seen: string) {
    this.options = options
    this.sets = sets
    this.read = seen
    this.seen = seen
    this.warnOfExpiry()
    this.schedule()
  }

  /** Rejects with what `fail` makes of the mistakes. */
  static async start<Sets extends Readonly<Record<string, Certificates>>>(
    options: CertificateWatchOptions<Sets>,
    fail: (mistakes: readonly string[]) => Error,
  ): Promise<CertificateWatch<Sets>> {
    // Looked at before they are read: what changes in between is found at the next look.
    const seen = await appearanceOf(options.paths)
    const loaded = options.load()
    if (!loaded.ok) throw fail(loaded.mistakes)
    return new CertificateWatch(options, loaded.value, seen)
  }

  get current(): Sets {
    return this.sets
  }

  onChange(listener: (sets: Sets) => void): void {
    this.listeners.push(listener)
  }

  close(): void {
    this.isClosed = true
    this.cancelTimer()
  }

  private schedule(): void {
    const { clock, pollMs = watchLimits.pollMs } = this.options
    this.cancelTimer = clock.after(pollMs, () => {
      void appearanceOf(this.options.paths).then(now => {
        if (this.isClosed) return
        if (now !== this.read && now === this.seen) this.reload(now)
        this.seen = now
        this.warnOfExpiry()
        this.schedule()
      })
    })
  }

  private reload(appearance: string): void {
    const { load, log } = this.options
    this.read = appearance
    const loaded = load()
    if (!loaded.ok) {
      log.warn('certificates have changed and can’t be used: the old ones stay', { why: loaded.mistakes })
      return
    }
    const before = this.sets
    this.sets = loaded.value
    if (isSame(before, loaded.value)) return
    log.info('certificates reloaded', { certificates: ownOf(loaded.value).map(describe) })
    this.warnedMs = Number.NEGATIVE_INFINITY
    for (const listener of this.listeners) listener(loaded.value)
  }

  private warnOfExpiry(): void {
    const { clock, log } = this.options
    if (clock.now() - this.warnedMs < watchLimits.warnEveryMs) return
    this.warnedMs = clock.now()
    const wallMs = clock.wall()
    for (const { file, certificate } of allOf(this.sets)) {
      const fields = { file, of: nameOf(certificate), valid_to: new Date(certificate.validTo).toISOString() }
      const why = untimely(certificate, wallMs)
      if (why !== null) log.error('a certificate is not valid', { ...fields, why })
      else if (untimely(certificate, wallMs + watchLimits.warnBeforeMs) !== null)
        log.warn('a certificate expires soon', fields)
    }
  }
}

/** Changes whenever a file is written, replaced, linked elsewhere, removed or put back. */
async function appearanceOf(paths: readonly string[]): Promise<string> {
  const looks = paths.map(async path => {
    const found = await stat(path, { bigint: true }).catch(() => null)
    return found === null
      ? 'none'
      : `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}`
  })
  return (await Promise.all(looks)).join(' ')
}

interface Filed {
  readonly file: string
  readonly certificate: X509Certificate
}

function ownOf(sets: Readonly<Record<string, Certificates>>): Filed[] {
  return distinct(
    Object.values(sets).flatMap(({ files, chain }) =>
      chain.slice(0, 1).map(certificate => ({ file: files.cert, certificate })),
    ),
  )
}

function allOf(sets: Readonly<Record<string, Certificates>>): Filed[] {
  return distinct(
    Object.values(sets).flatMap(({ files, chain, authorities }) => [
      ...chain.map(certificate => ({ file: files.cert, certificate })),
      ...authorities.map(certificate => ({ file: files.ca, certificate })),
    ]),
  )
}

function distinct(filed: readonly Filed[]): Filed[] {
  return [...new Map(filed.map(each => [each.file + each.certificate.fingerprint256, each])).values()]
}

function describe({ file, certificate }: Filed): Record<string, string> {
  const { serialNumber, validTo } = certificate
  return { file, of: nameOf(certificate), serial: serialNumber, valid_to: new Date(validTo).toISOString() }
}

function isSame(
  before: Readonly<Record<string, Certificates>>,
  after: Readonly<Record<string, Certificates>>,
): boolean {
  const same = (a: Buffer | null, b: Buffer | null) => (a === null || b === null ? a === b : a.equals(b))
  return Object.entries(after).every(([use, { chainPem, keyPem, caPem }]) => {
    const old = before[use]
    return (
      old !== undefined && same(old.chainPem, chainPem) && same(old.keyPem, keyPem) && same(old.caPem, caPem)
    )
  })
}
