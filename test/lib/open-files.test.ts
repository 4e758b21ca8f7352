import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, it } from 'node:test'
import { openFilesMax, parseLimits } from '../../src/lib/open-files.ts'

const limits = (soft: string) => `Limit                     Soft Limit           Hard Limit           Units
Max processes             63456                63456                processes
Max open files            ${soft.padEnd(20)} 524288               files
`

describe('the limit of open files', () => {
  it('is the soft one of the process', () => {
    assert.equal(parseLimits(limits('1024')), 1024)
    assert.equal(parseLimits(limits('unlimited')), null)
    assert.equal(parseLimits(''), null)
  })

  it('is what the process was started with', () => {
    const program = `import(${JSON.stringify(new URL('../../src/lib/open-files.ts', import.meta.url).href)}).then(({ openFilesMax }) => console.log(openFilesMax()))`
    const args = ['-c', 'ulimit -n 300; exec "$0" "$@"', process.execPath, '--import', 'tsx', '-e', program]
    assert.equal(execFileSync('sh', args, { encoding: 'utf8' }), '300\n')
  })

  it('is the one that Node.js tells of, too', () => {
    const { userLimits } = process.report.getReport() as { userLimits: { open_files: { soft: unknown } } }
    const { soft } = userLimits.open_files
    assert.equal(openFilesMax(), typeof soft === 'number' ? soft : null)
  })
})
