import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'
import { type CheckpointRecord, decodeRecord } from './checkpoint-record.ts'
import { checkedValue, directoryKey, openRows, type Root, type Rows, rowSalt, rowsName } from './lmdb-env.ts'
import { bufferOf, RowDigest } from './row-codec.ts'

/** Sees every row of a checkpoint, in key order, with its `rowChecksum`. */
export type RowVisitor = (key: string, value: Bytes, checksum: number) => void

/**
 * Reads a whole checkpoint in one read transaction and believes none of it: every row must fit its checksum, and rows
 * and digest together must be the record's, so a row that a broken page hides is missed. Throws CORRUPT otherwise.
 * `begin` sees the record before the rows come. Nobody may drop this generation meanwhile.
 */
export function readCheckpoint(
  root: Root,
  directory: Rows,
  replica: number,
  begin: (record: CheckpointRecord) => RowVisitor,
): CheckpointRecord {
  const where = `replica ${replica}'s state`
  const recordBytes = () => {
    const bytes = directory.get(directoryKey(replica))
    if (bytes === undefined) throw new RoundhouseError('CORRUPT', { where, what: 'there is no checkpoint' })
    return decodeRecord(replica, bytes)
  }
  root.resetReadTxn()
  const { generation } = recordBytes()
  // Opening a database ends the read transaction: what counts is read again in the next one.
  const rows = openRows(root, rowsName(replica, generation))
  const transaction = root.useReadTransaction()
  try {
    const record = decodeRecord(replica, directory.get(directoryKey(replica), { transaction })!)
    const salt = rowSalt(replica, generation)
    const visit = begin(record)
    const digest = new RowDigest()
    for (const { key, value: stored } of rows.getRange({ start: '\x00', transaction })) {
      const value = checkedValue(stored, key, replica, salt)
      const checksum = (bufferOf(stored).readUInt32LE(0) ^ salt) >>> 0
      digest.add(checksum)
      visit(key, value, checksum)
    }
    if (!digest.equals(record)) {
      const what = `${digest.count} rows are there, ${record.count} were written${digest.count === record.count ? ', other ones' : ''}`
      throw new RoundhouseError('CORRUPT', { where, what })
    }
    return record
  } finally {
    transaction.done()
    root.resetReadTxn()
  }
}
