/**
 * How long nobody can write when a leader is killed. While writes of its keys come in through the other nodes, one every
 * few milliseconds whatever becomes of those before it, the leader gets SIGKILL; what counts is the time until a write
 * that was begun after that is acknowledged. (One writer that waits for its answer would measure its own time limit: a
 * write that was passed on to the dead leader just before hangs for seconds in either store.)
 */
import { Prng } from '../../lib/prng.ts'
import type { Kill } from './ports.ts'
import type { RawClient } from './raw-client.ts'
import type { Side } from './side.ts'

/** Between two writes of one key. */
const everyMs = 10
/** Keys that are tried, each in another shard that the victim leads. */
const keysMax = 4
const writeMsMax = 10_000
const underWayMax = 4_000
/** Until all keys can be written before the kill, and after it. */
const steadyMsMax = 30_000
const recoveredMsMax = 120_000

export async function killLeader(side: Side, valueBytes: number, signal: AbortSignal): Promise<Kill> {
  await side.askLeaders()
  const victim = side.leaderOf('bench:kill')
  if (victim === null) throw new Error(`${side.name} has no leader to kill`)
  const survivors = side.nodes.filter(({ id }) => id !== victim).map(({ id }) => side.client(id))
  const value = new Prng(1).bytes(valueBytes)
  const probes = side
    .keysLedBy(victim, keysMax)
    .map(key => new Probe(side, survivors, side.message('set', key, value)))
  const ticks = setInterval(() => {
    for (const probe of probes) probe.write()
  }, everyMs)
  try {
    await until(() => probes.every(each => each.isSteady), steadyMsMax, `${side.name}: writes`, signal)
    const killedMs = performance.now()
    const ended = side.kill(victim)
    for (const probe of probes) probe.killedMs = killedMs
    await ended
    await until(
      () => probes.every(each => each.gapMs !== null),
      recoveredMsMax,
      `${side.name}: writes after the kill`,
      signal,
    )
  } finally {
    clearInterval(ticks)
  }
  await side.restart(victim)
  return { side: side.name, nodeId: victim, gapsMs: probes.map(each => each.gapMs!) }
}

class Probe {
  /** Infinity: it lives. */
  killedMs = Number.POSITIVE_INFINITY
  gapMs: number | null = null
  isSteady = false
  private readonly path: string
  private readonly clients: readonly RawClient[]
  private readonly message: Uint8Array
  private underWay = 0
  private turn = 0

  constructor(side: Side, clients: readonly RawClient[], message: Uint8Array) {
    this.path = side.path('set')
    this.clients = clients
    this.message = message
  }

  write(): void {
    if (this.underWay >= underWayMax || this.gapMs !== null) return
    this.underWay += 1
    this.turn += 1
    const begunMs = performance.now()
    const client = this.clients[this.turn % this.clients.length]!
    client.send(
      this.path,
      this.message,
      failure => {
        this.underWay -= 1
        if (failure !== null) return
        this.isSteady = true
        if (begunMs > this.killedMs) this.gapMs ??= performance.now() - this.killedMs
      },
      writeMsMax,
    )
  }
}

async function until(holds: () => boolean, msMax: number, what: string, signal: AbortSignal): Promise<void> {
  const untilMs = performance.now() + msMax
  while (!holds()) {
    signal.throwIfAborted()
    if (performance.now() > untilMs) throw new Error(`not within ${msMax / 1_000} s: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
