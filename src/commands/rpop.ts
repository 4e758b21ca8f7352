import { popCommand } from './lists.ts'

export const rpop = popCommand('RPOP', 'tail')
