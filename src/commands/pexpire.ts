import { expireCommand, milliseconds } from './expiry.ts'

export const pexpire = expireCommand('PEXPIRE', milliseconds, 'milliseconds')
