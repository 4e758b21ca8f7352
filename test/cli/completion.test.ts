import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, it } from 'node:test'
import { benchVerb } from '../../src/cli/bench.ts'
import { runCli } from '../../src/cli/cli.ts'
import { completionScript, completionVerb } from '../../src/cli/completion.ts'
import { configCheckVerb } from '../../src/cli/config-check.ts'
import { devAddNodeVerb } from '../../src/cli/dev-add-node.ts'
import { devStartVerb } from '../../src/cli/dev-start.ts'
import { getVerb } from '../../src/cli/get.ts'
import { leaveVerb } from '../../src/cli/leave.ts'
import { rebalanceVerb } from '../../src/cli/rebalance.ts'
import { runVerb } from '../../src/cli/run.ts'
import { serveVerb } from '../../src/cli/serve.ts'
import { setVerb } from '../../src/cli/set.ts'
import { shardsVerb } from '../../src/cli/shards.ts'
import type { Verb } from '../../src/cli/shell.ts'
import { statusVerb } from '../../src/cli/status.ts'
import { fakeShell } from './fake-cluster.ts'

const verbs: readonly Verb[] = [
  ...[setVerb, runVerb, statusVerb, devStartVerb, devAddNodeVerb, configCheckVerb],
  benchVerb(
    () => assert.fail('not to be run'),
    () => assert.fail('not to be run'),
  ),
  completionVerb(() => verbs),
]
const has = (shell: string) => spawnSync(shell, ['--version']).status === 0

/** What Tab offers behind each of these lines. */
function offers(shell: 'bash' | 'fish', lines: readonly string[]): Record<string, string[]> {
  const script = completionScript(shell, verbs)
  const asked =
    shell === 'bash'
      ? lines.map(line => {
          const words = line.split(' ').map(word => `'${word}'`)
          return `COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}; _roundhouse; echo "\${COMPREPLY[*]}"`
        })
      : lines.map(line => `echo (complete -C '${line}' | string split -f1 \\t)`)
  const { stdout, stderr, status } = spawnSync(shell, ['-c', [script, ...asked].join('\n')], {
    encoding: 'utf8',
  })
  assert.deepEqual([status, stderr], [0, ''])
  const answers = stdout.trimEnd().split('\n')
  return Object.fromEntries(lines.map((line, place) => [line, (answers[place] ?? '').split(' ').toSorted()]))
}

const expected: Record<string, string[]> = {
  'roundhouse s': ['set', 'status'],
  'roundhouse dev ': ['add-node', 'start'],
  'roundhouse -n 127.0.0.1:1 dev start --no': ['--nodes'],
  'roundhouse set --f': ['--file'],
  'roundhouse set k v --n': ['--node', '--nx'],
  'roundhouse status -o ': ['json', 'text'],
  'roundhouse run HG': ['HGET', 'HGETALL'],
  'roundhouse bench set m': ['mixed', 'mset'],
  'roundhouse bench --route ': ['any', 'leader'],
  'roundhouse completion ': ['bash', 'fish', 'zsh'],
}

describe('completion', () => {
  for (const shell of ['bash', 'fish'] as const) {
    const skip = has(shell) ? false : `no ${shell} here`
    it(`in ${shell} offers verbs, options, their values, and commands`, { skip }, () => {
      assert.deepEqual(offers(shell, Object.keys(expected)), expected)
    })

    it(`in ${shell} finds commands in lower case, and offers no options after --`, { skip }, () => {
      const answers = offers(shell, ['roundhouse run hg', 'roundhouse set -- --f'])
      assert.deepEqual(
        answers['roundhouse run hg']!.map(each => each.toUpperCase()),
        ['HGET', 'HGETALL'],
      )
      if (shell === 'bash') assert.deepEqual(answers['roundhouse set -- --f'], [''])
    })

    it(`in ${shell} offers files where a path is wanted`, { skip }, () => {
      const answers = offers(shell, ['roundhouse config check /et', 'roundhouse set k --file /et'])
      for (const answer of Object.values(answers)) assert.match(answer.join(' '), /^\/etc\/?$/)
    })
  }

  it('is a script that zsh can read', { skip: has('zsh') ? false : 'no zsh here' }, () => {
    const { stderr, status } = spawnSync('zsh', ['-f', '-n'], {
      input: completionScript('zsh', verbs),
      encoding: 'utf8',
    })
    assert.deepEqual([status, stderr], [0, ''])
  })

  it('has every verb and option in every shell', () => {
    for (const shell of ['bash', 'zsh', 'fish'] as const) {
      const script = completionScript(shell, verbs)
      for (const { path, options = {} } of verbs) {
        for (const word of path) assert.match(script, new RegExp(`\\b${word}\\b`))
        for (const option of Object.keys(options))
          assert.ok(
            script.includes(shell === 'fish' ? ` -l ${option} ` : `--${option}`),
            `${shell} ${option}`,
          )
      }
    }
  })

  it('knows no option that takes a value with one verb and none with another', () => {
    const kinds = new Map<string, boolean>()
    const more = [
      serveVerb(() => assert.fail('not to be run')),
      getVerb,
      shardsVerb,
      leaveVerb,
      rebalanceVerb,
    ]
    for (const { options = {} } of [...verbs, ...more]) {
      for (const [name, { kind, alias }] of Object.entries(options)) {
        for (const spelling of [name, ...(alias === undefined ? [] : [alias])]) {
          const takesValue = kind !== 'boolean'
          assert.equal(kinds.get(spelling) ?? takesValue, takesValue, spelling)
          kinds.set(spelling, takesValue)
        }
      }
    }
  })

  it('is printed by its verb, for the shells that there are', async () => {
    const shell = fakeShell()
    assert.equal(await runCli(['completion', 'bash'], shell, verbs), 0)
    assert.equal(shell.stdout.text(), completionScript('bash', verbs))
    assert.equal(await runCli(['completion', 'tcsh'], shell, verbs), 2)
  })
})
