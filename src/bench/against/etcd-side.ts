/**
 * Three etcds on this machine with etcd's own defaults, each in a process of its own, started for the comparison and gone
 * after it. Writes and reads go to the leader, where they cost it least.
 */
import { join } from 'node:path'
import { credentials } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import { freePort, inPath, OwnProcess, removeDirectory, temporaryDirectory } from '../own-process.ts'
import { etcdPaths, putRequest, rangeRequest, rangeValue, statusOf } from './etcd-messages.ts'
import type { CallName } from './ports.ts'
import { RawClient } from './raw-client.ts'
import type { NodeReading, Side } from './side.ts'

const host = '127.0.0.1'
const pollMs = 100
const callMsMax = 2_000
const readyMsMax = 60_000

/** Throws, with what to install, where there is no etcd. */
export function etcdBinary(path?: string): string {
  const binary = inPath('etcd', path)
  if (binary !== null) return binary
  const mistake = 'there is no etcd in PATH: on Debian and Ubuntu, apt install etcd-server etcd-client'
  throw new RoundhouseError('CONFIG', { mistakes: [mistake] })
}

interface Member {
  readonly id: string
  readonly address: string
  readonly client: RawClient
  readonly command: readonly string[]
  process: OwnProcess
  /** As etcd numbers it. */
  number: bigint
}

export class EtcdSide implements Side {
  readonly name = 'etcd'
  version = ''
  private readonly directory = temporaryDirectory()
  private readonly signal: AbortSignal
  private readonly members: Member[] = []
  private leader: string | null = null

  private constructor(signal: AbortSignal) {
    this.signal = signal
  }

  static async start(nodes: number, signal: AbortSignal): Promise<EtcdSide> {
    const binary = etcdBinary()
    const side = new EtcdSide(signal)
    try {
      const places = []
      for (let number = 1; number <= nodes; number++)
        places.push({ id: `etcd${number}`, client: await freePort(), peer: await freePort() })
      const initial = places.map(({ id, peer }) => `${id}=http://${host}:${peer}`).join(',')
      for (const { id, client, peer } of places) {
        const [clientUrl, peerUrl] = [`http://${host}:${client}`, `http://${host}:${peer}`]
        const command = [
          ...[binary, '--name', id, '--data-dir', join(side.directory, id), '--logger', 'zap'],
          ...['--listen-client-urls', clientUrl, '--advertise-client-urls', clientUrl],
          ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
          ...['--initial-cluster', initial, '--initial-cluster-state', 'new', '--log-level', 'warn'],
        ]
        const address = `${host}:${client}`
        side.members.push({
          ...{ id, address, command, number: 0n, process: side.process(id, command) },
          client: new RawClient(address, credentials.createInsecure()),
        })
      }
      await side.ready()
      return side
    } catch (error) {
      await side.stop()
      throw error
    }
  }

  get nodes(): readonly { readonly id: string; readonly address: string }[] {
    return this.members
  }

  leaderOf(): string | null {
    return this.leader
  }

  /** As a majority of those that run sees it. */
  async askLeaders(): Promise<void> {
    const running = this.members.filter(({ process }) => process.isRunning)
    const found = await Promise.all(
      running.map(async member => {
        const status = statusOf(await member.client.ask(etcdPaths.status, new Uint8Array(), callMsMax))
        member.number = status.memberId
        this.version = status.version
        return status.leaderId
      }),
    )
    const leader = found[0]
    const isOne = leader !== undefined && leader !== 0n && found.every(each => each === leader)
    this.leader = isOne ? (running.find(({ number }) => number === leader)?.id ?? null) : null
  }

  /** All keys are in one group. */
  keysLedBy(nodeId: string): readonly string[] {
    return nodeId === this.leader ? ['bench:kill'] : []
  }

  path(call: CallName): string {
    return etcdPaths[call]
  }

  message(call: CallName, key: string, value: Uint8Array): Uint8Array {
    return call === 'set' ? putRequest(Buffer.from(key), value) : rangeRequest(Buffer.from(key))
  }

  valueIn(response: Uint8Array): Uint8Array | null {
    return rangeValue(response)
  }

  client(nodeId: string): RawClient {
    return this.member(nodeId).client
  }

  read(): Promise<readonly (NodeReading | null)[]> {
    return Promise.all(
      this.members.map(async ({ id, address, process }) => {
        const metrics = await metricsOf(address)
        if (metrics === null) return null
        const served = (method: string) => metrics.get(`grpc_server_handled_total ${method}`) ?? 0
        return {
          nodeId: id,
          cpuS: process.cpuS(),
          syncs: metrics.get('etcd_disk_wal_fsync_duration_seconds_count') ?? null,
          served: { set: served('Put'), get: served('Range') },
        }
      }),
    )
  }

  async kill(nodeId: string): Promise<void> {
    await this.member(nodeId).process.kill()
  }

  async restart(nodeId: string): Promise<void> {
    const member = this.member(nodeId)
    member.process = this.process(member.id, member.command)
    await this.ready()
  }

  async stop(): Promise<void> {
    for (const { client } of this.members) client.close()
    await Promise.all(this.members.map(({ process }) => process.stop()))
    removeDirectory(this.directory)
  }

  private member(nodeId: string): Member {
    const member = this.members.find(each => each.id === nodeId)
    if (member === undefined) throw new Error(`there is no ${nodeId}`)
    return member
  }

  private process(name: string, command: readonly string[]): OwnProcess {
    const env = { PATH: process.env.PATH ?? '' }
    return new OwnProcess({ name, command, env, directory: this.directory, isSupervised: false })
  }

  /** All answer and name one leader. */
  private async ready(): Promise<void> {
    const untilMs = performance.now() + readyMsMax
    for (;;) {
      const trouble = await this.askLeaders().then(
        () => (this.leader === null ? 'it has no leader' : null),
        (error: Error) => error.message,
      )
      if (trouble === null) return
      this.signal.throwIfAborted()
      const ended = this.members.find(({ process }) => !process.isRunning)
      if (ended !== undefined) throw new Error(`${ended.id} has ended:\n${ended.process.lastLines()}`)
      if (performance.now() > untilMs)
        throw new Error(`etcd is not in place after ${readyMsMax / 1_000} s: ${trouble}`)
      await new Promise(resolve => setTimeout(resolve, pollMs))
    }
  }
}

/** null: it does not answer. */
async function metricsOf(address: string): Promise<ReadonlyMap<string, number> | null> {
  try {
    const response = await fetch(`http://${address}/metrics`, { signal: AbortSignal.timeout(callMsMax) })
    return metricsIn(await response.text())
  } catch {
    return null
  }
}

/** Of Prometheus' text: names without labels, and calls that were answered well as `grpc_server_handled_total Put`. */
export function metricsIn(text: string): Map<string, number> {
  const found = new Map<string, number>()
  for (const line of text.split('\n')) {
    const plain = /^([a-z_]+) ([\d.e+]+)$/.exec(line)
    if (plain !== null) found.set(plain[1]!, Number(plain[2]))
    const call = /^grpc_server_handled_total\{grpc_code="OK",grpc_method="(\w+)".*\} ([\d.e+]+)$/.exec(line)
    if (call !== null) found.set(`grpc_server_handled_total ${call[1]}`, Number(call[2]))
  }
  return found
}
