import { pushCommand } from './lists.ts'

export const rpush = pushCommand('RPUSH', 'tail')
