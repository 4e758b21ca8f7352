/** Which settings there are: names, forms, defaults, meanings. A new one is a row here and nothing else. */
import { placeOf } from './file.ts'
import {
  address,
  addresses,
  bindAddress,
  boolean,
  duration,
  type Form,
  host,
  integer,
  oneOf,
  powerOfTwo,
  size,
  text,
} from './forms.ts'

export interface Setting<T> {
  /** In a configuration file. The flag is this with dashes, the first variable this in capitals. */
  readonly key: string
  readonly form: Form<T>
  /** Where nothing is given; `required` settings have none that counts. */
  readonly fallback: T
  readonly fallbackText?: string
  readonly isRequired?: boolean
  /** More variables that name the same thing. */
  readonly variables?: readonly string[]
  /** More keys, and flags, that name the same thing: what the systems call it that Roundhouse replaces. */
  readonly aliases?: readonly string[]
  readonly meaning: string
}

const setting = <T>(
  key: string,
  form: Form<T>,
  fallback: T,
  meaning: string,
  more: Partial<Setting<T>> = {},
) => ({ key, form, fallback, meaning, ...more }) as Setting<T>

const path = text('a path', /^[^\0]+$/)

export const table = {
  nodeId: setting(
    'node_id',
    text('1 to 64 letters, digits, dots, dashes or underscores', /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/),
    '',
    'Name of this node, its own for ever.',
    { isRequired: true, aliases: ['node_name'] },
  ),
  host: setting('host', host, '0.0.0.0', 'Address to listen on.'),
  port: setting('port', integer(1, 65_535), 8080, 'Port for clients and peers.', { aliases: ['rpc_port'] }),
  bindAddr: setting(
    'bind_addr',
    bindAddress,
    '',
    'Host and port in one. Beside a port that is another, both ports answer everything.',
    { fallbackText: 'host and port' },
  ),
  advertiseAddr: setting('advertise_addr', address, '', 'Address that peers dial.', {
    fallbackText: 'host, or this machine’s first address, with port',
  }),
  advertiseClientAddr: setting('advertise_client_addr', address, '', 'Address that clients outside dial.', {
    fallbackText: 'advertise_addr',
  }),
  dataDir: setting('data_dir', path, '', 'Where everything this node must not forget is kept.', {
    fallbackText: './data/NODE_ID',
  }),
  bootstrap: setting(
    'bootstrap',
    boolean,
    false,
    'Make a new cluster if the data directory is empty and no seed knows one; otherwise nothing.',
  ),
  seed: setting<readonly string[]>(
    'seed',
    addresses,
    [],
    'Nodes to ask for the cluster. (SEED_NODE_ID is accepted and not needed.)',
    {
      aliases: ['start_join_addrs'],
      variables: ['SEED_NODE_ADDR', 'SEED_NODE', 'SEED_NODES'],
      fallbackText: 'none',
    },
  ),
  clusterDns: setting(
    'cluster_dns',
    address,
    '',
    'A name that stands for many nodes to ask: all addresses behind it, looked up again in each round.',
    { fallbackText: 'none' },
  ),
  zone: setting(
    'zone',
    text('at most 64 letters, digits, dots, dashes or underscores', /^[A-Za-z0-9._-]{0,64}$/),
    '',
    'What fails together with this node: replicas of a shard go to different zones where there are several.',
    { fallbackText: 'none' },
  ),
  shardCount: setting(
    'shard_count',
    powerOfTwo(1, 4096),
    64,
    'Shards of the cluster. Fixed when the cluster is made.',
  ),
  replicationFactor: setting(
    'replication_factor',
    integer(1, 7),
    3,
    'Replicas of each shard. Voters are the largest odd number of them that there are nodes for.',
  ),
  vNodeCount: setting('v_node_count', integer(1, 4096), 128, 'Tokens of a node of weight 1 on the ring.'),
  heartbeatIntervalMs: setting(
    'heartbeat_interval',
    duration('50ms', '1m'),
    1_000,
    'Between two rounds of gossip.',
  ),
  gossipPeerCount: setting('gossip_peer_count', integer(1, 16), 2, 'Peers that a round of gossip asks.'),
  messageTimeoutMs: setting(
    'message_timeout',
    duration('100ms', '5m'),
    5_000,
    'How long a command may take before its caller is told.',
  ),
  cleanupIntervalMs: setting(
    'cleanup_interval',
    duration('100ms', '1h'),
    10_000,
    'Between two sweeps of expired keys.',
  ),
  raftTickMs: setting('raft_tick', duration('5ms', '5s'), 50, 'The step in which Raft counts time.'),
  raftHeartbeatTicks: setting(
    'raft_heartbeat_interval',
    integer(1, 100),
    5,
    'Ticks between a leader’s heartbeats.',
  ),
  raftElectionTicks: setting(
    'raft_election_timeout',
    integer(3, 1_000),
    20,
    'Ticks without a leader before a follower stands; each draws from here to one less than the double.',
  ),
  journalBudgetBytes: setting(
    'journal_budget',
    size('64MiB', '1024GiB'),
    512 * 2 ** 20,
    'Journal kept for followers that are behind; beyond it they get a snapshot. Unapplied entries stay regardless.',
  ),
  diskReserveBytes: setting(
    'disk_reserve',
    size('0B', '64GiB'),
    64 * 2 ** 20,
    'Disk kept in reserve for votes and compaction. With less than as much again free, the disk is nearly full: writes wait while a quorum of their shard is. 0: none.',
  ),
  scrubIntervalMs: setting(
    'scrub_interval',
    duration('1m', '8760h', 'never'),
    24 * 3_600_000,
    'Between two readings of all that is on disk, to find rot before it is needed. After an unclean stop one begins at once.',
  ),
  scrubBytesPerSecond: setting(
    'scrub_rate',
    size('64KiB', '64GiB'),
    16 * 2 ** 20,
    'Bytes a second that such a reading may take, on the average. After an unclean stop it is as fast as it can be.',
  ),
  rebalanceMovesMax: setting(
    'rebalance_moves',
    integer(1, 256),
    24,
    'Shards that move replicas at the same time.',
  ),
  nodeDownAfterMs: setting(
    'node_down_after',
    duration('1m', '168h', 'never'),
    15 * 60_000,
    'A node that is dead for longer loses its replicas to the others, where enough are there.',
  ),
  verifyIntervalMs: setting(
    'verify_interval',
    duration('1m', '720h', 'never'),
    24 * 3_600_000,
    'Between two comparisons of the rows of a shard’s replicas.',
  ),
  rebalanceBytesPerSecond: setting(
    'rebalance_bandwidth',
    size('64KiB', '64GiB'),
    64 * 2 ** 20,
    'Bytes a second at which this node takes snapshots of replicas that move to it.',
  ),
  tlsCertPath: setting(
    'tls_cert_path',
    path,
    '',
    'Certificate of this node in PEM, with those between it and the CA. With the key it turns TLS on, for everything.',
    { fallbackText: 'none' },
  ),
  tlsKeyPath: setting('tls_key_path', path, '', 'The certificate’s private key in PEM.', {
    fallbackText: 'none',
  }),
  tlsCaPath: setting(
    'tls_ca_path',
    path,
    '',
    'CA in PEM (or several) whose certificates callers must present: peers their node’s, clients any. Without it nobody is asked who he is.',
    { fallbackText: 'none' },
  ),
  serverTlsCertFile: setting('server_tls_cert_file', path, '', 'What the port presents.', {
    fallbackText: 'tls_cert_path',
  }),
  serverTlsKeyFile: setting('server_tls_key_file', path, '', 'Its private key.', {
    fallbackText: 'tls_key_path',
  }),
  serverTlsCaFile: setting('server_tls_ca_file', path, '', 'CA of those who call.', {
    fallbackText: 'tls_ca_path',
  }),
  peerTlsCertFile: setting('peer_tls_cert_file', path, '', 'What this node presents to the peers it calls.', {
    fallbackText: 'tls_cert_path',
  }),
  peerTlsKeyFile: setting('peer_tls_key_file', path, '', 'Its private key.', {
    fallbackText: 'tls_key_path',
  }),
  peerTlsCaFile: setting('peer_tls_ca_file', path, '', 'CA of the peers that are called.', {
    fallbackText: 'tls_ca_path',
  }),
  configFile: setting(
    'config_file',
    path,
    '',
    'A file of settings: .yaml, .toml, .json or .env. Its keys are the flags’ names, with _ or -.',
    { fallbackText: 'none' },
  ),
  logLevel: setting(
    'log_level',
    oneOf('debug', 'info', 'warn', 'error', 'silent'),
    'info',
    'The least that is logged.',
  ),
} as const

type Table = typeof table
export type SettingName = keyof Table
type ValueOf<S> = S extends Setting<infer T> ? T : never

/** Settings by their names in the code: durations are milliseconds (…Ms), sizes bytes (…Bytes), Raft's times ticks. */
export type Settings = { readonly [Name in SettingName]: ValueOf<Table[Name]> } & {
  /** Another port to listen on, which `bind_addr` names; null: there is none. */
  readonly secondPort: number | null
  /** What was given by a person, and where: only these may differ from the cluster's and be refused for it. */
  readonly given: ReadonlyMap<SettingName, Origin>
}

/** Where a value came from; `name` is as it is written there. */
export type Origin =
  | { readonly kind: 'flag' | 'variable'; readonly name: string }
  | { readonly kind: 'file'; readonly path: string; readonly line: number | null; readonly name: string }

/** `flag --port`, `variable PORT`, `conf.yaml:3 port`. */
export function originText(origin: Origin): string {
  return origin.kind === 'file'
    ? `${placeOf(origin.path, origin.line)} ${origin.name}`
    : `${origin.kind} ${origin.name}`
}

export const entries = Object.entries(table) as [SettingName, Setting<unknown>][]

export function flagOf(name: SettingName): string {
  return table[name].key.replaceAll('_', '-')
}

export function variablesOf(setting: Setting<unknown>): readonly string[] {
  return [setting.key.toUpperCase(), ...(setting.variables ?? [])]
}

export function keysOf(setting: Setting<unknown>): readonly string[] {
  return [setting.key, ...(setting.aliases ?? [])]
}

export function flagsOf(setting: Setting<unknown>): readonly string[] {
  return keysOf(setting).map(key => key.replaceAll('_', '-'))
}

export function fallbackText(setting: Setting<unknown>): string {
  return setting.fallbackText ?? setting.form.format(setting.fallback)
}
