/** What people write: settings, command lines, histories. */

import { Readable } from 'node:stream'
import { benchVerb } from '../../src/cli/bench.ts'
import { runCli } from '../../src/cli/cli.ts'
import { completionVerb } from '../../src/cli/completion.ts'
import { configCheckVerb } from '../../src/cli/config-check.ts'
import { configShowVerb } from '../../src/cli/config-show.ts'
import { consumeVerb } from '../../src/cli/consume.ts'
import { devAddNodeVerb } from '../../src/cli/dev-add-node.ts'
import { devStartVerb } from '../../src/cli/dev-start.ts'
import { getVerb } from '../../src/cli/get.ts'
import { getServersVerb } from '../../src/cli/get-servers.ts'
import { groupsVerb } from '../../src/cli/groups.ts'
import { healthVerb } from '../../src/cli/health.ts'
import { helpVerb } from '../../src/cli/help-verb.ts'
import { leaveVerb } from '../../src/cli/leave.ts'
import { mirrorVerb } from '../../src/cli/mirror.ts'
import { nodesVerb } from '../../src/cli/nodes.ts'
import { linesOf, produceVerb } from '../../src/cli/produce.ts'
import { promptVerb } from '../../src/cli/prompt.ts'
import { rebalanceVerb } from '../../src/cli/rebalance.ts'
import { headersOf, recordOfJson } from '../../src/cli/record-text.ts'
import { recoverVerb } from '../../src/cli/recover.ts'
import { replaceVerb } from '../../src/cli/replace.ts'
import { runVerb } from '../../src/cli/run.ts'
import { parseLines } from '../../src/cli/run-atomic.ts'
import { serveVerb } from '../../src/cli/serve.ts'
import { setVerb } from '../../src/cli/set.ts'
import { shardsVerb } from '../../src/cli/shards.ts'
import { exitCodes, UsageError, type Verb } from '../../src/cli/shell.ts'
import { statusVerb } from '../../src/cli/status.ts'
import { streamVerbs } from '../../src/cli/streams.ts'
import { verifyVerb } from '../../src/cli/verify.ts'
import { versionVerb } from '../../src/cli/version.ts'
import { watchVerb } from '../../src/cli/watch.ts'
import { parseSettingsFile } from '../../src/config/file.ts'
import { entries, flagOf } from '../../src/config/table.ts'
import { checkFile, readSettings } from '../../src/config.ts'
import { HistoryError } from '../../src/history/event.ts'
import { eventLine, headerLine } from '../../src/history/json-lines.ts'
import { readHistory } from '../../src/history/read-history.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'
import { fakeShell } from '../cli/fake-cluster.ts'
import { decodes, type Family, type Outcome } from './family.ts'
import { damagedJson, Mutator, textTokens } from './mutate.ts'

const yaml = `node_id: n1
host: 127.0.0.1
port: 9081
seed: [127.0.0.1:9082, "127.0.0.1:9083"]
bootstrap: true
heartbeat-interval: 250ms # quick
journal_budget: "64MiB"
`
const toml = `node_id = "n1"\nport = 9_081\nseed = ["127.0.0.1:9082"]\nbootstrap = false\nlog_level = 'warn'\n`
const json = `{"node_id": "n1", "port": 9081, "seed": ["a:1"], "bootstrap": true}\n`
const env = `NODE_ID=n1\nexport PORT="9081"\n# a note\nSEED_NODES='a:1,b:2'\nDATA_DIR=/tmp/x\n`

/** Entries or mistakes, never a throw; then settings, or all that is wrong with them. */
const settingsFiles: Family = {
  name: 'settings-file',
  refuses: 'mistakes with their lines, CONFIG',
  share: 0.1,
  open: async () => {
    const kinds = Object.entries({ 'a.yaml': yaml, 'a.toml': toml, 'a.json': json, '.env': env }).map(
      ([path, text]) => ({ path, mutator: new Mutator([fromUtf8(text)], { isText: true }) }),
    )
    return {
      run: each => {
        const { path, mutator } = kinds[each.below(kinds.length)]!
        const file = parseSettingsFile(path, mutator.next(each))
        const { mistakes } = checkFile(file)
        const files = path === '.env' ? { dotenv: file, config: null } : { dotenv: null, config: file }
        const outcome = decodes(['CONFIG'], () => readSettings({}, {}, [], files))
        return mistakes.length > 0 ? 'refused' : outcome
      },
    }
  },
}

const neverCalled = (): never => {
  throw new Error('a verb ran')
}

/** All verbs as they describe themselves; none of them does anything here. */
function inertVerbs(): Verb[] {
  const verbs: readonly Verb[] = [
    ...[
      devStartVerb,
      devAddNodeVerb,
      serveVerb(neverCalled),
      setVerb,
      getVerb,
      runVerb,
      statusVerb,
      nodesVerb,
    ],
    ...[shardsVerb, rebalanceVerb, leaveVerb, replaceVerb, recoverVerb(neverCalled), verifyVerb, healthVerb],
    ...[configCheckVerb, configShowVerb, versionVerb],
    ...[...streamVerbs, groupsVerb, produceVerb, consumeVerb, getServersVerb, mirrorVerb, watchVerb],
    ...[benchVerb(neverCalled, neverCalled), promptVerb(neverCalled), completionVerb(() => verbs)],
  ]
  const inert = verbs.map(
    (verb): Verb => ({
      ...verb,
      run: (input, shell) => {
        // `serve` reads its settings itself.
        if (verb.path[0] === 'serve') readSettings(input.options, shell.env, input.mistakes)
        return Promise.resolve(0)
      },
    }),
  )
  return [...inert, helpVerb(() => inert)]
}

/** Random command lines: an exit status with a meaning, and for what is not understood the one for usage. */
const argv: Family = {
  name: 'argv',
  refuses: `exit status ${exitCodes.usage}`,
  share: 0.01,
  open: async () => {
    const verbs = inertVerbs()
    const flags = entries.map(([name]) => `--${flagOf(name)}`)
    const options = [...new Set(verbs.flatMap(verb => Object.keys(verb.options ?? {})))].map(
      each => `--${each}`,
    )
    const words = [
      ...[
        ...verbs.flatMap(verb => verb.path),
        ...options,
        ...flags,
        '-o',
        '-n',
        '-h',
        '--help',
        '--',
        '-',
        '--no-x',
      ],
      ...[
        'json',
        'text',
        '',
        ' ',
        'k',
        '-1',
        '--=',
        '--node=',
        '--output=json',
        '-ojson',
        '--__proto__=1',
        '0x10',
      ],
      ...[
        '--node',
        '127.0.0.1:1',
        '--constructor',
        '--a.b.c',
        '-vvv',
        '--port',
        '99999',
        '--get-yargs-completions',
      ],
      ...['toString', '$0', '_', '*', '\u0000', '\ud800', 'é', '--help=x', '--version', 'x'.repeat(3_000)],
    ]
    const word = (random: Prng): string => {
      const known = words[random.below(words.length)]!
      switch (random.below(8)) {
        case 0:
          return `${known}=${words[random.below(words.length)]!}`
        case 1:
          return known.slice(0, random.below(known.length + 1))
        case 2:
          return `${known}${Buffer.from(textTokens[random.below(textTokens.length)]!).toString('utf8')}`
        default:
          return known
      }
    }
    return {
      run: async (each): Promise<Outcome> => {
        const args = Array.from({ length: each.below(7) }, () => word(each))
        // Half of them begin as they should.
        if (each.below(2) === 0) args.unshift(...verbs[each.below(verbs.length)]!.path)
        const shell = fakeShell()
        const code = await runCli(args, shell, verbs)
        if (code !== exitCodes.done && code !== exitCodes.usage)
          throw new Error(`exit ${code} for ${JSON.stringify(args)}: ${shell.stderr.text()}`)
        const said = shell.stdout.text() + shell.stderr.text()
        if (code === exitCodes.usage && said === '')
          throw new Error(`nothing is said to ${JSON.stringify(args)}`)
        return code === exitCodes.done ? 'taken' : 'refused'
      },
    }
  },
}

/** Lines of `produce`: byte for byte, or JSON. */
const recordLines: Family = {
  name: 'record-line',
  refuses: 'UsageError',
  share: 0.5,
  open: async () => {
    const lines = [
      '{"value":"a","key":"k","headers":{"h":"1","b":{"base64":"/w=="}},"type":7}',
      '{"value":{"base64":"/wA="}}',
    ].map(fromUtf8)
    const one = new Mutator(lines, { isText: true })
    const many = new Mutator([fromUtf8('one\n\n three\r\nlast'), ...lines], { isText: true })
    const headers = new Mutator([fromUtf8('a=1,b=x=y')], { isText: true })
    return {
      run: async each => {
        switch (each.below(3)) {
          case 0: {
            const bytes = Buffer.from(many.next(each))
            const cut = each.below(bytes.byteLength + 1)
            const found: Buffer[] = []
            for await (const some of linesOf(Readable.from([bytes.subarray(0, cut), bytes.subarray(cut)])))
              found.push(...some)
            const text = Buffer.concat(found.flatMap((line, i) => (i === 0 ? [line] : [newline, line])))
            if (!bytes.subarray(0, text.byteLength).equals(text) || bytes.byteLength > text.byteLength + 1)
              throw new Error('lines are not what was read')
            return 'taken'
          }
          case 1:
            return understood(() => headersOf(Buffer.from(headers.next(each)).toString('utf8')))
          default:
            return understood(() => {
              const bytes = Buffer.from(each.below(4) === 0 ? damagedText(each) : one.next(each))
              const { value, key, headers, type } = recordOfJson(bytes, 1)
              const all = [value, key ?? value, ...headers.map(header => header.value)]
              if (!all.every(Buffer.isBuffer) || !Number.isInteger(type))
                throw new Error('a record that is none')
            })
        }
      },
    }
  },
}

const newline = Buffer.from('\n')

function damagedText(random: Prng): Buffer {
  const good = { value: 'a', key: 'k', headers: { h: '1', b: { base64: '/w==' } }, type: 7 }
  return Buffer.from(JSON.stringify(damagedJson(good, random)) ?? '')
}

function understood(read: () => unknown): Outcome {
  try {
    read()
    return 'taken'
  } catch (error) {
    if (error instanceof UsageError) return 'refused'
    throw error
  }
}

/** Files of `run --atomic`. */
const atomicFiles: Family = {
  name: 'atomic-file',
  refuses: 'UsageError',
  share: 0.5,
  open: async () => {
    const text = `# an order
SET {u1}order:7 'new order' NX
PRODUCE orders{u1}/3 "7 is \\"new\\"" key
PRODUCE orders{u1} x
`
    const mutator = new Mutator([fromUtf8(text)], { isText: true })
    return {
      run: each =>
        understood(() => {
          for (const line of parseLines(Buffer.from(mutator.next(each)).toString('utf8'), 'f')) {
            if (line.kind === 'produce' && line.partition !== null && !(line.partition < 2 ** 32))
              throw new Error(`partition ${line.partition}`)
          }
        }),
    }
  },
}

const log = `INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 1\t:invoke\t:cas\t[1 4]
INFO  jepsen.util - 0\t:ok\t:read\t3
INFO  jepsen.util - 1   :fail   :cas    [1 4]
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
`
const edn = `{:process 9, :type :invoke, :f :append, :key "0", :value "x 9 0 y"}
{:process 9, :type :ok, :f :append, :key "0", :value "x 9 0 y", :time 123456}
{:process 8, :type :invoke, :f :get, :key "0", :value nil}
`

const histories: Family = {
  name: 'history',
  refuses: 'LineError, HistoryError',
  share: 0.25,
  open: async () => {
    const call = { process: 'c1', timeMs: 3, f: 'set', key: 'k', args: ['v'] } as const
    const own = [
      headerLine({ model: 'kv', about: 'fuzz' }),
      eventLine({ ...call, type: 'invoke' }),
      eventLine({ type: 'ok', process: 'c1', value: true, timeMs: 4 } as never),
      eventLine({ ...call, type: 'invoke', f: 'get', args: [], process: 'c2' }),
      eventLine({ type: 'info', process: 'c2', timeMs: 9 } as never, 'no answer'),
    ].join('')
    const mutator = new Mutator([own, log, edn].map(fromUtf8), { isText: true })
    const models = ['register', 'kv', null] as const
    return {
      run: async each => {
        const bytes = mutator.next(each)
        const cut = each.below(bytes.byteLength + 1)
        try {
          await readHistory([bytes.subarray(0, cut), bytes.subarray(cut)], {
            format: null,
            model: models[each.below(3)]!,
          })
          return 'taken'
        } catch (error) {
          if (error instanceof HistoryError) return 'refused'
          throw error
        }
      },
    }
  },
}

export const textFamilies: readonly Family[] = [settingsFiles, argv, recordLines, atomicFiles, histories]
