/**
 * Every setting of a node in one table: its flag, its variable, its key in a configuration file, its form, its default
 * and what it means. The shell builds its flags from it, `readSettings` reads by it, and the README's table is printed
 * from it, so the three can't drift apart.
 *
 * A setting comes from its flag, else from its variable, else from `.env` in the working directory (which is variables
 * that the process does not have), else from the configuration file, else from its default. All mistakes are found
 * before any is reported: a person mends a configuration once.
 */
import { networkInterfaces } from 'node:os'
import { basename, isAbsolute, join } from 'node:path'
import { type FileValue, placeOf, printable, readSettingsFile, type SettingsFile } from './config/file.ts'
import {
  address,
  addresses,
  bindAddress,
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
  splitBindAddress,
  text,
} from './config/forms.ts'
import { RoundhouseError } from './errors.ts'
import { nearest } from './lib/nearest.ts'
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

const table = {
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

const entries = Object.entries(table) as [SettingName, Setting<unknown>][]

export function flagOf(name: SettingName): string {
  return table[name].key.replaceAll('_', '-')
}

function variablesOf(setting: Setting<unknown>): readonly string[] {
  return [setting.key.toUpperCase(), ...(setting.variables ?? [])]
}

function keysOf(setting: Setting<unknown>): readonly string[] {
  return [setting.key, ...(setting.aliases ?? [])]
}

function flagsOf(setting: Setting<unknown>): readonly string[] {
  return keysOf(setting).map(key => key.replaceAll('_', '-'))
}

// --- For the shell --------------------------------------------------------------------------------------------------

export interface FlagDescription {
  readonly flag: string
  readonly describe: string
  readonly isBoolean: boolean
  /** Another name of a flag, which stands beside it in the help. */
  readonly isAlias: boolean
}

/** What `serve --help` shows. Values stay texts: their forms are checked by `readSettings`, all together. */
export function settingFlags(): FlagDescription[] {
  return entries.flatMap(([, setting]) => {
    const [main, ...aliases] = flagsOf(setting)
    const isBoolean = setting.form.name === 'boolean'
    const also = aliases.length === 0 ? '' : ` Also ${aliases.map(each => `--${each}`).join(', ')}.`
    const fallback = setting.isRequired ? '[required]' : `[default: ${fallbackText(setting)}]`
    const describe = `${setting.meaning}${also} ${fallback} [${variablesOf(setting).join(', ')}]`
    return [
      { flag: main!, describe, isBoolean, isAlias: false },
      ...aliases.map(flag => ({ flag, describe: `The same as --${main}.`, isBoolean, isAlias: true })),
    ]
  })
}

function fallbackText(setting: Setting<unknown>): string {
  return setting.fallbackText ?? setting.form.format(setting.fallback)
}

// --- Reading --------------------------------------------------------------------------------------------------------

/** Files of settings that a start reads. */
export interface Files {
  /** `.env` in the working directory; null: there is none. */
  readonly dotenv: SettingsFile | null
  /** What --config-file or CONFIG_FILE names; null: nothing. */
  readonly config: SettingsFile | null
}

const noFiles: Files = { dotenv: null, config: null }

type Flags = Readonly<Record<string, unknown>>
type Env = Readonly<Record<string, string | undefined>>

/** Reads the files; what is wrong with them is told by `readSettings`, together with all the rest. */
export function readFiles(flags: Flags, env: Env, directory = '.'): Files {
  const dotenv = readSettingsFile(join(directory, '.env'), true)
  const { configFile } = table
  const flag = [flags[flagOf('configFile')]].flat()[0]
  const source = flag === undefined ? fromVariables(configFile, env) : { text: String(flag) }
  const path =
    source?.text ?? (isHidden(configFile, env) ? undefined : valuesIn(dotenv, []).get('configFile')?.value)
  if (typeof path !== 'string' || path === '') return { dotenv, config: null }
  return { dotenv, config: readSettingsFile(isAbsolute(path) ? path : join(directory, path)) }
}

/**
 * Flags by their names (as the shell parsed them: text, boolean, or a list where one was repeated), variables and files.
 * `mistakes` are what the shell found wrong already, unknown options for instance. Throws CONFIG with all mistakes.
 */
export function readSettings(
  flags: Flags,
  env: Env,
  mistakes: readonly string[] = [],
  files: Files = noFiles,
): Settings {
  const { settings, missing, wrong } = find(flags, env, files)
  const all = [...mistakes, ...missing, ...wrong]
  if (all.length > 0) throw new RoundhouseError('CONFIG', { mistakes: all })
  return settings
}

/** A value with the place that gave it; places of a lower rank win. `value` undefined: it was not accepted. */
interface Found {
  readonly value: unknown
  readonly origin: Origin
  readonly rank: number
}

const ranks = { flag: 0, variable: 1, dotenv: 2, config: 3 } as const

function find(
  flags: Flags,
  env: Env,
  files: Files,
): { settings: Settings; missing: readonly string[]; wrong: readonly string[] } {
  const wrong: string[] = []
  const missing: string[] = []
  const inFiles: string[] = []
  const dotenv = valuesIn(files.dotenv, inFiles, ranks.dotenv)
  const config = valuesIn(files.config, inFiles, ranks.config)
  const found = new Map<SettingName, Found>()
  for (const [name, setting] of entries) {
    const text = fromFlags(setting, flags, wrong) ?? fromVariables(setting, env)
    if (text !== undefined) {
      const value = setting.form.parse(text.text)
      if (value === undefined)
        wrong.push(`${text.origin.name}: ${JSON.stringify(text.text)} is not ${setting.form.accepted}`)
      found.set(name, { value, origin: text.origin, rank: ranks[text.origin.kind] })
      continue
    }
    const value = (isHidden(setting, env) ? undefined : dotenv.get(name)) ?? config.get(name)
    if (value !== undefined) found.set(name, value)
    else if (setting.isRequired)
      missing.push(`--${flagOf(name)} (or ${variablesOf(setting)[0]}) is missing: ${setting.form.accepted}`)
  }
  wrong.push(...inFiles)
  const settings = settle(found, wrong)
  wrong.push(...contradictions(settings))
  return { settings: wrong.length === 0 ? complete(settings) : settings, missing, wrong }
}

interface Given {
  readonly text: string
  readonly origin: Origin & { readonly kind: 'flag' | 'variable' }
}

function fromFlags(setting: Setting<unknown>, flags: Flags, wrong: string[]): Given | undefined {
  const [main, ...others] = flagsOf(setting).filter(flag => flags[flag] !== undefined)
  if (main === undefined) return undefined
  const given = [main, ...others].flatMap(flag => flags[flag] as unknown[])
  const name = `--${main}`
  const isList = setting.form.name === 'list'
  if (others.length > 0 && !isList)
    wrong.push(`--${others[0]}: the same setting as ${name}: one of them is accepted`)
  else if (given.length > 1 && !isList) wrong.push(`${name} is given ${given.length} times: once is accepted`)
  return { text: isList ? given.join(',') : String(given[0]), origin: { kind: 'flag', name } }
}

/** An empty variable is what compose files and charts write for "not set". */
function fromVariables(setting: Setting<unknown>, env: Env): Given | undefined {
  const name = variablesOf(setting).find(each => (env[each] ?? '') !== '')
  return name === undefined ? undefined : { text: env[name]!, origin: { kind: 'variable', name } }
}

/** A variable that the process has, even an empty one, stands before the line of `.env`. */
function isHidden(setting: Setting<unknown>, env: Env): boolean {
  return variablesOf(setting).some(each => env[each] !== undefined)
}

// --- Reading files --------------------------------------------------------------------------------------------------

const byKey = new Map(entries.flatMap(([name, setting]) => keysOf(setting).map(key => [key, name] as const)))
const byVariable = new Map(
  entries.flatMap(([name, setting]) => variablesOf(setting).map(variable => [variable, name] as const)),
)
/** Said by the systems that Roundhouse replaces, and not needed. */
const idleVariables = ['SEED_NODE_ID']

/**
 * A `.env` is everybody's: compose files and other programs keep their variables there. What is no setting in it is not
 * refused, as a variable is not. Any other file is for this program alone.
 */
const isShared = (file: SettingsFile) => basename(file.path) === '.env'

/** What the file gives. All that is wrong with it goes to `wrong`, also what flags or variables stand before. */
function valuesIn(file: SettingsFile | null, wrong: string[], rank = 0): ReadonlyMap<SettingName, Found> {
  const found = new Map<SettingName, Found>()
  if (file === null) return found
  wrong.push(...file.mistakes)
  const isEnv = file.format === 'env'
  for (const { key, value, line } of file.entries) {
    const name = isEnv ? byVariable.get(key) : byKey.get(key.replaceAll('-', '_'))
    const place = placeOf(file.path, line)
    const origin: Origin = { kind: 'file', path: file.path, line, name: key }
    if (name === undefined) {
      if (!isShared(file) && !idleVariables.includes(key)) wrong.push(`${place}: ${unknownText(key, isEnv)}`)
      continue
    }
    if (value.kind === 'nothing') continue
    if (name === 'configFile' && !isShared(file)) {
      wrong.push(`${place}: ${key}: a file of settings can't name another one`)
      continue
    }
    const before = found.get(name)
    if (before !== undefined) {
      const first = before.origin.name
      // A file that has two names for one thing is wrong; variables have an order. The same key twice is told already.
      if (!isEnv && first !== key)
        wrong.push(`${place}: ${key}: the same setting as ${first}: one of them is accepted`)
      const variables = variablesOf(table[name])
      if (!isEnv || variables.indexOf(first) < variables.indexOf(key)) continue
    }
    const { form } = table[name] as Setting<unknown>
    const text = textOf(value, form)
    const parsed = text === undefined ? undefined : form.parse(text)
    if (parsed === undefined) wrong.push(`${place}: ${key}: ${describe(value, form)} is not ${form.accepted}`)
    found.set(name, { value: parsed, origin, rank })
  }
  return found
}

/** What a form is to parse; undefined where the value is of a kind that can't be meant. */
function textOf(value: FileValue, form: Form<unknown>): string | undefined {
  switch (value.kind) {
    case 'text':
      return value.text
    case 'number':
      return ['integer', 'size', 'duration'].includes(form.name) ? value.text : undefined
    case 'boolean':
      return form.name === 'boolean' ? value.text : undefined
    case 'list':
      return form.name === 'list' ? value.items.join(',') : undefined
    default:
      return undefined
  }
}

function describe(value: FileValue, form: Form<unknown>): string {
  switch (value.kind) {
    case 'text':
      return JSON.stringify(printable(value.text))
    case 'number':
    case 'boolean':
      return `the ${value.kind} ${value.text}${form.name === 'string' ? ', without quotes,' : ''}`
    case 'list':
      return 'a list'
    default:
      return value.kind === 'other' ? value.what : 'nothing'
  }
}

function unknownText(key: string, isEnv: boolean): string {
  const known = [...(isEnv ? byVariable : byKey).keys()]
  const word = isEnv ? key.toUpperCase() : key.toLowerCase().replaceAll('-', '_')
  const meant = nearest(word, known)
  return `unknown setting ${printable(key, 64)}${meant === null ? '' : `: did you mean ${meant}?`}`
}

/** Lines of a shared `.env` that look like settings with a slip of the pen; other programs may mean them. */
export function notesOn(file: SettingsFile | null): string[] {
  if (file === null || !isShared(file)) return []
  return file.entries.flatMap(({ key, line }) => {
    const isOthers =
      byVariable.has(key) || byVariable.has(key.replace(/_?[0-9]+$/, '')) || idleVariables.includes(key)
    const meant = isOthers ? null : nearest(key.toUpperCase(), [...byVariable.keys()])
    return meant === null ? [] : [`${placeOf(file.path, line)}: ${key} is no setting: did you mean ${meant}?`]
  })
}

/** What is wrong with a file by itself, and how many settings it gives. Files that it names are not looked at. */
export function checkFile(file: SettingsFile): {
  readonly mistakes: readonly string[]
  readonly count: number
} {
  const mistakes: string[] = []
  const found = valuesIn(file, mistakes)
  const settings = settle(found, mistakes)
  return { mistakes: [...mistakes, ...timingMistakes(settings), ...notesOn(file)], count: found.size }
}

// --- Putting together -----------------------------------------------------------------------------------------------

/** Values or their defaults. `bind_addr` is host and port: whichever of it and them has the better place wins. */
function settle(found: ReadonlyMap<SettingName, Found>, wrong: string[]): Settings {
  const given = new Map<SettingName, Origin>()
  const values: Record<string, unknown> = {}
  for (const [name, setting] of entries) {
    const each = found.get(name)
    values[name] = each?.value ?? setting.fallback
    if (each !== undefined && each.value !== undefined) given.set(name, each.origin)
  }
  const settings = { ...values, secondPort: null, given } as unknown as Settings
  const bind = found.get('bindAddr')
  if (bind === undefined || bind.value === undefined) return settings
  const parts = splitBindAddress(bind.value as string)!
  const [hostFound, portFound] = [found.get('host'), found.get('port')]
  let { host, port } = settings
  if (hostFound === undefined || bind.rank < hostFound.rank) {
    host = parts.host
    given.set('host', bind.origin)
  } else if (bind.rank === hostFound.rank && host !== parts.host) {
    wrong.push(
      `${originText(bind.origin)} says another host (${parts.host}) than ${originText(hostFound.origin)} (${host})`,
    )
  }
  if (parts.port !== undefined && portFound === undefined) {
    port = parts.port
    given.set('port', bind.origin)
  }
  const secondPort = parts.port === undefined || parts.port === port ? null : parts.port
  return { ...settings, host, port, secondPort }
}

/** What no setting says by itself. */
function contradictions(settings: Settings): string[] {
  const wrong = timingMistakes(settings)
  const tls = tlsFilesOf(settings)
  if (tls !== null) {
    const certificates = loadNodeCertificates(tls, Date.now())
    if (!certificates.ok) wrong.push(...certificates.mistakes.map(each => `TLS: ${each}`))
  }
  return wrong
}

function timingMistakes({ raftElectionTicks, raftHeartbeatTicks }: Settings): string[] {
  if (raftElectionTicks > raftHeartbeatTicks) return []
  return [
    `${table.raftElectionTicks.key} (${raftElectionTicks}) must be more than ` +
      `${table.raftHeartbeatTicks.key} (${raftHeartbeatTicks}), or every heartbeat comes too late`,
  ]
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
    clusterDns: settings.clusterDns === '' ? '' : withPort(settings.clusterDns),
    dataDir: settings.dataDir === '' ? join('data', settings.nodeId || 'NODE_ID') : settings.dataDir,
  }
}

/** This machine's first address that others may reach, else the loopback. */
function firstAddress(): string {
  const found = Object.values(networkInterfaces())
    .flatMap(each => each ?? [])
    .find(each => each.family === 'IPv4' && !each.internal)
  return found?.address ?? '127.0.0.1'
}

// --- For showing ----------------------------------------------------------------------------------------------------

export interface SettingRow {
  /** The key in a file. */
  readonly key: string
  /** As a person would write it; '' where there is none. */
  readonly text: string
  readonly value: unknown
  /** null: nobody gave it. */
  readonly origin: Origin | null
}

/** Every setting as a start would take it. Throws CONFIG with all mistakes; a missing node id is none. */
export function settingRows(
  flags: Flags,
  env: Env,
  mistakes: readonly string[],
  files: Files,
): readonly SettingRow[] {
  const { settings, wrong } = find(flags, env, files)
  const all = [...mistakes, ...wrong]
  if (all.length > 0) throw new RoundhouseError('CONFIG', { mistakes: all })
  return entries.map(([name, setting]) => {
    const value: unknown = settings[name]
    const text = setting.form.format(value)
    const isPlain = ['integer', 'boolean', 'list'].includes(setting.form.name)
    return { key: setting.key, text, value: isPlain ? value : text, origin: settings.given.get(name) ?? null }
  })
}

// --- For the README -------------------------------------------------------------------------------------------------

/** The table between `<!-- settings -->` and `<!-- /settings -->` in the README. */
export function settingsTable(): string {
  const code = (texts: readonly string[]) => texts.map(each => `\`${each}\``).join(', ')
  const rows = entries.map(
    ([, setting]) =>
      `| ${code(flagsOf(setting).map(flag => `--${flag}`))} | ${code(variablesOf(setting))} | ` +
      `${setting.isRequired ? '(required)' : fallbackText(setting)} | ${setting.meaning} Accepted: ${setting.form.accepted}. |`,
  )
  return ['| Flag | Variable | Default | Meaning |', '|---|---|---|---|', ...rows].join('\n')
}
