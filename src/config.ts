/**
 * Every setting of a node in one table: its flag, its variable, its key in a configuration file, its form, its default
 * and what it means. The shell builds its flags from it, `readSettings` reads by it, and the README's table is printed
 * from it, so the three can't drift apart.
 *
 * A setting comes from its flag, else from its variable, else from its default. All mistakes are found before any is
 * reported: a person mends a configuration once. (Files are a third source: `sourcesOf` is where they go.)
 */
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import {
  address,
  addresses,
  boolean,
  duration,
  type Form,
  host,
  integer,
  isUnspecified,
  joinAddress,
  oneOf,
  powerOfTwo,
  size,
  splitAddress,
  text,
} from './config/forms.ts'
import { RoundhouseError } from './errors.ts'
import { loadNodeCertificates, type NodeCertificateFiles } from './lib/node-certificates.ts'

// --- The table ------------------------------------------------------------------------------------------------------

interface Setting<T> {
  /** In a configuration file. The flag is this with dashes, the first variable this in capitals. */
  readonly key: string
  readonly form: Form<T>
  /** Where nothing is given; `required` settings have none that counts. */
  readonly fallback: T
  readonly fallbackText?: string
  readonly isRequired?: boolean
  /** More variables that name the same thing. */
  readonly variables?: readonly string[]
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

const table = {
  nodeId: setting(
    'node_id',
    text('1 to 64 letters, digits, dots, dashes or underscores', /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/),
    '',
    'Name of this node, its own for ever.',
    { isRequired: true },
  ),
  host: setting('host', host, '0.0.0.0', 'Address to listen on.'),
  port: setting('port', integer(1, 65_535), 8080, 'Port for clients and peers.'),
  advertiseAddr: setting('advertise_addr', address, '', 'Address that peers dial.', {
    fallbackText: 'host, or this machine’s first address, with port',
  }),
  advertiseClientAddr: setting('advertise_client_addr', address, '', 'Address that clients outside dial.', {
    fallbackText: 'advertise_addr',
  }),
  dataDir: setting(
    'data_dir',
    path,
    '',
    'Where everything this node must not forget is kept.',
    { fallbackText: './data/NODE_ID' },
  ),
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
    'Nodes to ask for the cluster; a DNS name stands for all its addresses. (SEED_NODE_ID is accepted and not needed.)',
    { variables: ['SEED_NODE_ADDR'], fallbackText: 'none' },
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
  rebalanceMovesMax: setting(
    'rebalance_moves',
    integer(1, 256),
    24,
    'Shards that move replicas at the same time.',
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
  /** What was given by a person: only these may differ from the cluster's and be refused for it. */
  readonly given: ReadonlySet<SettingName>
}

const entries = Object.entries(table) as [SettingName, Setting<unknown>][]

export function flagOf(name: SettingName): string {
  return table[name].key.replaceAll('_', '-')
}

function variablesOf(setting: Setting<unknown>): readonly string[] {
  return [setting.key.toUpperCase(), ...(setting.variables ?? [])]
}

// --- For the shell --------------------------------------------------------------------------------------------------

export interface FlagDescription {
  readonly flag: string
  readonly describe: string
  readonly isBoolean: boolean
}

/** What `serve --help` shows. Values stay texts: their forms are checked by `readSettings`, all together. */
export function settingFlags(): FlagDescription[] {
  return entries.map(([name, setting]) => ({
    flag: flagOf(name),
    describe: `${setting.meaning} ${setting.isRequired ? '[required]' : `[default: ${fallbackText(setting)}]`} [${variablesOf(setting).join(', ')}]`,
    isBoolean: setting.form.name === 'boolean',
  }))
}

function fallbackText(setting: Setting<unknown>): string {
  return setting.fallbackText ?? setting.form.format(setting.fallback)
}

// --- Reading --------------------------------------------------------------------------------------------------------

interface Given {
  /** `--port` or `PORT`, for the message. */
  readonly where: string
  readonly text: string
}

/**
 * Flags by their names (as the shell parsed them: text, boolean, or a list where one was repeated) and variables.
 * `mistakes` are what the shell found wrong already, unknown options for instance. Throws CONFIG with all mistakes.
 */
export function readSettings(
  flags: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
  mistakes: readonly string[] = [],
): Settings {
  const wrong = [...mistakes]
  const given = new Set<SettingName>()
  const values: Record<string, unknown> = {}
  for (const [name, setting] of entries) {
    values[name] = setting.fallback
    const source = sourceOf(name, setting, flags, env, wrong)
    if (source === undefined) {
      if (setting.isRequired) {
        wrong.push(`--${flagOf(name)} (or ${variablesOf(setting)[0]}) is missing: ${setting.form.accepted}`)
      }
      continue
    }
    const value = setting.form.parse(source.text)
    if (value === undefined) {
      wrong.push(`${source.where}: ${JSON.stringify(source.text)} is not ${setting.form.accepted}`)
      continue
    }
    given.add(name)
    values[name] = value
  }
  const settings = { ...values, given } as unknown as Settings
  wrong.push(...contradictions(settings))
  if (wrong.length > 0) throw new RoundhouseError('CONFIG', { mistakes: wrong })
  return complete(settings)
}

/** Where a setting comes from: its flag wins over its variables, the first of them over the others. */
function sourceOf(
  name: SettingName,
  setting: Setting<unknown>,
  flags: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
  wrong: string[],
): Given | undefined {
  const flag = flagOf(name)
  const raw = flags[flag]
  if (raw !== undefined) {
    if (Array.isArray(raw) && setting.form.name !== 'list') {
      wrong.push(`--${flag} is given ${raw.length} times: once is accepted`)
      return { where: `--${flag}`, text: String(raw[0]) }
    }
    return { where: `--${flag}`, text: Array.isArray(raw) ? raw.join(',') : String(raw) }
  }
  // An empty variable is what compose files and charts write for "not set".
  const variable = variablesOf(setting).find(each => (env[each] ?? '') !== '')
  return variable === undefined ? undefined : { where: variable, text: env[variable]! }
}

/** What no setting says by itself. */
function contradictions(settings: Settings): string[] {
  const wrong: string[] = []
  if (settings.raftElectionTicks <= settings.raftHeartbeatTicks) {
    wrong.push(
      `--${flagOf('raftElectionTicks')} (${settings.raftElectionTicks}) must be more than ` +
        `--${flagOf('raftHeartbeatTicks')} (${settings.raftHeartbeatTicks}), or every heartbeat comes too late`,
    )
  }
  const tls = tlsFilesOf(settings)
  if (tls !== null) {
    const certificates = loadNodeCertificates(tls, Date.now())
    if (!certificates.ok) wrong.push(...certificates.mistakes.map(each => `TLS: ${each}`))
  }
  return wrong
}

/** The files of TLS; null: it is off. */
export function tlsFilesOf(settings: Settings): NodeCertificateFiles | null {
  const { nodeId, tlsCertPath, tlsKeyPath, tlsCaPath } = settings
  const server = {
    cert: settings.serverTlsCertFile || tlsCertPath,
    key: settings.serverTlsKeyFile || tlsKeyPath,
    ca: settings.serverTlsCaFile || tlsCaPath,
  }
  // Peers are on the same port: TLS for callers is TLS for them.
  const peer = {
    cert: settings.peerTlsCertFile || tlsCertPath || server.cert,
    key: settings.peerTlsKeyFile || tlsKeyPath || server.key,
    ca: settings.peerTlsCaFile || tlsCaPath || server.ca,
  }
  const isOn = [...Object.values(server), ...Object.values(peer)].some(each => each !== '')
  return isOn ? { nodeId, server, peer } : null
}

/** Fills in what follows from other settings: ports of bare hosts, the advertised addresses, the data directory. */
function complete(settings: Settings): Settings {
  const withPort = (value: string) => {
    const parts = splitAddress(value)!
    return joinAddress(parts.host, parts.port ?? settings.port)
  }
  const reachable = isUnspecified(settings.host) ? firstAddress() : settings.host
  const advertiseAddr = withPort(settings.advertiseAddr || joinAddress(reachable, settings.port))
  return {
    ...settings,
    advertiseAddr,
    advertiseClientAddr: withPort(settings.advertiseClientAddr || advertiseAddr),
    seed: settings.seed.map(withPort),
    dataDir: settings.dataDir === '' ? join('data', settings.nodeId) : settings.dataDir,
  }
}

/** This machine's first address that others may reach, else the loopback. */
function firstAddress(): string {
  const found = Object.values(networkInterfaces())
    .flatMap(each => each ?? [])
    .find(each => each.family === 'IPv4' && !each.internal)
  return found?.address ?? '127.0.0.1'
}

// --- For the README -------------------------------------------------------------------------------------------------

/** The table between `<!-- settings -->` and `<!-- /settings -->` in the README. */
export function settingsTable(): string {
  const rows = entries.map(
    ([name, setting]) =>
      `| \`--${flagOf(name)}\` | ${variablesOf(setting)
        .map(each => `\`${each}\``)
        .join(
          ', ',
        )} | ${setting.isRequired ? '(required)' : fallbackText(setting)} | ${setting.meaning} Accepted: ${setting.form.accepted}. |`,
  )
  return ['| Flag | Variable | Default | Meaning |', '|---|---|---|---|', ...rows].join('\n')
}
