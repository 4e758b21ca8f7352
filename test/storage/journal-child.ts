/**
 * The process that journal-kill.test.ts kills: writes batches to a real disk as fast as they become durable and prints
 * `batch term` for each that was acknowledged. Arguments: the directory, the first batch's number.
 */
import { writeSync } from 'node:fs'
import { systemClock } from '../../src/lib/clock.ts'
import { Prng } from '../../src/lib/prng.ts'
import { FileDisk } from '../../src/log/file-disk.ts'
import { Journal } from '../../src/storage/journal.ts'
import { batchOf, killOptions } from './journal-kill-batches.ts'

const [root, from] = [process.argv[2]!, Number(process.argv[3])]
const random = new Prng(process.pid)
const { journal } = Journal.open({ disk: new FileDisk(root), clock: systemClock, random, ...killOptions })

const next = (number: number): void => {
  journal.write(batchOf(number), error => {
    if (error !== null) throw error
    // Not buffered: what was printed was acknowledged, however the process ends.
    writeSync(1, `${number}\n`)
    if (number % 50 === 0) for (const replica of [1, 2, 3]) journal.compact(replica, number - 10, 1)
    next(number + 1)
  })
}
next(from)
