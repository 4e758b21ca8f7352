/**
 * A node in the foreground. This file owns the process around it: reading the settings, the logger, the way to stop,
 * and the exit code. The node itself comes from `main.ts`.
 */
import { notesOn } from '../config/file-values.ts'
import { isUnspecified, joinAddress } from '../config/forms.ts'
import type { Settings } from '../config/table.ts'
import { readFiles, readSettings, settingFlags, tlsFilesOf } from '../config.ts'
import { RoundhouseError } from '../errors.ts'
import { createLogger, type Logger, type LoggerOptions, type RootLogger } from '../lib/logger.ts'
import { colorsFor } from './colors.ts'
import { exitCodes, type OptionSpec, type Verb } from './shell.ts'

/**
 * Starts a node; resolves when its port is open. Throws DATA_DIR, PORT_IN_USE and the like. `signal` aborts when the
 * process shall end: a start that waits for others may give up then, by rejecting.
 */
export type StartNode = (settings: Settings, logger: Logger, signal: AbortSignal) => Promise<RunningNode>

export interface RunningNode {
  /** Hands over leadership, seals what is on disk, closes; resolves when nothing is left to lose. */
  stop(): Promise<void>
  /** Resolves when the node ended by itself: with 0 when it has left the cluster, with another code when it failed. */
  readonly finished: Promise<{ readonly code: number }>
}

/** What a container's runtime grants between its two signals is 10 s. */
export const stopMsMax = 8_000

export function serveVerb(
  startNode: StartNode,
  makeLogger: (options: LoggerOptions) => RootLogger = createLogger,
): Verb {
  return {
    path: ['serve'],
    summary: 'Run a node in the foreground',
    group: 'node',
    collectsMistakes: true,
    options: settingOptions(),
    examples: [
      [
        'serve --node-id n1 --host 127.0.0.1 --port 8081 --data-dir d1 --bootstrap',
        'the first node of a cluster',
      ],
      [
        'serve --node-id n2 --host 127.0.0.1 --port 8082 --data-dir d2 --seed 127.0.0.1:8081',
        'the next ones',
      ],
      ['serve --config-file n1.yaml', 'with its settings in a file: see roundhouse config --help'],
    ],
    notes:
      'Every flag has a variable, in brackets; the flag wins, then the variable, then .env in the working directory, then ' +
      'the configuration file. SIGTERM stops the node cleanly within 8 s, a second one at once.',
    async run(input, shell) {
      const files = readFiles(input.options, shell.env, shell.directory)
      const settings = readSettings(input.options, shell.env, input.mistakes, files)
      const log = {
        level: settings.logLevel,
        pretty: shell.stdout.isTerminal,
        colors: colorsFor(shell.stdout, shell.env).isColorSupported,
      }
      const logger = makeLogger(log)
      shell.onFatal(error => {
        makeLogger({ ...log, sync: true }).error('fatal: the process ends', { error, node: settings.nodeId })
      })
      for (const note of notesOn(files.dotenv)) logger.warn(note)
      try {
        return await serve(settings, logger.child({ node: settings.nodeId }), startNode, shell.signal)
      } finally {
        await logger.flush()
      }
    },
  }
}

/** Of every verb that takes a node's settings; their forms are checked where they are read. */
export function settingOptions(): Record<string, OptionSpec> {
  const options = settingFlags().map(({ flag, describe, isBoolean, isAlias }): [string, OptionSpec] => [
    flag,
    {
      kind: isBoolean ? 'boolean' : 'list',
      describe,
      isHidden: isAlias,
      isFile: /-(path|file|dir)$/.test(flag),
    },
  ])
  return Object.fromEntries(options)
}

async function serve(
  settings: Settings,
  logger: Logger,
  startNode: StartNode,
  signal: AbortSignal,
): Promise<number> {
  if (isUnspecified(settings.host) && tlsFilesOf(settings) === null) {
    logger.warn(
      'listening on all addresses without TLS: whoever reaches the port may read and write everything',
      {
        address: joinAddress(settings.host, settings.port),
      },
    )
  }
  const stopped = new Promise<'stop'>(resolve => {
    if (signal.aborted) resolve('stop')
    signal.addEventListener('abort', () => resolve('stop'), { once: true })
  })
  const starting = startNode(settings, logger, signal)
  try {
    if ((await Promise.race([starting, stopped])) === 'stop') {
      return await endWithin(logger, async () => {
        const node = await starting.catch(() => null)
        await node?.stop()
      })
    }
  } catch (error) {
    if (!(error instanceof RoundhouseError)) throw error
    logger.error(error.message, { code: error.code })
    return error.code === 'CONFIG' ? exitCodes.usage : exitCodes.failed
  }
  const node = await starting
  const end = await Promise.race([node.finished, stopped])
  if (end === 'stop') return await endWithin(logger, () => node.stop())
  if (end.code === 0) logger.info('left the cluster')
  else logger.error('the node failed', { exit: end.code })
  return end.code
}

/** 0 when `stop` is done in time. What was acknowledged is safe either way; an unclean end costs time at the next start. */
async function endWithin(logger: Logger, stop: () => Promise<void>): Promise<number> {
  logger.info('stopping')
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>(resolve => {
    timer = setTimeout(() => resolve('late'), stopMsMax)
  })
  const end = await Promise.race([stop(), late])
  clearTimeout(timer)
  if (end === 'late') {
    logger.error('not stopped in time: ending anyway', { limit_ms: stopMsMax })
    return exitCodes.failed
  }
  logger.info('stopped')
  return exitCodes.done
}
