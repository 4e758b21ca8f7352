/** `bench --verify`: its plan from flags, its way to the nodes, its verdict for people and for tools. */
import { Channel, Metadata } from '@grpc/grpc-js'
import type { RunVerify, VerifyCluster, VerifyPlan, VerifyResult } from '../bench/ports.ts'
import { ClusterNodeClient } from '../gen/clusterpb/cluster.ts'
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { BenchBar } from './bench-bar.ts'
import { BenchFlags } from './bench-flags.ts'
import { type Colors, colorsFor } from './colors.ts'
import { Nodes } from './connection.ts'
import { printJson, table } from './print.ts'
import { errorOf } from './remote-error.ts'
import { exitCodes, type Input, type OptionSpec, type Shell, UsageError } from './shell.ts'

const defaults = { clients: '16', keys: '24', duration: '10s' } as const
/** Registers, counters and lists: one of each at least. */
const keysMin = 4
const keysMax = 10_000
const clientsMax = 512
/** Flags of the measuring bench that mean nothing here. */
const foreign = ['calls', 'in-flight', 'route', 'warm-up', 'key-bytes', 'value-bytes', 'batch', 'sessions']
const receiveBytesMax = 32 * 2 ** 20
/** A node that was killed is back soon. */
const reconnectMs = { min: 50, max: 200 } as const

export const verifyOptions: Readonly<Record<string, OptionSpec>> = {
  verify: {
    kind: 'boolean',
    describe: `Judge instead of measure: is what clients see linearizable (see below)`,
  },
  history: {
    kind: 'text',
    describe: 'With --verify: keep what was recorded in this file',
    isFile: true,
  },
}

export const verifyNotes =
  `--verify lets --clients (${defaults.clients}) read, write, compare and set, count, append, delete and let expire, on ` +
  `--keys (${defaults.keys}) that change at a time and on keys of their own, and records every call. It retries with ` +
  'sessions through whatever node answers, and hurts nobody: kill nodes and pull cables yourself meanwhile. Then all is ' +
  'read again through every node and deleted, and the recorded history is searched for an order. Exit status: 0 ' +
  'linearizable, with nothing lost, doubled or back from the dead; 1 not, with the smallest part that shows it; 75 ' +
  'unknown (a node could not be read, or the search took too long). A history that is not good is kept.'

/** Answers the exit code. */
export async function benchVerify(
  input: Input,
  shell: Shell,
  loadVerify: () => Promise<RunVerify>,
): Promise<number> {
  const plan = verifyPlanOf(input, shell.stdout.columns)
  // Ctrl-C ends the load, not the judging and the cleaning up behind it.
  const nodes = Nodes.from(input, { ...shell, signal: new AbortController().signal })
  const cluster = new Calls(nodes)
  const bar = new BenchBar(shell)
  try {
    const runVerify = await loadVerify()
    const result = await runVerify(plan, cluster, each => bar.show(each), shell.signal)
    bar.stop()
    if (input.options.output === 'json') printJson(shell.stdout, verifyJson(plan, result))
    else shell.stdout.write(verifyText(colorsFor(shell.stdout, shell.env), plan, result))
    return {
      linearizable: exitCodes.done,
      'not-linearizable': exitCodes.failed,
      unknown: exitCodes.tryAgain,
    }[result.verdict]
  } finally {
    bar.stop()
    cluster.close()
    nodes.close()
  }
}

/** Throws UsageError with everything that is wrong. */
export function verifyPlanOf({ positionals, options }: Input, columns: number): VerifyPlan {
  const flags = new BenchFlags()
  const textOf = (name: keyof typeof defaults) => String(options[name] ?? defaults[name])
  for (const name of foreign)
    if (options[name] !== undefined)
      flags.mistakes.push(`--${name} is of the measuring bench: --verify has a workload of its own`)
  if (positionals.length > 0)
    flags.mistakes.push(`${positionals.join(' ')}: --verify has a workload of its own`)
  const plan: VerifyPlan = {
    clients: flags.integer('clients', textOf('clients'), 1, clientsMax),
    keys: flags.integer('keys', textOf('keys'), keysMin, keysMax),
    rate: options.rate === undefined ? null : flags.integer('rate', String(options.rate), 1, 1_000_000),
    durationMs: flags.duration('duration', textOf('duration'), 100),
    historyPath: options.history === undefined ? null : String(options.history),
    keepsKeys: options.keep === true,
    columns,
  }
  if (flags.mistakes.length > 0) throw new UsageError(flags.mistakes)
  return plan
}

/** One connection a node, and each call to the node that is named: whom to ask next is the workload's business. */
class Calls implements VerifyCluster {
  private readonly nodes: Nodes
  private readonly open = new Map<string, { readonly channel: Channel; readonly client: ClusterNodeClient }>()

  constructor(nodes: Nodes) {
    this.nodes = nodes
  }

  map(): Promise<MapResponse> {
    return this.nodes.call('read', (call, { shards }) => call(shards.map.bind(shards), {}))
  }

  readonly run: VerifyCluster['run'] = (address, request, timeoutMs) =>
    new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + timeoutMs }
      this.to(address).runCommand(request, new Metadata(), options, (error, response) => {
        if (error === null) resolve(response)
        else reject(errorOf(error, address, timeoutMs))
      })
    })

  close(): void {
    for (const { channel } of this.open.values()) channel.close()
    this.open.clear()
  }

  private to(address: string): ClusterNodeClient {
    const known = this.open.get(address)
    if (known !== undefined) return known.client
    const { credentials } = this.nodes
    const channel = new Channel(address, credentials, {
      'grpc.max_receive_message_length': receiveBytesMax,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': reconnectMs.min,
      'grpc.min_reconnect_backoff_ms': reconnectMs.min,
      'grpc.max_reconnect_backoff_ms': reconnectMs.max,
    })
    const client = new ClusterNodeClient(address, credentials, { channelOverride: channel })
    this.open.set(address, { channel, client })
    return client
  }
}

// --- The verdict ----------------------------------------------------------------------------------------------------

export function verifyText(colors: Colors, plan: VerifyPlan, result: VerifyResult): string {
  const { found, nodesRead } = result
  const rows = Object.entries(result.operations).map(([kind, { ok, refused, unknown }]) => [
    ...[kind, ok, refused === 0 ? '-' : refused, unknown === 0 ? '-' : unknown],
  ])
  const troubles = Object.entries(result.troubles).map(([code, count]) => `${code} ${count}`)
  const again = `${result.retried} calls were sent more than once`
  const lines = [
    `${plan.clients} clients for ${result.durationS.toFixed(1)} s${endText(result)}, ${plan.keys} keys at a time, ${result.prefix}…`,
    '',
    table(colors, ['OPERATION', 'OK', 'REFUSED', 'UNKNOWN'], rows),
    '',
    troubles.length === 0 ? again : `${again} (${troubles.join(', ')})`,
    `the longest call took ${seconds(result.longestCallMs)}; no write was acknowledged for ${seconds(result.longestGapMs)} at most`,
    `${result.keysRead} keys read again through ${nodesRead.join(', ')}: lost ${found.lost}, doubled ${found.doubled}, ` +
      `resurrected ${found.resurrected}, strange ${found.strange}`,
    ...(result.keysLeft === 0 ? [] : [colors.yellow(`${result.keysLeft} keys could not be deleted`)]),
    ...section(colors.red('wrong'), result.mistakes),
    ...section(colors.yellow('not known'), result.doubts),
    ...(result.window.length === 0 ? [] : ['', ...result.window]),
    '',
    `${verdictText(colors, result)}: ${result.checkedOperations} operations on ${result.checkedKeys} keys`,
    ...(result.historyPath === null ? [] : [`history: ${result.historyPath}`]),
  ]
  return `${lines.join('\n')}\n`
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', ...lines.map(line => `${title}  ${line}`)]
}

function endText({ endedBy }: VerifyResult): string {
  return endedBy === 'time' ? '' : ` (ended by ${endedBy === 'signal' ? 'Ctrl-C' : endedBy})`
}

function verdictText(colors: Colors, { verdict }: VerifyResult): string {
  if (verdict === 'linearizable') return colors.green('linearizable')
  return verdict === 'unknown' ? colors.yellow('unknown') : colors.red('NOT linearizable')
}

export function verifyJson(plan: VerifyPlan, result: VerifyResult): Record<string, unknown> {
  return {
    verdict: result.verdict,
    clients: plan.clients,
    keys: plan.keys,
    rate: plan.rate,
    prefix: result.prefix,
    duration_s: result.durationS,
    ended_by: result.endedBy,
    operations: result.operations,
    sent_more_than_once: result.retried,
    troubles: result.troubles,
    longest_call_ms: result.longestCallMs,
    longest_without_write_ms: result.longestGapMs,
    lost: result.found.lost,
    doubled: result.found.doubled,
    resurrected: result.found.resurrected,
    strange: result.found.strange,
    keys_read: result.keysRead,
    nodes_read: result.nodesRead,
    checked_operations: result.checkedOperations,
    checked_keys: result.checkedKeys,
    mistakes: result.mistakes,
    doubts: result.doubts,
    window: result.window,
    keys_left: result.keysLeft,
    history: result.historyPath,
  }
}
