import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, describe, it } from 'node:test'
import { programArguments } from '../lib/program.ts'

const main = resolve(import.meta.dirname, '../../src/history/main.ts')
const folder = mkdtempSync(join(tmpdir(), 'roundhouse-history-'))
after(() => rmSync(folder, { recursive: true }))

function run(args: string[], input = ''): Promise<{ code: number | null; out: string; err: string }> {
  return new Promise((resolved, rejected) => {
    const child = spawn(process.execPath, [...programArguments(main), ...args], { stdio: 'pipe' })
    let out = ''
    let err = ''
    child.stdout.on('data', data => {
      out += data
    })
    child.stderr.on('data', data => {
      err += data
    })
    child.on('error', rejected)
    child.on('close', code => resolved({ code, out, err }))
    child.stdin.end(input)
  })
}

function file(name: string, lines: string[]): string {
  const path = join(folder, name)
  writeFileSync(path, `${lines.join('\n')}\n`)
  return path
}

const header = '{"format":"roundhouse-history","version":1,"model":"kv"}'
const written = [
  header,
  '{"type":"invoke","process":"a","f":"set","key":"k","args":["1"]}',
  '{"type":"ok","process":"a"}',
  '{"type":"invoke","process":"b","f":"get","key":"k"}',
]

describe('npm run check-history', () => {
  it('exits 0 and says linearizable', async () => {
    const { code, out, err } = await run([
      file('right', [...written, '{"type":"ok","process":"b","value":"1"}']),
    ])
    assert.deepEqual([code, err], [0, ''])
    assert.match(out, /^linearizable: 2 operations on 1 key, 0 of unknown outcome; /)
  })

  it('exits 1 and shows the window that can not be ordered; for tools as JSON', async () => {
    const path = file('wrong', [...written, '{"type":"ok","process":"b","value":null}'])
    const [text, json] = await Promise.all([run([path, '--model', 'kv']), run([path, '-o', 'json'])])
    assert.deepEqual([text.code, json.code], [1, 1])
    assert.match(
      text.out,
      /^NOT linearizable: 2 operations[\s\S]*key "k": these 2 operations can't be put in order,\nwhichever of the 0 others/,
    )
    assert.match(text.out, /\n {2}2–3 +a +set 1 +ok +├───┤\n {2}4–5 +b +get +nil +├───┤\n$/)
    const { verdict, window } = JSON.parse(json.out)
    assert.equal(verdict, 'not-linearizable')
    assert.deepEqual(window.operations[1], {
      process: 'b',
      f: 'get',
      args: [],
      value: null,
      call_line: 4,
      return_line: 5,
    })
  })

  it('exits 75 and says unknown when time ends', async () => {
    const lines = [header]
    for (let i = 0; i < 14; i++) lines.push(`{"type":"invoke","process":${i},"f":"append","args":["<${i}>"]}`)
    for (let i = 0; i < 14; i++) lines.push(`{"type":"ok","process":${i}}`)
    lines.push('{"type":"invoke","process":0,"f":"get"}', '{"type":"ok","process":0,"value":"<x>"}')
    const { code, out } = await run([file('hard', lines), '--timeout', '200ms'])
    assert.equal(code, 75)
    assert.match(out, /^unknown: time ended \(--timeout\): 15 operations/)
  })

  it('exits 2 and says what is accepted for what it does not understand', async () => {
    const path = file('bad', [header, 'x'])
    const all = await Promise.all([
      run([]),
      run([path]),
      run([path, '--model', 'queue']),
      run([path, '--timeout', '5 days']),
      run([path, '--speed', 'high']),
      run([join(folder, 'missing'), '--model', 'kv']),
    ])
    assert.deepEqual(
      all.map(each => [each.code, each.out]),
      all.map(() => [2, '']),
    )
    const patterns = [
      /one FILE is needed/,
      /bad: line 2: not JSON/,
      /Choices: "register", "kv"/,
      /accepted is a positive integer with ms, s, m, h/,
      /Unknown argument: speed/,
      /missing: ENOENT: no such file/,
    ]
    for (const [index, { err }] of all.entries()) assert.match(err, patterns[index]!)
  })

  it('reads standard input, and prints help', async () => {
    const [input, help] = await Promise.all([
      run(
        ['-', '--model', 'register'],
        'INFO  jepsen.util - 0\t:invoke\t:read\tnil\nINFO  jepsen.util - 0\t:ok\t:read\tnil\n',
      ),
      run(['--help']),
    ])
    assert.equal(input.code, 0)
    assert.equal(help.code, 0)
    assert.match(help.out, /Exit status: 0 linearizable, 1 NOT linearizable, 75 unknown/)
  })
})
