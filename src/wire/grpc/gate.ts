/**
 * The gate before all services, where callers are known by their certificates: a call is looked at when its headers have
 * come, before any of its bytes are read. Who has no certificate of the CA gets no answer but why; Peer and Heartbeat are
 * for nodes, Admin for admins. What depends on the request (whether a node says its own name) is asked in the handlers.
 *
 * A certificate is judged once a connection, at its first call: connections outlive certificates that expire or are
 * replaced.
 */
import type { ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { type Metadata, ServerInterceptingCall, type ServerInterceptor, status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import { assert } from '../../lib/assert.ts'
import { nameOf, untimely } from '../../lib/certificates.ts'
import type { Clock } from '../../lib/clock.ts'
import { type Caller, callerOfCertificate, demandAdmin, demandNode } from '../../peer/caller.ts'
import { statusOf } from '../../peer/status.ts'
import { farEndOf } from './connections.ts'
import { socketOf } from './front.ts'
import type { Refusals } from './refusals.ts'

/** Who may call: any certificate of the CA, a node's, an admin's. */
type Need = 'any' | 'node' | 'admin'

const needOfService: Readonly<Record<string, Need>> = {
  'clusterpb.ClusterNode': 'any',
  'log.v1.Log': 'any',
  // Where shards are led, and nothing to operate with: what refusals tell a client one by one.
  'roundhouse.v1.Shards': 'any',
  'roundhouse.v1.Streams': 'any',
  'roundhouse.v1.Watch': 'any',
  'grpc.health.v1.Health': 'any',
  'grpc.reflection.v1.ServerReflection': 'any',
  'grpc.reflection.v1alpha.ServerReflection': 'any',
  'roundhouse.v1.Peer': 'node',
  'roundhouse.v1.Admin': 'admin',
}
const needOfMethod: Readonly<Record<string, Need>> = {
  '/clusterpb.ClusterNode/Heartbeat': 'node',
}

/** Of `/package.Service/Method`; undefined: nobody thought of it, so nobody may. */
export function needOf(path: string): Need | undefined {
  return needOfMethod[path] ?? needOfService[path.split('/')[1] ?? '']
}

type Judgement =
  | { readonly caller: Caller; readonly error: null }
  | { readonly caller: null; readonly error: RoundhouseError }

export class Gate {
  private readonly clock: Clock
  private readonly refusals: Refusals
  private readonly judgements = new WeakMap<object, Judgement>()
  private readonly callers = new WeakMap<Metadata, Caller>()

  constructor(clock: Clock, refusals: Refusals) {
    this.clock = clock
    this.refusals = refusals
  }

  /** Who made the call that came with this metadata. */
  readonly callerOf = (metadata: Metadata): Caller => {
    const caller = this.callers.get(metadata)
    assert(caller !== undefined, 'every call has passed the gate')
    return caller
  }

  /** Of a call that comes past the interceptor. */
  readonly remember = (metadata: Metadata, caller: Caller): void => {
    this.callers.set(metadata, caller)
  }

  readonly interceptor: ServerInterceptor = ({ path }, call) =>
    new ServerInterceptingCall(call, {
      start: next =>
        next({
          onReceiveMetadata: (metadata, admit) => {
            try {
              this.callers.set(metadata, this.admit(path, socketOfCall(call)))
            } catch (error) {
              const refusal = statusOf(error)
              this.refusals.report(path, fromOf(call), refusal.details)
              call.sendStatus(refusal)
              return
            }
            admit(metadata)
          },
        }),
      sendStatus: (sent, next) => {
        if (sent.code === status.PERMISSION_DENIED)
          this.refusals.report(path, fromOf(call), sent.details ?? '')
        next(sent)
      },
    })

  /** As the interceptor does, for a call that comes past grpc-js. Throws where it may not. */
  admitDirect(path: string, socket: Socket): Caller {
    return this.admit(path, socket)
  }

  private admit(path: string, socket: Socket | undefined): Caller {
    const { caller, error } = this.judge(socket)
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

  /** A call whose connection can't be found is refused. */
  private judge(connection: Socket | undefined): Judgement {
    if (!isTls(connection))
      return { caller: null, error: unauthenticated('the connection is gone, or is none of TLS') }
    const socket: TLSSocket = connection
    let judgement = this.judgements.get(socket)
    if (judgement === undefined) {
      const error = this.refusalOf(socket)
      judgement =
        error === null
          ? { caller: callerOfCertificate(socket.getPeerX509Certificate()!), error }
          : { caller: null, error }
      this.judgements.set(socket, judgement)
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
}

function isTls(socket: Socket | undefined): socket is TLSSocket {
  return typeof (socket as TLSSocket | undefined)?.getPeerX509Certificate === 'function'
}

/**
 * The connection of a call of grpc-js. Its own way, getAuthContext, makes its answer anew for each call (a tenth of what a
 * call costs), and keeps to itself why a certificate was not accepted.
 */
function socketOfCall(call: unknown): Socket | undefined {
  return socketOf((call as { readonly stream?: ServerHttp2Stream }).stream)
}

function fromOf(call: unknown): string {
  const socket = socketOfCall(call)
  return socket === undefined ? 'unknown' : farEndOf(socket)
}

/** OpenSSL's name of what is wrong; the type says Error, and it is a text. */
function codeOf(error: unknown): string {
  return typeof error === 'string' ? error : ((error as NodeJS.ErrnoException | null)?.code ?? 'not verified')
}

function unauthenticated(why: string): RoundhouseError {
  return new RoundhouseError('UNAUTHENTICATED', { why })
}
