import { popCommand } from './lists.ts'

export const lpop = popCommand('LPOP', 'head')
