/**
 * `npm run fuzz -- --inputs 1000000`: bad input for every decoder, from one seed. Prints a line a family and closes with
 * `N inputs, F findings`; exits 1 where there is one. Each finding names what tries it again.
 */
import { parseCommandLine, usage } from '../command-line.ts'
import { families } from './families.ts'
import { type Family, type Figures, runFamily } from './family.ts'
import { Heartbeat } from './watchdog.ts'

const help = `Usage: npm run fuzz -- [--inputs N] [--seed S] [--family NAME]… [--only NUMBER]

  --inputs N     over all families, in parts that fit what one input costs (default 100000)
  --seed S       everything is drawn from it (default: the time)
  --family NAME  only this one; may be repeated; gets N inputs by itself
  --only NUMBER  of one family, only this input
  --list         the families

A finding is an exception that is not the documented one, an input that takes more than its time, and memory that was taken
or kept beyond a limit (test/fuzz/family.ts).`

const values = parseCommandLine(help, {
  inputs: { type: 'string', default: '100000' },
  seed: { type: 'string' },
  family: { type: 'string', multiple: true },
  only: { type: 'string' },
  list: { type: 'boolean', default: false },
})

const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1).padStart(7)

function line({ family, inputs, taken, refused, seconds, slowestMs, peakBytes, heldBytes }: Figures): string {
  const counts = [inputs, taken, refused].map(each => String(each).padStart(8)).join(' ')
  const each = ((seconds * 1e6) / inputs).toFixed(0).padStart(7)
  return `${family.padEnd(18)} ${counts} ${each} ${slowestMs.toFixed(0).padStart(6)} ${mib(peakBytes)} ${mib(heldBytes)}`
}

async function main(): Promise<number> {
  if (values.list) {
    for (const { name, refuses, awaits } of families)
      console.log(`${name.padEnd(18)} ${refuses}${awaits === undefined ? '' : `; KNOWN FAULT: ${awaits}`}`)
    return 0
  }
  const unknown = values.family?.find(name => !families.some(each => each.name === name))
  const chosen = families.filter(each =>
    values.family === undefined ? each.awaits === undefined : values.family.includes(each.name),
  )
  const numbers = [values.inputs, values.seed ?? '0', values.only ?? '0'].map(Number)
  if (unknown !== undefined) usage(`no family is called ${unknown}: see --list`)
  if (!numbers.every(each => Number.isSafeInteger(each) && each >= 0))
    usage('--inputs, --seed, --only: accepted are whole numbers')
  if (values.only !== undefined && chosen.length !== 1) usage('--only needs one --family')
  const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed)
  console.log(`seed ${seed}`)
  console.log('family               inputs    taken  refused  µs/in   slow   peak+   held+   (ms, MiB)')
  const shares = chosen.reduce((sum, each) => sum + each.share, 0)
  const inputsOfShare = Math.ceil(Number(values.inputs) / shares)
  const heartbeat = new Heartbeat()
  const all: Figures[] = []
  const run = async (family: Family) => {
    const only = values.only === undefined ? {} : { only: Number(values.only) }
    const figures = await runFamily(family, { seed, inputs: inputsOfShare, heartbeat, ...only })
    all.push(figures)
    console.log(line(figures))
    for (const finding of figures.findings) console.log(`  FINDING ${finding}`)
  }
  for (const family of chosen) await run(family)
  for (const { name, awaits } of families)
    if (values.family === undefined && awaits !== undefined)
      console.log(`${name.padEnd(18)} left out: ${awaits}`)
  await heartbeat.stop()
  const inputs = all.reduce((sum, each) => sum + each.inputs, 0)
  const findings = all.reduce((sum, each) => sum + each.findings.length, 0)
  console.log(`${inputs} inputs, ${findings} findings`)
  return findings > 0 ? 1 : 0
}

process.exitCode = await main()
