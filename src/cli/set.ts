import { readFileSync, statSync } from 'node:fs'
import { systemReason } from '../lib/system-reason.ts'
import { type Argument, runCommand } from './calls.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson, printReply, replyJson } from './print.ts'
import { exitCodes, type Shell, UsageError, type Verb } from './shell.ts'

export const setVerb: Verb = {
  path: ['set'],
  summary: 'Store a value under a key; done when it is on the disks of a majority',
  group: 'data',
  isWrite: true,
  positionals: [
    { name: 'key', kind: 'required', describe: 'Up to 1024 bytes' },
    { name: 'value', kind: 'optional', describe: 'Up to 1 MiB; - takes it from standard input' },
  ],
  options: {
    file: { kind: 'text', alias: 'f', describe: 'Take the value from a file', isFile: true },
    ex: { kind: 'text', describe: 'Expire after so many seconds', elsewhere: ['ttl', 'expire'] },
    px: { kind: 'text', describe: 'Expire after so many milliseconds' },
    nx: { kind: 'boolean', describe: 'Only if the key does not exist' },
    xx: { kind: 'boolean', describe: 'Only if the key exists' },
    ...outputOption,
    ...connectionOptions,
  },
  examples: [
    ['set greeting hello', 'prints OK'],
    ['set token x1y2 --ex 60', 'gone after a minute'],
    ['set photo --file photo.jpg', 'byte for byte; also: set photo - < photo.jpg'],
    ['set -- -key -value', 'arguments that begin with a dash'],
  ],
  notes:
    'Prints OK, or (nil) when --nx or --xx left the key as it was. The value that is one dash is set by "run SET key -".',
  async run({ positionals, options }, shell) {
    const args: Argument[] = [positionals[0]!, await valueGiven(positionals[1], options.file, shell)]
    if (options.ex !== undefined) args.push('EX', String(options.ex))
    if (options.px !== undefined) args.push('PX', String(options.px))
    if (options.nx === true) args.push('NX')
    if (options.xx === true) args.push('XX')
    const nodes = Nodes.from({ positionals, options, mistakes: [] }, shell)
    try {
      const response = await runCommand(nodes, 'SET', args, 'write')
      if (options.output !== 'json') printReply(shell.stdout, response)
      else printJson(shell.stdout, { outcome: 'applied', ...replyJson(response) })
      return exitCodes.done
    } finally {
      nodes.close()
    }
  },
}

/** No setting lets a value be larger: what is, is not read to the end. */
const valueBytesMax = 8 * 2 ** 20

async function valueGiven(value: string | undefined, file: unknown, shell: Shell): Promise<Argument> {
  if (file === undefined) {
    if (value === undefined)
      throw new UsageError(['value is missing (or --file FILE, or - for standard input)'])
    return value === '-' ? await readAll(shell) : value
  }
  if (value !== undefined) throw new UsageError(['a value and --file are given: one of them is accepted'])
  const path = String(file)
  try {
    const { size } = statSync(path)
    if (size > valueBytesMax) throw tooLarge(path)
    return readFileSync(path)
  } catch (error) {
    if (error instanceof UsageError) throw error
    throw new UsageError([`--file ${path}: ${systemReason(error)}`])
  }
}

async function readAll({ stdin }: Shell): Promise<Uint8Array> {
  if (stdin.stream === null) throw new UsageError(['standard input is the prompt here: use --file'])
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of stdin.stream) {
    chunks.push(Buffer.from(chunk))
    bytes += chunk.length
    if (bytes > valueBytesMax) throw tooLarge('standard input')
  }
  return Buffer.concat(chunks)
}

function tooLarge(what: string): UsageError {
  return new UsageError([`${what} is larger than ${valueBytesMax} bytes: no value may be`])
}
