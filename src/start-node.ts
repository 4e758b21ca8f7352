import { lookup } from 'node:dns/promises'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import xxhash from 'xxhash-wasm'
import type { RunningNode, StartNode } from './cli/serve.ts'
import { commands } from './commands/table.ts'
import { joinAddress, splitAddress } from './config/forms.ts'
import type { Settings } from './config/table.ts'
import { tlsFilesOf } from './config.ts'
import { RemoteError, RoundhouseError } from './errors.ts'
import { BrokenInvariant } from './lib/assert.ts'
import { CertificateWatch } from './lib/certificate-watch.ts'
import { namesHost } from './lib/certificates.ts'
import { systemClock } from './lib/clock.ts'
import type { Logger } from './lib/logger.ts'
import { loadNodeCertificates, pathsOf } from './lib/node-certificates.ts'
import { openFilesMax } from './lib/open-files.ts'
import { systemRandom } from './lib/prng.ts'
import { tlsTrouble } from './lib/tls-trouble.ts'
import { FileDisk } from './log/file-disk.ts'
import type { ClusterSettings } from './node/meta-register.ts'
import { Node } from './node/node.ts'
import { ClusterName } from './peer/cluster-name.ts'
import { type NodeCredentials, nodeCredentials } from './peer/tls.ts'
import { GrpcPeers } from './peer/transport.ts'
import { type DataDirectory, openDataDirectory } from './storage/data-directory.ts'
import { DiskSpace } from './storage/disk-space.ts'
import { Journal } from './storage/journal.ts'
import { LmdbStateStore } from './storage/lmdb-state.ts'
import { Scrubber } from './storage/scrubber.ts'
import { connectionLimits } from './wire/grpc/options.ts'
import { createServer } from './wire/grpc/server.ts'

/**
 * A node on the real world: disk, network, clock. With main.ts, which it is a part of, the one place where ports meet
 * their adapters; `test/sim` is the other.
 */

/** What a stopping server grants calls that are under way, ms. */
const graceMs = 1_000
/** Between two looks at what is behind the name of the cluster; a start does not wait longer for the first than this. */
const clusterNameLookMs = 10_000
const firstLookMsMax = 2_000

export const startNode: StartNode = async (settings, log) => {
  const directory = await openDataDirectory({
    path: settings.dataDir,
    nodeId: settings.nodeId,
    random: systemRandom,
  })
  // What an unclean stop left is suspect until a scrub was through, however this process ends.
  const trust = { isVerified: directory.wasClean, isTroubled: false }
  const opened: (() => Promise<void> | void)[] = [
    () => directory.close(trust.isVerified && !trust.isTroubled),
  ]
  /** Closes what was opened, the last first. */
  const close = async () => {
    for (const each of opened.reverse()) {
      try {
        await each()
      } catch (error) {
        trust.isTroubled = true
        log.error('not closed as it should be', { error: error as Error })
      }
    }
  }
  try {
    return await bind(settings, log, directory, trust, opened, close)
  } catch (error) {
    await close()
    throw error
  }
}

async function bind(
  settings: Settings,
  log: Logger,
  directory: DataDirectory,
  trust: { isVerified: boolean },
  opened: (() => Promise<void> | void)[],
  close: () => Promise<void>,
): Promise<RunningNode> {
  const { h64 } = await xxhash()
  const { path } = directory
  const disk = new FileDisk(path)
  // Before all that writes: on a full disk it gives the reserve up.
  const space = new DiskSpace({
    disk,
    clock: systemClock,
    log,
    reserveBytes: settings.diskReserveBytes,
  })
  opened.push(() => space.close())
  const { journal, recovered, damage, torn } = Journal.open({
    disk,
    directory: 'journal',
    clock: systemClock,
    random: systemRandom,
    budgetBytes: settings.journalBudgetBytes,
    onNoSpace: () => space.refused(),
  })
  opened.push(
    () =>
      new Promise<void>((resolve, reject) =>
        journal.close(error => (error === null ? resolve() : reject(error))),
      ),
  )
  if (torn !== null)
    log.warn('journal: a torn last frame was cut', { path: torn.path, position: torn.position })
  for (const each of damage) log.error('journal: damaged', { ...each })
  const state = new LmdbStateStore({ directory: path })
  opened.push(() => state.close())

  const identity = () => ({
    clusterId: directory.identity.clusterId ?? '',
    nodeId: directory.identity.nodeId,
    storeId: directory.identity.storeId,
  })
  const dns = splitAddress(settings.clusterDns)
  // The system's resolver is asked: it knows search domains and the hosts file.
  const clusterName =
    dns === undefined ? null : new ClusterName(dns.host, name => lookup(name, { all: true }))
  const addressesBehind = async (name: ClusterName) =>
    (await name.look()).map(address => joinAddress(address, dns?.port ?? settings.port))
  const tls = await openTls(settings, log, opened, clusterName)
  let node: Node | null = null
  /** What was last said of the address of a peer or seed. */
  const tlsTroubles = new Map<string, string>()
  const peers = new GrpcPeers({
    identity,
    addressOf: id => node?.addressOf(id) ?? null,
    clock: systemClock,
    random: systemRandom,
    ...(tls === null ? {} : { credentials: tls.channel }),
    explain: async address => {
      const { host, port = settings.port } = splitAddress(address)!
      const why = await tlsTrouble(host, port, tls?.certificates() ?? null)
      // It is asked again and again, and no retry mends what is configured wrong.
      if (why !== null && tlsTroubles.get(address) !== why)
        log.warn('TLS keeps nodes apart', { address, why })
      if (why !== null) tlsTroubles.set(address, why)
      return why
    },
    onLost: (peer, address, why) => log.info('no link to a peer', { peer, address, why }),
  })
  opened.push(() => peers.close())
  node = new Node({
    ...directory.identity,
    peerAddress: settings.advertiseAddr,
    clientAddress: settings.advertiseClientAddr,
    zone: settings.zone,
    seeds: settings.seed,
    ...(clusterName === null ? {} : { discoverSeeds: () => addressesBehind(clusterName) }),
    isBootstrap: settings.bootstrap,
    cluster: {
      shardCount: settings.shardCount,
      replicationFactor: settings.replicationFactor,
      vNodeCount: settings.vNodeCount,
    },
    expected: expectedOf(settings),
    raft: {
      electionTicks: settings.raftElectionTicks,
      heartbeatTicks: settings.raftHeartbeatTicks,
    },
    tickMs: settings.raftTickMs,
    heartbeatIntervalMs: settings.heartbeatIntervalMs,
    gossipPeerCount: settings.gossipPeerCount,
    cleanupIntervalMs: settings.cleanupIntervalMs,
    messageTimeoutMs: settings.messageTimeoutMs,
    rebalanceMovesMax: settings.rebalanceMovesMax,
    nodeDownAfterMs: settings.nodeDownAfterMs,
    verifyIntervalMs: settings.verifyIntervalMs,
    rebalanceBytesPerSecond: settings.rebalanceBytesPerSecond,
    journal,
    recovered,
    state,
    peers,
    clock: systemClock,
    random: systemRandom,
    hash64: text => h64(text),
    log,
    schedule: run => void setImmediate(run),
    setClusterId: id => directory.setClusterId(id),
    disk: space,
    storedBytes: () => statSync(join(path, 'state', 'data.mdb'), { throwIfNoEntry: false })?.size ?? 0,
    processStats: () => ({
      ...processStats(),
      ...journalStats(journal),
      disk_free_bytes: space.freeBytes,
      disk_reserved_bytes: space.reservedBytes,
      scrub_rounds: scrubber.counters.rounds,
      scrub_broken: scrubber.counters.statesBroken + scrubber.counters.entriesBroken,
    }),
  })
  const { host } = node
  const scrubber = new Scrubber({
    directory: path,
    clock: systemClock,
    log,
    intervalMs: settings.scrubIntervalMs,
    bytesPerSecond: settings.scrubBytesPerSecond,
    isSuspect: !directory.wasClean,
    replicas: () => state.replicas().filter(replica => !host.unfit().has(replica)),
    journal,
    onBrokenState: (replica, why) => {
      state.condemn(replica)
      host.condemn(replica, why)
    },
    onBrokenEntry: (replica, index, why) => host.entryLost(replica, index, why),
    onReaderGone: () => state.forgetDeadReaders(),
  })
  opened.push(async () => {
    await scrubber.close()
    trust.isVerified ||= scrubber.counters.rounds > 0
  })
  const openFiles = openFilesMax()
  const server = createServer({
    service: node,
    peerService: node,
    isKeyed: name =>
      ['first', 'all', 'alternate', 'pair'].includes(commands.get(name.toUpperCase())?.keys ?? ''),
    messageTimeoutMs: settings.messageTimeoutMs,
    clock: systemClock,
    openFilesMax: openFiles,
    ...(tls === null ? {} : { credentials: tls.server, areCallersChecked: tls.areCallersChecked }),
    onRefused: refusal => log.warn('a call was refused', { ...refusal }),
    onUnexpected: error => {
      log.error('a call met a fault of this program', { error })
      // A broken invariant is not the caller's: going on could lose data, so it ends the process like anywhere else.
      if (error instanceof BrokenInvariant)
        setImmediate(() => {
          throw error
        })
    },
  })
  opened.push(() => server.close(graceMs))
  const limits = { connections: server.connectionsMax, open_files: openFiles ?? 'no limit' }
  if (server.connectionsMax < connectionLimits.connectionsMax)
    log.warn(
      'fewer connections are accepted than could be: the limit of open files (ulimit -n) is low',
      limits,
    )
  else log.info('connections that are accepted at one time', limits)
  await server.listen(settings.host, settings.port)
  if (settings.secondPort !== null) await server.listen(settings.host, settings.secondPort)
  // Not before: what the node reads to start, and its callers, go first.
  return run(node, log, close, () => scrubber.start())
}

/** null: TLS is off. */
async function openTls(
  settings: Settings,
  log: Logger,
  opened: (() => Promise<void> | void)[],
  clusterName: ClusterName | null,
): Promise<NodeCredentials | null> {
  const files = tlsFilesOf(settings)
  if (files === null) return null
  const watch = await CertificateWatch.start(
    {
      paths: pathsOf(files),
      load: () => loadNodeCertificates(files, systemClock.wall()),
      clock: systemClock,
      log,
    },
    mistakes => new RoundhouseError('CONFIG', { mistakes: mistakes.map(each => `TLS: ${each}`) }),
  )
  opened.push(() => watch.close())
  if (clusterName !== null) opened.push(await keepLooking(clusterName, log))
  const tls = nodeCredentials(watch, host => clusterName?.nameOf(host) ?? null)
  const [own] = watch.current.server.chain
  if (!tls.areCallersChecked) {
    log.warn('TLS without a CA asks nobody who he is: whoever reaches the port may read and write everything')
  }
  for (const address of new Set([settings.advertiseAddr, settings.advertiseClientAddr])) {
    const { host } = splitAddress(address)!
    if (own === undefined || namesHost(own, host)) continue
    log.warn('the certificate does not name the address that others are told to dial: they will refuse it', {
      address,
      certificate: files.server.cert,
      names: own.subjectAltName ?? 'none',
    })
  }
  log.info('TLS is on', {
    certificate: files.server.cert,
    valid_to: own && new Date(own.validTo).toISOString(),
    callers: tls.areCallersChecked ? `with a certificate of ${files.server.ca}` : 'anyone',
  })
  return tls
}

/** Addresses behind the name come and go while the node runs: those of the last look may prove themselves by it. */
async function keepLooking(name: ClusterName, log: Logger): Promise<() => void> {
  const look = () =>
    name.look().then(
      () => {},
      (error: Error) => log.debug('the name of the cluster is not known', { error: error.message }),
    )
  const timer = setInterval(() => void look(), clusterNameLookMs).unref()
  await Promise.race([look(), new Promise<void>(resolve => void systemClock.after(firstLookMsMax, resolve))])
  return () => clearInterval(timer)
}

/** What a person gave, of the settings that the cluster has as a whole. */
function expectedOf({ given, ...settings }: Settings): Partial<ClusterSettings> {
  const { shardCount, replicationFactor, vNodeCount } = settings
  return {
    ...(given.has('shardCount') ? { shardCount } : {}),
    ...(given.has('replicationFactor') ? { replicationFactor } : {}),
    ...(given.has('vNodeCount') ? { vNodeCount } : {}),
  }
}

function run(node: Node, log: Logger, close: () => Promise<void>, onReady: () => void): RunningNode {
  let isStopping = false
  const stop = async () => {
    isStopping = true
    await node.stop()
    await close()
  }
  const finished = new Promise<{ readonly code: number }>(resolve => {
    node.start().then(
      () => {
        log.info('ready')
        if (!isStopping) onReady()
      },
      (error: Error) => {
        if (isStopping) return
        log.error(
          error.message,
          error instanceof RoundhouseError || error instanceof RemoteError ? { code: error.code } : { error },
        )
        void stop().finally(() => resolve({ code: 1 }))
      },
    )
    void node.ended.then(async end => {
      if (isStopping) return
      // After a failed write nothing more is written: the process ends as it is, and the next start recovers.
      if (end.kind === 'failed') resolve({ code: 1 })
      else await stop().finally(() => resolve({ code: 0 }))
    })
  })
  return { stop, finished }
}

function processStats(): Record<string, number> {
  const { user, system } = process.cpuUsage()
  return { uptime_s: process.uptime(), cpu_s: (user + system) / 1e6, rss_bytes: process.memoryUsage.rss() }
}

function journalStats(journal: Journal): Record<string, number> {
  const { frames, seals, bytesWritten, slowestSyncMs, segments, usedBytes } = journal.stats()
  return {
    journal_fsyncs: frames,
    journal_seals: seals,
    journal_bytes_written: bytesWritten,
    journal_slowest_sync_ms: slowestSyncMs,
    journal_segments: segments,
    journal_used_bytes: usedBytes,
  }
}
