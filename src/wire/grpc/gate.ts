/**
 * The gate before all services, where callers are known by their certificates: a call is looked at when its headers have
 * come, before any of its bytes are read. Who has no certificate of the CA gets no answer but why; Peer and Heartbeat are
 * for nodes, Admin for admins. What depends on the request (whether a node says its own name) is asked in the handlers.
 *
 * A certificate is judged once a connection, at its first call: connections outlive certificates that expire or are
 * replaced.
 */
import type { ServerHttp2Stream } from 'node:http2'
import type { TLSSocket } from 'node:tls'
import { type Metadata, ServerInterceptingCall, type ServerInterceptor, status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import { assert } from '../../lib/assert.ts'
import { nameOf, untimely } from '../../lib/certificates.ts'
import type { Clock } from '../../lib/clock.ts'
import { type Caller, callerOfCertificate, demandAdmin, demandNode } from '../../peer/caller.ts'
import { statusOf } from '../../peer/status.ts'

/** Who may call: any certificate of the CA, a node's, an admin's. */
type Need = 'any' | 'node' | 'admin'

const needOfService: Readonly<Record<string, Need>> = {
  'clusterpb.ClusterNode': 'any',
  'log.v1.Log': 'any',
  'grpc.health.v1.Health': 'any',
  'grpc.reflection.v1.ServerReflection': 'any',
  'grpc.reflection.v1alpha.ServerReflection': 'any',
  'roundhouse.v1.Peer': 'node',
  'roundhouse.v1.Admin': 'admin',
}
const needOfMethod: Readonly<Record<string, Need>> = { '/clusterpb.ClusterNode/Heartbeat': 'node' }

/** Of `/package.Service/Method`; undefined: nobody thought of it, so nobody may. */
export function needOf(path: string): Need | undefined {
  return needOfMethod[path] ?? needOfService[path.split('/')[1] ?? '']
}

const reportLimits = {
  /** Refusals that are reported within `windowMs`; the rest is counted. */
  reportsMax: 10,
  windowMs: 10_000,
} as const

export interface Refusal {
  readonly method: string
  /** host:port of the caller. */
  readonly from: string
  readonly why: string
  /** Refusals before this one that were not reported. */
  readonly unreported: number
}

type Judgement =
  | { readonly caller: Caller; readonly error: null }
  | { readonly caller: null; readonly error: RoundhouseError }

export class Gate {
  private readonly clock: Clock
  private readonly onRefused: (refusal: Refusal) => void
  private readonly judgements = new WeakMap<object, Judgement>()
  private readonly callers = new WeakMap<Metadata, Caller>()
  private windowFromMs = Number.NEGATIVE_INFINITY
  private reports = 0
  private unreported = 0

  constructor(clock: Clock, onRefused: (refusal: Refusal) => void) {
    this.clock = clock
    this.onRefused = onRefused
  }

  /** Who made the call that came with this metadata. */
  readonly callerOf = (metadata: Metadata): Caller => {
    const caller = this.callers.get(metadata)
    assert(caller !== undefined, 'every call has passed the gate')
    return caller
  }

  readonly interceptor: ServerInterceptor = ({ path }, call) =>
    new ServerInterceptingCall(call, {
      start: next =>
        next({
          onReceiveMetadata: (metadata, admit) => {
            try {
              this.callers.set(metadata, this.admit(path, connectionOf(call)))
            } catch (error) {
              const refusal = statusOf(error)
              this.report(path, call.getPeer(), refusal.details)
              call.sendStatus(refusal)
              return
            }
            admit(metadata)
          },
        }),
      sendStatus: (sent, next) => {
        if (sent.code === status.PERMISSION_DENIED) this.report(path, call.getPeer(), sent.details ?? '')
        next(sent)
      },
    })

  private admit(path: string, connection: Connection): Caller {
    const { caller, error } = this.judge(connection)
    if (error !== null) throw error
    switch (needOf(path)) {
      case 'any':
        return caller
      case 'node':
        demandNode(caller, 'speak as a peer')
        return caller
      case 'admin':
        demandAdmin(caller, `call ${path}`)
        return caller
      case undefined:
        throw new RoundhouseError('DENIED', {
          who: caller.name,
          what: `call ${path}`,
          needed: 'it is open to nobody',
        })
    }
  }

  private judge({ session, socket }: Connection): Judgement {
    let judgement = this.judgements.get(session)
    if (judgement === undefined) {
      const error = this.refusalOf(socket)
      judgement =
        error === null
          ? { caller: callerOfCertificate(socket.getPeerX509Certificate()!), error }
          : { caller: null, error }
      this.judgements.set(session, judgement)
    }
    return judgement
  }

  /** `authorized` alone would not do: a resumed session without a certificate counts as authorized. */
  private refusalOf(socket: TLSSocket): RoundhouseError | null {
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) {
      return unauthenticated(
        'the caller presents no certificate; this node asks for one of its CA (TLS_CERT_PATH and TLS_KEY_PATH)',
      )
    }
    const who = `the caller's certificate, of ${nameOf(certificate)},`
    const when = untimely(certificate, this.clock.wall())
    if (when !== null) return unauthenticated(`${who} ${when}`)
    if (socket.authorized) return null
    return unauthenticated(`${who} is not of this node's CA (${codeOf(socket.authorizationError)})`)
  }

  private report(method: string, from: string, why: string): void {
    const nowMs = this.clock.now()
    if (nowMs - this.windowFromMs > reportLimits.windowMs) {
      this.windowFromMs = nowMs
      this.reports = 0
    }
    if (this.reports >= reportLimits.reportsMax) {
      this.unreported++
      return
    }
    this.reports++
    this.onRefused({ method, from, why, unreported: this.unreported })
    this.unreported = 0
  }
}

interface Connection {
  readonly session: object
  readonly socket: TLSSocket
}

/**
 * The connection of a call. grpc-js's own way, getAuthContext, makes its answer anew for each call (a tenth of what a call
 * costs), and keeps to itself why a certificate was not accepted. A call whose connection can't be found is refused.
 */
function connectionOf(call: unknown): Connection {
  try {
    const { session } = (call as { readonly stream: ServerHttp2Stream }).stream
    const socket = session?.socket as TLSSocket | undefined
    if (session !== undefined && typeof socket?.getPeerX509Certificate === 'function')
      return { session, socket }
  } catch {
    // It is gone.
  }
  throw unauthenticated('the connection is gone, or is none of TLS')
}

/** OpenSSL's name of what is wrong; the type says Error, and it is a text. */
function codeOf(error: unknown): string {
  return typeof error === 'string' ? error : ((error as NodeJS.ErrnoException | null)?.code ?? 'not verified')
}

function unauthenticated(why: string): RoundhouseError {
  return new RoundhouseError('UNAUTHENTICATED', { why })
}
