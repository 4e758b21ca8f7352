import { expireCommand, seconds } from './expiry.ts'

export const expire = expireCommand('EXPIRE', seconds, 'seconds')
