/**
 * Loaded into a node's process before the program: its fdatasync does what the file beside its data directory says (the
 * directory's path and `.sick`), as long as it is there: `fail` with EIO, or `stall` until it is gone.
 */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

const control = `${process.argv[process.argv.indexOf('--data-dir') + 1]}.sick`
const original = fs.fdatasync
const order = () => (fs.existsSync(control) ? fs.readFileSync(control, 'utf8') : '')

fs.fdatasync = (descriptor, callback) => {
  const asked = order()
  if (asked === 'fail') {
    const error = new Error('EIO: i/o error, fdatasync')
    setImmediate(callback, Object.assign(error, { code: 'EIO', errno: -5, syscall: 'fdatasync' }))
  } else if (asked === 'stall') setTimeout(() => fs.fdatasync(descriptor, callback), 20)
  else original(descriptor, callback)
}
syncBuiltinESMExports()
