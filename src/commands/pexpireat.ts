import { expireCommand, milliseconds } from './expiry.ts'

export const pexpireat = expireCommand('PEXPIREAT', { ...milliseconds, isRelative: false }, 'milliseconds')
