import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { colorsFor } from '../../src/cli/colors.ts'
import {
  bytesText,
  jsonOf,
  printReply,
  printValue,
  quoted,
  replyJson,
  secondsText,
  table,
} from '../../src/cli/print.ts'
import type { CommandResponse, KeyValue } from '../../src/gen/clusterpb/cluster.ts'
import { count, fakeShell, nil, success, value } from './fake-cluster.ts'

const shown = (response: CommandResponse): string => {
  const { stdout } = fakeShell()
  printReply(stdout, response)
  return stdout.text()
}
const list = (items: readonly (readonly [string | undefined, string | undefined])[]): CommandResponse => ({
  ...nil(),
  response: {
    $case: 'list',
    value: {
      list: items.map(
        ([key, text]): KeyValue => ({
          key,
          value: text === undefined ? undefined : Buffer.from(text),
          keyBytes: Buffer.alloc(0),
        }),
      ),
    },
  },
})

describe('a reply for people', () => {
  it('looks as redis-cli shows it', () => {
    assert.equal(shown(nil()), '(nil)\n')
    assert.equal(shown(value('hello')), 'hello\n')
    assert.equal(shown(success(true)), 'OK\n')
    assert.equal(shown(success(false)), '(nil)\n')
    assert.equal(shown(success(true, 0n)), '(integer) 0\n')
    assert.equal(shown(count(-3n)), '(integer) -3\n')
    assert.equal(shown(list([])), '(empty list)\n')
    assert.equal(
      shown(
        list([
          [undefined, 'a'],
          [undefined, undefined],
        ]),
      ),
      '1) "a"\n2) (nil)\n',
    )
    assert.equal(
      shown(
        list([
          ['name', 'Ada'],
          ['', 'x'],
        ]),
      ),
      '1# "name" => "Ada"\n2# "" => "x"\n',
    )
    assert.equal(shown(list([['k1', undefined]])), '1) "k1"\n')
  })

  it('has the cursor of a scan under its page, to be typed into the next call', () => {
    const page = (cursor: string, ...keys: string[]) => ({
      ...list(keys.map(key => [key, undefined])),
      cursor: Buffer.from(cursor),
    })
    assert.equal(shown(page('12.dXNlcjox', 'user:1')), '1) "user:1"\ncursor 12.dXNlcjox\n')
    assert.equal(shown(page('.Zmll')), '(empty list)\ncursor .Zmll\n')
    assert.equal(shown(page('0', 'k')), '1) "k"\ncursor 0: the end\n')
    assert.equal(shown(page('\u001b[2J')), '(empty list)\ncursor "\\x1b[2J"\n')
  })

  it('gives a pipe every byte, and a terminal nothing that could steer it', () => {
    const write = (isTerminal: boolean, bytes: Uint8Array) => {
      const { stdout } = fakeShell({}, isTerminal)
      printValue(stdout, bytes)
      return stdout.text()
    }
    const steering = Buffer.from('\x1b[2J')
    assert.equal(write(false, steering), '\x1b[2J\n')
    assert.equal(write(true, steering), '"\\x1b[2J"\n')
    assert.equal(write(true, Buffer.from('two\nlines\tück')), 'two\nlines\tück\n')
    assert.equal(write(true, Buffer.from([0xff, 0x41])), '"\\xffA"\n')
  })

  it('quotes without a control character left', () => {
    fc.assert(fc.property(fc.uint8Array(), bytes => !/\p{Cc}/u.test(quoted(bytes))))
  })
})

describe('a reply for tools', () => {
  it('is JSON with its type', () => {
    assert.deepEqual(replyJson(nil()), { type: 'nil', reply: null, revision: 7 })
    assert.deepEqual(replyJson(value('x')), { type: 'value', reply: 'x', revision: 7 })
    assert.deepEqual(replyJson(success(true, 2n)), { type: 'success', reply: true, affected: 2, revision: 7 })
    assert.deepEqual(replyJson(count(4n)), { type: 'count', reply: 4, revision: 7 })
    assert.deepEqual(
      replyJson(
        list([
          ['f', 'v'],
          [undefined, 'w'],
          [undefined, undefined],
        ]),
      ).reply,
      [{ key: 'f', value: 'v' }, 'w', null],
    )
  })

  it('gives back the bytes of any value', () => {
    fc.assert(
      fc.property(fc.uint8Array(), bytes => {
        const json = JSON.parse(JSON.stringify(jsonOf(bytes)))
        const back = typeof json === 'string' ? Buffer.from(json) : Buffer.from(json.base64, 'base64')
        return back.equals(bytes)
      }),
    )
    assert.deepEqual(jsonOf(Uint8Array.of(0xff)), { base64: '/w==' })
  })
})

describe('colours', () => {
  const red = (isTerminal: boolean, env: Record<string, string>) => colorsFor({ isTerminal }, env).red('x')

  it('are for terminals, whatever the environment asks for', () => {
    assert.equal(red(true, {}), '\x1b[31mx\x1b[39m')
    for (const env of [{}, { CI: 'true' }, { FORCE_COLOR: '1' }]) assert.equal(red(false, env), 'x')
  })

  it('can be refused', () => {
    assert.equal(red(true, { NO_COLOR: '1' }), 'x')
    assert.equal(red(true, { TERM: 'dumb' }), 'x')
    assert.equal(red(true, { NO_COLOR: '' }), '\x1b[31mx\x1b[39m')
  })
})

describe('figures', () => {
  it('are short', () => {
    assert.deepEqual([0, 1023, 1536, 200 * 2 ** 20].map(bytesText), ['0 B', '1023 B', '1.5 KiB', '200 MiB'])
    assert.deepEqual([0.2, 59, 90, 3_700].map(secondsText), ['1s', '59s', '1m30s', '1h01m'])
  })

  it('stand in columns', () => {
    assert.equal(
      table(
        colorsFor({ isTerminal: false }, {}),
        ['A', 'BB'],
        [
          ['1', 2],
          ['333', 4],
        ],
      ),
      'A    BB\n1    2\n333  4',
    )
  })
})
