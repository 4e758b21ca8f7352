/** Command lines of the tools under `npm run`: what is not understood is named, and ends with 2 before anything began. */
import { type ParseArgsConfig, parseArgs } from 'node:util'

type Options = NonNullable<ParseArgsConfig['options']>

/** Prints the help and ends with 0 where it was asked for. */
export function parseCommandLine<const Given extends Options>(help: string, options: Given) {
  try {
    const parsed = parseArgs({
      options: { ...options, help: { type: 'boolean', short: 'h', default: false } },
      allowNegative: true,
    })
    if ((parsed.values as { readonly help?: boolean }).help !== true) return parsed.values
  } catch (error) {
    return usage((error as Error).message)
  }
  console.log(help)
  process.exit(0)
}

export function usage(what: string): never {
  console.error(`${what}\n--help says what there is`)
  process.exit(2)
}
