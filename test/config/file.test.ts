import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { formatOf, parseSettingsFile, type SettingsFile } from '../../src/config/file.ts'
import { checkFile } from '../../src/config.ts'

const parse = (path: string, text: string): SettingsFile =>
  parseSettingsFile(path, new TextEncoder().encode(text))

const flat = (file: SettingsFile) =>
  file.entries.map(({ key, value, line }) => [
    key,
    value.kind === 'list' ? value.items : 'text' in value ? value.text : value.kind,
    line,
  ])

describe('a file of settings', () => {
  it('is what its ending says', () => {
    const paths = [
      'a.yaml',
      'A.YML',
      'x/b.toml',
      'c.json',
      '.env',
      '.env.production',
      'n1.env',
      'd.conf',
      'yaml',
    ]
    assert.deepEqual(paths.map(formatOf), ['yaml', 'yaml', 'toml', 'json', 'env', 'env', 'env', null, null])
    assert.deepEqual(parse('d.conf', 'port=1').mistakes, [
      'd.conf: its ending does not tell what it is: accepted are .yaml, .yml, .toml, .json or .env',
    ])
  })

  it('has keys, values and their lines', () => {
    assert.deepEqual(flat(parse('a.yaml', '# c\na: 1\n\nb:\n  - x\n  - y\nc: ~\nd: &x z\ne: [1, 2] # c\n')), [
      ['a', '1', 2],
      ['b', ['x', 'y'], 4],
      ['c', 'nothing', 7],
      ['d', 'z', 8],
      ['e', ['1', '2'], 9],
    ])
    assert.deepEqual(
      flat(parse('a.toml', '# c\na = 1\n"b" = [\n"x",\n"y"]\nc = """\na = 2\n"""\n[d]\nx = 1\n')),
      [
        ['a', '1', null],
        ['b', ['x', 'y'], 3],
        ['c', 'a = 2\n', 6],
        ['d', 'other', 9],
      ],
    )
    assert.deepEqual(flat(parse('a.json', '{"a": 1,\r\n"b": ["x"],\r\n"c": null, "d": {"e": 1}}')), [
      ['a', '1', 1],
      ['b', ['x'], 2],
      ['c', 'nothing', 3],
      ['d', 'other', 3],
    ])
  })

  it('as .env has names, quotes and comments', () => {
    const text = '# c\nA=1\n export B = two words # c\nC="x # y"\nD=\'a\nb\'\n\nE=`"`\nF=\nA=3\r\nG="a\\nb"\n'
    assert.deepEqual(flat(parse('.env', text)), [
      ['A', '3', 10],
      ['B', 'two words', 3],
      ['C', 'x # y', 4],
      ['D', 'a\nb', 5],
      ['E', '"', 8],
      ['F', 'nothing', 9],
      ['G', 'a\nb', 11],
    ])
  })

  it('says where it can not be read, and goes on where it can', () => {
    const cases: [string, string, RegExp][] = [
      [
        'a.env',
        'A=1\nwhat is this\nB="open\n',
        /^a\.env:2: "what is this" is not NAME=value\na\.env:3: B: the quote " is not closed$/,
      ],
      ['a.yaml', 'a: 1\nb: [1\nc: 2\n', /^a\.yaml:\d: not YAML: /],
      ['a.yaml', 'a: 1\na: 2\n', /^a\.yaml:2: this key is there already$/],
      ['a.yaml', 'a: 1\n---\nb: 2\n', /^a\.yaml:2: not YAML: .*multiple documents/],
      ['a.yaml', '- a\n- b\n', /^a\.yaml:1: not settings: the file must be keys with values$/],
      ['a.json', '{"a": 1,\n "a": 2}', /^a\.json:2: this key is there already$/],
      ['a.json', '{"a": 1,\n}', /^a\.json:2: not JSON: /],
      ['a.json', '[1]', /^a\.json: not settings: /],
      ['a.toml', 'a = 1\nb = = 2\n', /^a\.toml:2: not TOML: /],
      ['a.toml', 'a = 1\na = 2\n', /^a\.toml:2: not TOML: /],
    ]
    for (const [path, text, expected] of cases)
      assert.match(parse(path, text).mistakes.join('\n'), expected, text)
    assert.equal(parse('a.env', 'A=1\nwhat is this\nB=2').entries.length, 2)
  })

  it('is refused before it is parsed when it is large, nested or no text', () => {
    const refused = (path: string, bytes: Uint8Array) => parseSettingsFile(path, bytes).mistakes[0]
    assert.match(refused('a.yaml', new Uint8Array(32 * 1024 + 1))!, /larger than 32 KiB/)
    assert.match(refused('a.toml', Uint8Array.of(0x61, 0xff))!, /not UTF-8/)
    // Each of these, longer, ends a process that parses it.
    for (const deep of ['[ ', '{"a":', '- ', '? ', 'a: '])
      assert.match(parse('a.yaml', deep.repeat(5_000)).mistakes[0]!, /nested too deep/, deep)
    let steps = ''
    for (let level = 0; steps.length < 31_000; level += 16) steps += `${' '.repeat(level)}${'- '.repeat(8)}\n`
    for (const format of ['yaml', 'json']) assert.ok(parse(`a.${format}`, steps).mistakes.length > 0)
    assert.ok(parse('a.toml', `a=${'['.repeat(190)}`).mistakes.length > 0)
  })

  it('can be any bytes: there are mistakes with its name, or settings, never a throw', () => {
    const path = fc.constantFrom('n.yaml', 'n.toml', 'n.json', 'n.env', '.env')
    const piece = fc.constantFrom(
      ...[
        'port',
        'node_id',
        'PORT=',
        '=',
        ':',
        ' ',
        '\n',
        '\t',
        '"',
        "'",
        '[',
        ']',
        '{',
        '}',
        ',',
        '- ',
        '#',
        '&a',
        '*a',
      ],
      ...[
        '!!x',
        '|',
        '>',
        '---\n',
        '1',
        '1e999',
        '0x1',
        'true',
        'null',
        '1979-05-27',
        '\\',
        '\u0000',
        '\u001b[2J',
        'é',
        '__proto__',
      ],
    )
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.array(piece, { maxLength: 60 }).map(pieces => new TextEncoder().encode(pieces.join(''))),
    )
    fc.assert(
      fc.property(path, bytes, (name, content) => {
        const { mistakes } = checkFile(parseSettingsFile(name, content))
        for (const each of mistakes) {
          assert.ok(each.startsWith(name) || each.startsWith('raft_') || each.includes(' says '), each)
          // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the fact
          assert.doesNotMatch(each, /[\u0000-\u001f\u007f]/)
          assert.ok(each.length < 500)
        }
      }),
      { numRuns: 3_000 },
    )
  })
})
