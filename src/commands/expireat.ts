import { expireCommand, seconds } from './expiry.ts'

export const expireat = expireCommand('EXPIREAT', { ...seconds, isRelative: false }, 'seconds')
