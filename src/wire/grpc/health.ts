/**
 * grpc.health.v1.Health: SERVING when the node has joined and its loop turns; a shard without a leader does not change
 * it. A check looks at the node when it is asked; watchers hear of a change within `healthRefreshMs`.
 */
import type { Server, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js'
import { HealthImplementation } from 'grpc-health-check'
import type { Clock } from '../../lib/clock.ts'
import { grpcLimits } from './options.ts'

/** The empty name is the server as a whole. */
const names = ['', 'clusterpb.ClusterNode', 'log.v1.Log', 'roundhouse.v1.Streams', 'roundhouse.v1.Admin']

export class Health {
  private readonly isServing: () => boolean
  private readonly clock: Clock
  private readonly implementation = new HealthImplementation()
  private known: boolean | null = null
  private isClosing = false
  private cancelTimer: () => void = () => {}

  constructor(isServing: () => boolean, clock: Clock) {
    this.isServing = isServing
    this.clock = clock
    this.watch()
  }

  addTo(server: Server): void {
    const addService = (definition: object, handlers: object) => {
      const { check, ...others } = handlers as UntypedServiceImplementation
      const fresh = (...args: unknown[]) => {
        this.refresh()
        return (check as unknown as (...args: unknown[]) => unknown)(...args)
      }
      server.addService(definition as ServiceDefinition, { ...others, check: fresh as typeof check & object })
    }
    this.implementation.addToServer({ addService } as Parameters<HealthImplementation['addToServer']>[0])
  }

  /** NOT_SERVING from now on: load balancers should look elsewhere while the last calls end. */
  close(): void {
    this.isClosing = true
    this.cancelTimer()
    this.refresh()
  }

  private watch(): void {
    this.refresh()
    this.cancelTimer = this.clock.after(grpcLimits.healthRefreshMs, () => this.watch())
  }

  private refresh(): void {
    const serves = !this.isClosing && this.isServing()
    if (serves === this.known) return
    this.known = serves
    for (const name of names) this.implementation.setStatus(name, serves ? 'SERVING' : 'NOT_SERVING')
  }
}
