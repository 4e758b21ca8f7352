import { pushCommand } from './lists.ts'

export const lpush = pushCommand('LPUSH', 'head')
