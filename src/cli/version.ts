import { readFileSync } from 'node:fs'
import { outputOption } from './connection.ts'
import { printJson } from './print.ts'
import { exitCodes, type Verb } from './shell.ts'

export const versionVerb: Verb = {
  path: ['version'],
  summary: 'Print the version',
  group: 'tools',
  options: outputOption,
  async run(input, shell) {
    // The same two steps up from src/cli and from dist/cli.
    const manifest: { version: string } = JSON.parse(
      readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
    )
    const about = {
      version: manifest.version,
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
    }
    if (input.options.output === 'json') printJson(shell.stdout, about)
    else shell.stdout.write(`roundhouse ${about.version} (Node.js ${about.node}, ${about.platform})\n`)
    return exitCodes.done
  },
}
