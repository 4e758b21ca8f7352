import type { CommandTable } from './machine.ts'
import { commands } from './table.ts'

/**
 * What a release knows, and its number. Entries are forever: one that some replica does not understand stops it there
 * (machine.ts), so nobody may write one before every member can read it. A command says since which **feature level** it
 * exists; a release supports all levels up to its own; the cluster's level is in the meta register, rises when every
 * member supports more, and never falls (`META.LEVEL`). A leader proposes no command above it.
 *
 * A release that adds a command that is written to the log, or lets one be written in another form, raises `supportedLevel`
 * by one and gives the command that number as its `since`. Level 1 is all that the first release had, 2 added STREAM.BATCH.
 */
export const supportedLevel = 2

export interface Release {
  /** It understands all that was ever written at this level and below. */
  readonly level: number
  readonly commands: CommandTable
}

export const thisRelease: Release = { level: supportedLevel, commands }

/** The level that an entry of these commands needs. */
export function levelOf(operations: readonly { readonly command: string }[], table: CommandTable): number {
  return operations.reduce((level, { command }) => Math.max(level, table.get(command)?.since ?? 1), 1)
}
