import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { RoundhouseError } from '../errors.ts'
import { colorsFor } from './colors.ts'
import { defaultNodes } from './connection.ts'
import { DevCluster, type DevOptions } from './dev-cluster.ts'
import { listen, type SupervisorHandler, socketPath } from './dev-socket.ts'
import { devTlsOf } from './dev-tls.ts'
import { exitCodes, type Input, type OptionSpec, type Shell, UsageError, type Verb } from './shell.ts'
import { nodesTable } from './status-view.ts'

const defaults = { data: 'data', basePort: 8081, nodes: 3 } as const
/** After this without a cluster, people are told where to look. */
const patienceMs = 30_000

export const dataOption: Readonly<Record<string, OptionSpec>> = {
  data: { kind: 'text', describe: 'Directory of all nodes', fallback: defaults.data },
}

export const devStartVerb: Verb = {
  path: ['dev', 'start'],
  summary: 'Run a cluster on this machine until Ctrl-C (npm start)',
  group: 'node',
  options: {
    ...dataOption,
    nodes: {
      kind: 'text',
      describe: 'Nodes to start with, where there is no data yet',
      fallback: String(defaults.nodes),
    },
    'base-port': {
      kind: 'text',
      describe: 'Port of node1; node2 has the next',
      fallback: String(defaults.basePort),
    },
  },
  examples: [
    [
      'dev start',
      'three nodes on 127.0.0.1:8081 to 8083 at first, then every node that has a directory in data/',
    ],
    ['dev start --nodes 5 --data /tmp/five --base-port 9001', 'a second cluster beside it'],
  ],
  notes:
    'Settings of the nodes are taken from variables: SHARD_COUNT=16 npm start. With TLS_CA_PATH=certs/ca.crt they speak TLS, ' +
    'each with its own certificate there (certs/node1.crt …), as ./certs.sh writes them.',
  run: (input, shell) => devStart(input, shell),
}

export async function devStart(input: Input, shell: Shell): Promise<number> {
  const mistakes: string[] = []
  const basePort = integerOf(input, 'base-port', defaults.basePort, 1, 65_000, mistakes)
  const nodes = integerOf(input, 'nodes', defaults.nodes, 1, 16, mistakes)
  if (mistakes.length > 0) throw new UsageError(mistakes)
  const dataDir = String(input.options.data ?? defaults.data)
  const tls = devTlsOf(shell.env)
  mkdirSync(dataDir, { recursive: true })
  return await supervise(
    { dataDir, basePort, program: shell.program, env: shell.env, output: shell.stdout, tls },
    nodes,
    shell.signal,
  )
}

function integerOf(
  input: Input,
  name: string,
  fallback: number,
  min: number,
  max: number,
  mistakes: string[],
): number {
  const text = input.options[name]
  if (text === undefined) return fallback
  const value = /^[0-9]{1,6}$/.test(String(text)) ? Number(text) : Number.NaN
  if (value >= min && value <= max) return value
  mistakes.push(`--${name}: ${JSON.stringify(text)} is not an integer from ${min} to ${max}`)
  return fallback
}

/** The life of `dev start`. 0 after a clean stop, 1 when a node had to be killed or all have ended by themselves. */
async function supervise(options: DevOptions, firstNodes: number, signal: AbortSignal): Promise<number> {
  const { dataDir, output } = options
  const say = (text: string) => output.write(`${text}\n`)
  const colors = colorsFor(output, options.env)
  const cluster = new DevCluster(options)
  // Taken before the ports are looked at: a second start shall name the first, not its ports.
  const server = await listen(socketPath(dataDir), handlerOf(cluster, say, signal))
  if ('pid' in server) {
    throw new RoundhouseError('DATA_DIR', {
      path: dataDir,
      why: `process ${server.pid} runs its nodes already`,
    })
  }
  try {
    await cluster.start(firstNodes)
    say(
      `${cluster.size} nodes start; their data is in ${dataDir}/, their logs in ${join(dataDir, 'node*.log')}`,
    )
    const patience = setTimeout(() => {
      say(`this takes long: the nodes' logs are ${join(dataDir, 'node*.log')}`)
    }, patienceMs)
    const status = await cluster.ready(signal, say).finally(() => clearTimeout(patience))
    if (status !== null) {
      say(`\n${nodesTable(colors, status.nodes)}\n`)
      say(`Ready: ${status.shards.length} shards, each with a leader. Try:\n`)
      for (const line of hints(options)) say(`  ${colors.bold(line)}`)
      say('\nCtrl-C stops all nodes; what was written stays.')
    }
    await Promise.race([cluster.emptied, aborted(signal)])
    if (!signal.aborted) {
      say('all nodes have ended')
      return exitCodes.failed
    }
    say(`\nstopping ${cluster.size} nodes`)
    const isClean = await cluster.stop()
    say(
      isClean
        ? 'all stopped'
        : 'all stopped, not all cleanly: nothing acknowledged is lost, the next start checks more',
    )
    return isClean ? exitCodes.done : exitCodes.failed
  } finally {
    await cluster.stop()
    server.close()
  }
}

function handlerOf(cluster: DevCluster, say: (text: string) => void, signal: AbortSignal): SupervisorHandler {
  return (request, answer) => {
    if (request.kind === 'who') {
      answer({ kind: 'who', pid: process.pid })
      return
    }
    cluster
      .addNode(text => {
        say(text)
        answer({ kind: 'progress', text })
      }, signal)
      .then(
        added => answer({ kind: 'added', ...added }),
        (error: Error) => answer({ kind: 'failed', why: error.message }),
      )
  }
}

function hints({ basePort, dataDir }: DevOptions): string[] {
  const node = defaultNodes.startsWith(`127.0.0.1:${basePort},`) ? '' : ` --node 127.0.0.1:${basePort}`
  const data = dataDir === defaults.data ? '' : ` --data ${dataDir}`
  return [
    `npx roundhouse set greeting hello${node}`,
    `npx roundhouse get greeting${node}`,
    `npx roundhouse dev add-node${data}`,
    `npx roundhouse${node === '' ? '' : ` prompt${node}`}`,
  ]
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
