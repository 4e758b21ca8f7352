import { elementScan } from './paging.ts'

export const sscan = elementScan('SSCAN', 'set', 'the members of a set', ['MATCH', 'COUNT'])
