/**
 * `npm run chaos -- --minutes 2 --nodes 5 [--seed 7] [--faults kill,freeze] [-o json]`: real processes, hurt in every way
 * that is known here, under a recorded workload; then the verdict. Ends with 0 when nothing is wrong, with 1 otherwise;
 * then history, script, logs and result are kept and named.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseCommandLine, usage } from '../command-line.ts'
import { type ChaosResult, runChaos } from './campaign.ts'
import { type FaultKind, faultKinds } from './nemesis.ts'

const help = `Usage: npm run chaos -- [options]

Starts a cluster of real processes behind proxies, hurts it, and judges what clients saw. Ends with 0 when nothing is
wrong; otherwise with 1, and history, script, logs and result are kept and named.

  --minutes N              how long faults come (2)
  --nodes N                (5)
  --seed N                 of the plan and the calls; times are not the seed's (drawn)
  --shards N               (16)
  --clients N              (16)
  --rate N                 operations a second, of all clients (150)
  --faults KIND[,KIND]     of: ${faultKinds.slice(0, 10).join(' ')}
                           ${faultKinds.slice(10).join(' ')} (all)
  -o, --output text|json   what is printed at the end
  --keep                   history and logs also of a run that passed
  --quiet                  no line for each fault on standard error
  -h, --help`

const values = parseCommandLine(help, {
  minutes: { type: 'string', default: '2' },
  nodes: { type: 'string', default: '5' },
  seed: { type: 'string' },
  shards: { type: 'string', default: '16' },
  clients: { type: 'string', default: '16' },
  rate: { type: 'string', default: '150' },
  faults: { type: 'string', default: faultKinds.join(',') },
  output: { type: 'string', short: 'o', default: 'text' },
  keep: { type: 'boolean', default: false },
  quiet: { type: 'boolean', default: false },
})

function positive(name: 'minutes' | 'nodes' | 'shards' | 'clients' | 'rate', isInteger = true): number {
  const value = Number(values[name])
  if (!(value > 0) || (isInteger && !Number.isInteger(value)))
    usage(`--${name} ${values[name]}: accepted are numbers above 0`)
  return value
}

const kinds = values.faults.split(',').map(name => {
  const kind = faultKinds.find(each => each === name)
  if (kind === undefined) usage(`--faults ${name}: accepted are ${faultKinds.join(', ')}`)
  return kind as FaultKind
})
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
if (!Number.isSafeInteger(seed)) usage(`--seed ${values.seed}: accepted are integers`)
if (values.output !== 'text' && values.output !== 'json')
  usage(`-o ${values.output}: accepted are text, json`)

const directory = mkdtempSync(join(tmpdir(), `roundhouse-chaos-${seed}-`))
let result: ChaosResult | null = null
try {
  result = await runChaos({
    ...{ seed, directory, kinds },
    ...{ minutes: positive('minutes', false), nodes: positive('nodes'), shardCount: positive('shards') },
    ...{ clients: positive('clients'), rate: positive('rate') },
    onProgress: line => {
      if (!values.quiet) console.error(line)
    },
  })
  writeFileSync(join(directory, 'result.json'), `${JSON.stringify(result, null, 2)}\n`)
  console.log(values.output === 'json' ? JSON.stringify(result, null, 2) : textOf(result))
} catch (error) {
  console.error((error as Error).stack)
}
const isGood = result !== null && result.mistakes.length === 0
if (isGood && !values.keep) rmSync(directory, { recursive: true })
else
  console.error(
    `kept: ${directory} (history.jsonl, script.jsonl, node*.log, result.json); again: npm run chaos -- --seed ${seed} ` +
      `--minutes ${values.minutes} --nodes ${values.nodes}`,
  )
process.exit(isGood ? 0 : 1)

function textOf(run: ChaosResult): string {
  const row = (name: string, ...cells: (string | number)[]) =>
    `${name.padEnd(22)}${cells.map(each => ` ${each}`.padStart(11)).join('')}`
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`
  const operations = Object.entries(run.operations).map(([kind, { ok, refused, unknown }]) =>
    row(`  ${kind}`, ok, refused, unknown),
  )
  const faults = Object.entries(run.faults).map(([kind, count]) => `${kind} ${count}`)
  const { lost, doubled, resurrected, strange } = run.verdicts
  return [
    row('seed', run.seed),
    row('minutes', run.minutes),
    row('nodes', run.nodes),
    '',
    row('operations', 'ok', 'refused', 'unknown'),
    ...operations,
    row('sent more than once', run.retried),
    '',
    `faults                ${faults.join(', ')}`,
    row('no write anywhere', seconds(run.unavailableMs.anywhere)),
    row('no write in a shard', seconds(run.unavailableMs.worstShard)),
    row('all shards write again', seconds(run.recoveryMs.median), `max ${seconds(run.recoveryMs.max)}`),
    row('all replicas in place', run.settledMs === null ? 'never' : seconds(run.settledMs)),
    '',
    row('keys read everywhere', run.keysRead),
    row('records', run.records.produced, `read ${run.records.read}`),
    row('lost', lost),
    row('doubled', doubled),
    row('resurrected', resurrected),
    row('strange', strange),
    row('replicas equal', run.replicasEqual ? 'yes' : 'NO'),
    row('verdict', run.verdict, `of ${run.checkedOperations}`),
    ...(run.mistakes.length === 0
      ? []
      : ['', `WRONG: ${run.mistakes.length}`, ...run.mistakes.map(each => `  ${each}`)]),
  ].join('\n')
}
