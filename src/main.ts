#!/usr/bin/env -S node --max-semi-space-size=64
/**
 * The bin: the one file that names concrete adapters. It gives the verbs their process (streams, signals, exit) and
 * `serve` its node.
 *
 * The young generation is larger than V8's 16 MiB: what calls under way hold survives fewer collections, which took a
 * quarter of a loaded leader's time (docs/benchmarks.md). It is given where the process starts, for V8 takes it only there.
 *
 * All of the heap is collected when it has grown to four times what the last collection left, the most that V8 takes by itself
 * where there is room. What came from sockets counts, dead or not, so V8's own guess had a busy node collect a heap of 26 MiB
 * five times a second.
 */
import { isatty } from 'node:tty'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { benchVerb } from './cli/bench.ts'
import { runCli } from './cli/cli.ts'
import { completionVerb } from './cli/completion.ts'
import { configCheckVerb } from './cli/config-check.ts'
import { configShowVerb } from './cli/config-show.ts'
import { consumeVerb } from './cli/consume.ts'
import { devAddNodeVerb } from './cli/dev-add-node.ts'
import { devStartVerb } from './cli/dev-start.ts'
import { getVerb } from './cli/get.ts'
import { getServersVerb } from './cli/get-servers.ts'
import { groupsVerb } from './cli/groups.ts'
import { healthVerb } from './cli/health.ts'
import { helpVerb } from './cli/help-verb.ts'
import { leaveVerb } from './cli/leave.ts'
import { mirrorVerb } from './cli/mirror.ts'
import { nodesVerb } from './cli/nodes.ts'
import { produceVerb } from './cli/produce.ts'
import { promptVerb } from './cli/prompt.ts'
import { rebalanceVerb } from './cli/rebalance.ts'
import { recoverVerb } from './cli/recover.ts'
import { replaceVerb } from './cli/replace.ts'
import { runVerb } from './cli/run.ts'
import { serveVerb } from './cli/serve.ts'
import { setVerb } from './cli/set.ts'
import { shardsVerb } from './cli/shards.ts'
import { Interrupted, type Output, type Shell, type Verb } from './cli/shell.ts'
import { statusVerb } from './cli/status.ts'
import { streamVerbs } from './cli/streams.ts'
import { verifyVerb } from './cli/verify.ts'
import { versionVerb } from './cli/version.ts'
import { watchVerb } from './cli/watch.ts'

/** Below it, V8 grows a heap more carefully, and should. */
const roomyHeapBytes = 1024 ** 3
if (getHeapStatistics().heap_size_limit >= roomyHeapBytes) setFlagsFromString('--heap-growing-percent=300')

/** What a node is made of, and the bench, are loaded when they are needed: most verbs are clients and should be there at once. */
const verbs: readonly Verb[] = [
  devStartVerb,
  devAddNodeVerb,
  serveVerb(async (...start) => (await import('./start-node.ts')).startNode(...start)),
  setVerb,
  getVerb,
  runVerb,
  watchVerb,
  ...streamVerbs,
  groupsVerb,
  produceVerb,
  consumeVerb,
  mirrorVerb,
  getServersVerb,
  statusVerb,
  nodesVerb,
  shardsVerb,
  rebalanceVerb,
  leaveVerb,
  replaceVerb,
  recoverVerb(async (...open) => (await import('./recover-node.ts')).openSurvivors(...open)),
  verifyVerb,
  healthVerb,
  configCheckVerb,
  configShowVerb,
  benchVerb(
    async () => (await import('./bench/bench.ts')).runBench,
    async () => (await import('./bench/verify/verify.ts')).runVerify,
  ),
  promptVerb(() => verbs),
  completionVerb(() => verbs),
  helpVerb(() => verbs),
  versionVerb,
]

function outputOf(stream: NodeJS.WriteStream): Output {
  return {
    isTerminal: stream.isTTY === true,
    columns: stream.columns ?? 100,
    stream: stream.isTTY === true ? stream : null,
    write: data => {
      stream.write(data)
    },
    drained: () =>
      stream.writableNeedDrain ? new Promise(resolve => stream.once('drain', resolve)) : Promise.resolve(),
  }
}

/** Every byte written before is handed to the system; a pipe may take its time. */
function drained(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise(resolve => {
    if (stream.writable) stream.write('', () => resolve())
    else resolve()
  })
}

const sighup = 1
/** A first signal asks the verb to end, a second one ends the process. */
const sameSignalMsMax = 1_000

function endingSignal(): AbortSignal {
  const controller = new AbortController()
  let endingSinceMs = 0
  const end = (name: 'SIGINT' | 'SIGTERM' | 'SIGHUP', number: number) => {
    process.on(name, () => {
      // One Ctrl-C comes twice under npm: the terminal signals everybody in the foreground, and npm passes its own on.
      const isSecond = controller.signal.aborted && performance.now() - endingSinceMs > sameSignalMsMax
      if (isSecond) process.exit(128 + number)
      if (!controller.signal.aborted) endingSinceMs = performance.now()
      controller.abort(new Interrupted(number))
    })
  }
  end('SIGHUP', sighup)
  end('SIGINT', 2)
  end('SIGTERM', 15)
  if (process.env.ROUNDHOUSE_SUPERVISED === '1') {
    // Whoever started this process holds the other end: when it dies, however it dies, the pipe closes.
    const abort = () => controller.abort(new Interrupted(sighup))
    process.stdin.on('end', abort).on('close', abort).on('error', abort).resume()
  }
  return controller.signal
}

let onFatal = (error: unknown): void => {
  process.stderr.write(`fatal: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
}
process.on('uncaughtException', error => {
  try {
    onFatal(error)
  } finally {
    process.exit(1)
  }
})
// `roundhouse status | head -1`: the reader has what it wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

const shell: Shell = {
  stdin: {
    isTerminal: isatty(0),
    // Opened only by whoever reads it: the getter of `process` opens it.
    get stream() {
      return process.stdin
    },
  },
  stdout: outputOf(process.stdout),
  stderr: outputOf(process.stderr),
  env: process.env,
  signal: endingSignal(),
  program: [process.execPath, ...process.execArgv, process.argv[1]!],
  onFatal: listener => {
    onFatal = listener
  },
}

const code = await runCli(process.argv.slice(2), shell, verbs)
await Promise.all([drained(process.stdout), drained(process.stderr)])
// Not left to the event loop: an open socket must not keep a finished command alive.
process.exit(code)
