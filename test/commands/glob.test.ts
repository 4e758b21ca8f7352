import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Glob } from '../../src/commands/glob.ts'

/** The same pattern as a regular expression: none of the cases here holds a `]` or an open class. */
function regular(pattern: string): RegExp {
  const text = pattern.replace(/\\(.)|\[(\^?)([^\]]*)\]|[\s\S]/g, (all, escaped, not, chars) => {
    if (escaped !== undefined) return `\\${escaped}`
    if (chars !== undefined) return chars === '' ? (not === '' ? '(?!)' : '[\\s\\S]') : `[${not}${chars}]`
    return all === '*' ? '[\\s\\S]*' : all === '?' ? '[\\s\\S]' : `\\u{${all.charCodeAt(0).toString(16)}}`
  })
  return new RegExp(`^${text}$`, 'u')
}

describe('a pattern', () => {
  it('matches as a regular expression of its meaning does', () => {
    const part = fc.constantFrom(
      'a',
      'b',
      'c',
      '*',
      '?',
      '[ab]',
      '[^a]',
      '[a-b]',
      '[]',
      '[^]',
      '\\*',
      '\\?',
      '\\[',
    )
    const pattern = fc.array(part, { maxLength: 8 }).map(parts => parts.join(''))
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '*', '?', '['), maxLength: 8 })
    fc.assert(
      fc.property(pattern, text, (pattern, text) => {
        const glob = new Glob(pattern)
        assert.equal(glob.matches(text), regular(pattern).test(text))
        if (glob.matches(text)) assert.ok(text.startsWith(glob.prefix))
      }),
      { numRuns: 5000 },
    )
  })

  it('takes the odd forms as Redis does', () => {
    const match = (pattern: string, text: string) => new Glob(pattern).matches(text)
    assert.ok(match('[b-a]', 'a') && match('[a', 'a') && match('a\\', 'a\\') && match('[\\]]', ']'))
    assert.ok(match('user:[0-9]*:*', 'user:17:name') && !match('user:[0-9]*:*', 'user:x:name'))
    assert.ok(!match('', 'a') && match('', '') && match('**', '') && !match('?', ''))
  })

  it('knows what every match begins with', () =>
    assert.deepEqual(
      ['user:*', 'a\\*b?', '*', 'plain', '[a]b'].map(pattern => new Glob(pattern).prefix),
      ['user:', 'a*b', '', 'plain', ''],
    ))

  it('takes no more steps than pattern times text', () => {
    const glob = new Glob('*a'.repeat(20) + 'b')
    assert.equal(glob.matches('a'.repeat(1000)), false)
    assert.ok(glob.steps <= 41 * 1000, `${glob.steps} steps`)
  })
})
