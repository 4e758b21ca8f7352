/**
 * Where the settings of a node come from. The table of them is `config/table.ts`; the shell builds its flags from it,
 * `readSettings` reads by it, and the README's table is printed from it, so the three can't drift apart.
 *
 * A setting comes from its flag, else from its variable, else from `.env` in the working directory (which is variables
 * that the process does not have), else from the configuration file, else from its default. All mistakes are found
 * before any is reported: a person mends a configuration once.
 */
import { networkInterfaces } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { readSettingsFile, type SettingsFile } from './config/file.ts'
import { type Found, notesOn, valuesIn } from './config/file-values.ts'
import { isUnspecified, joinAddress, splitAddress, splitBindAddress } from './config/forms.ts'
import {
  entries,
  fallbackText,
  flagOf,
  flagsOf,
  type Origin,
  originText,
  type Setting,
  type SettingName,
  type Settings,
  table,
  variablesOf,
} from './config/table.ts'
import { RoundhouseError } from './errors.ts'
import { loadNodeCertificates, type NodeCertificateFiles } from './lib/node-certificates.ts'

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
