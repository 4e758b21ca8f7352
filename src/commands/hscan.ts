import { elementScan } from './paging.ts'

export const hscan = elementScan('HSCAN', 'hash', 'the fields of a hash', ['MATCH', 'COUNT', 'NOVALUES'])
