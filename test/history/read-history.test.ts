import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { check } from '../../src/history/check.ts'
import type { Operation } from '../../src/history/operation.ts'
import {
  type Format,
  type History,
  lineCharactersMax,
  type ModelName,
  readHistory,
} from '../../src/history/read-history.ts'
import { Recorder } from '../../src/history/recorder.ts'

const read = (text: string, model: ModelName | null = null, format: Format | null = null): Promise<History> =>
  readHistory([new TextEncoder().encode(text)], { model, format })

const short = ({ operations }: History) =>
  operations.map(({ process, f, key, args, result, calledAt, returnedAt }: Operation) => [
    process,
    f,
    key,
    args,
    result,
    calledAt,
    returnedAt,
  ])

const refuses = (text: string, model: ModelName | null, message: RegExp) =>
  assert.rejects(read(text, model), (error: Error) => {
    assert.match(error.message, message)
    return true
  })

const never = Number.POSITIVE_INFINITY

describe('a Jepsen log', () => {
  const log = (...lines: string[]) => lines.map(line => `INFO  jepsen.util - ${line}\n`).join('')

  it('tells calls, answers, refusals, failures and unknown outcomes apart', async () => {
    const history = await read(
      log(
        '0\t:invoke\t:read\tnil',
        '1\t:invoke\t:cas\t[1 4]',
        '0\t:ok\t:read\t3',
        '1   :fail   :cas    [1 4]',
        '0\t:invoke\t:write\t2',
        '0\t:info\t:write\t:timed-out',
        '2\t:invoke\t:cas\t[2 3]',
        '3\t:invoke\t:read\tnil',
        '3\t:fail\t:read\t:timed-out',
        '2\t:ok\t:cas\t[2 3]',
        '4\t:invoke\t:write\t0',
      ),
      'register',
    )
    assert.equal(history.format, 'jepsen-log')
    assert.deepEqual(short(history), [
      ['0', 'read', '', [], '3', 1, 3],
      ['1', 'cas', '', ['1', '4'], 'false', 2, 4],
      ['0', 'write', '', ['2'], undefined, 5, never],
      ['2', 'cas', '', ['2', '3'], 'true', 7, 10],
      ['4', 'write', '', ['0'], undefined, 11, never],
    ])
  })

  it('passes over other loggers and the nemesis', async () => {
    const text = `INFO  jepsen.core - Worker 3 starting\n${log(':nemesis\t:info\t:start\tnil', '0\t:invoke\t:read\tnil', '0\t:ok\t:read\tnil')}`
    assert.deepEqual(short(await read(text, 'register')), [['0', 'read', '', [], null, 3, 4]])
  })

  it('is refused with the number of the wrong line and what is accepted', async () => {
    const call = '0\t:invoke\t:write\t2'
    await refuses(
      log(call, 'nonsense'),
      'register',
      /^line 2: not an operation: accepted is INFO {2}jepsen\.util - PROCESS :invoke/,
    )
    await refuses(log(call) + 'nonsense\n', 'register', /^line 2: not a line of a Jepsen log: accepted is/)
    await refuses(log(call, call), 'register', /^line 2: process 0 calls while its call of 1 is open/)
    await refuses(
      log('0\t:ok\t:write\t2'),
      'register',
      /^line 1: ok of process 0, which has no open call: invoke comes first/,
    )
    await refuses(
      log(call, '0\t:ok\t:write\t3'),
      'register',
      /^line 2: process 0 completes :write with another value/,
    )
    await refuses(
      log(call, '0\t:ok\t:read\t3'),
      'register',
      /^line 2: process 0 completes :read and has called :write/,
    )
    await refuses(
      log('0\t:invoke\t:jump\tnil'),
      'register',
      /^line 1: function :jump: accepted are :read, :get/,
    )
    await refuses(
      log('0\t:invoke\t:cas\t3'),
      'register',
      /^line 1: the value of :cas is wrong: accepted is a pair/,
    )
    await refuses(log(call), 'kv', /^line 1: the kv model has no function "write": accepted are get, set/)
  })
})

describe('an EDN history', () => {
  it('is read whatever the order of its keys, with strings, vectors, times and errors', async () => {
    const history = await read(
      [
        '{:process 9, :type :invoke, :f :append, :key "0", :value "x \\"9\\" 0 y", :time 1500000}',
        '{:type :ok :f :append :process 9 :value "x \\"9\\" 0 y", :key "0" :index 4 :time 2500000}',
        '{:process 9, :type :invoke, :f :cas, :key 7, :value [1 nil]}',
        '{:process :nemesis, :type :info, :f :start, :value nil}',
        '{:process 9, :type :fail, :f :cas, :key 7, :value [1 nil]}',
        '{:process 9, :type :invoke, :f :put, :key "0", :value "z"}',
        '{:process 9, :type :info, :f :put, :key "0", :value "z", :error :timeout}',
        '{:process 9, :type :invoke, :f :get, :key "0", :value nil}',
        '{:process 9, :type :ok, :f :get, :key "0", :value ""}',
      ].join('\r\n'),
      'kv',
    )
    assert.equal(history.format, 'edn')
    assert.deepEqual(short(history), [
      ['9', 'append', '0', ['x "9" 0 y'], undefined, 1, 2],
      ['9', 'cas', '7', ['1', null], 'false', 3, 5],
      ['9', 'put', '0', ['z'], undefined, 6, never],
      ['9', 'get', '0', [], '', 8, 9],
    ])
    assert.deepEqual([history.operations[0]!.calledMs, history.operations[0]!.returnedMs], [1.5, 2.5])
  })

  it('reads the empty string where nothing was put', async () => {
    const text =
      '{:process 0, :type :invoke, :f :get, :key "a", :value nil}\n{:process 0, :type :ok, :f :get, :key "a", :value ""}\n'
    const { operations, model } = await read(text, 'kv')
    assert.equal(check(operations, model).kind, 'linearizable')
  })

  it('is refused with the number of the wrong line, the column and what is accepted', async () => {
    const good = '{:process 0, :type :invoke, :f :get, :key "a", :value nil}\n'
    await refuses(
      `${good}{:process 0, :type :ok, :f :get, :key "a`,
      'kv',
      /^line 2: column 39: .* where a string that ends should be: accepted is \{:process/,
    )
    await refuses('{:process 0}\n', 'kv', /^line 1: :type is missing: accepted is/)
    await refuses('{:process 0, :process 1}\n', 'kv', /^line 1: :process stands twice/)
    await refuses(
      '{:process 0 :type :gone :f :get}\n',
      'kv',
      /^line 1: type :gone: accepted are :invoke, :ok, :fail, :info/,
    )
    await refuses(
      '{:process 0 :type :invoke :f :get} x\n',
      'kv',
      /^line 1: column 36: "x" where the end of the line should be/,
    )
    await refuses('{:process 0 :value #{1}}\n', 'kv', /^line 1: column 20: "#/)
    await refuses(good.replace('nil', '[1 2]'), 'kv', /^line 1: the value of :get is wrong: accepted is nil/)
    await refuses(
      '{:process 0 :type :invoke :f :cas :value [1 2 3]}',
      'kv',
      /^line 1: :value is no vector of two values/,
    )
  })
})

describe('our own format', () => {
  function recorded(work: (recorder: Recorder) => void): string {
    let text = ''
    let ms = 0
    work(
      new Recorder({
        model: 'kv',
        about: 'a test',
        now: () => (ms += 0.5),
        write: line => {
          text += line
        },
      }),
    )
    return text
  }

  it('is what a recorder writes, call by call, and names its model', async () => {
    const text = recorded(recorder => {
      const set = recorder.invoke('c1', 'set', 'k', ['v\n"1"'])
      const incr = recorder.invoke('c2', 'incr', 'n')
      set.ok()
      incr.unknown('no answer')
      recorder.invoke('c2', 'get', 'missing').ok(null)
      recorder.invoke('c1', 'del', 'k').fail('NOT_LEADER')
      recorder.invoke('c1', 'cas', 'k', [null, 'w']).ok('false')
      recorder.invoke('c3', 'set', 'k', ['late'])
    })
    assert.equal(
      text.split('\n').slice(0, 4).join('\n'),
      [
        '{"format":"roundhouse-history","version":1,"model":"kv","about":"a test"}',
        '{"type":"invoke","process":"c1","f":"set","key":"k","args":["v\\n\\"1\\""],"time":0.5}',
        '{"type":"invoke","process":"c2","f":"incr","key":"n","time":1}',
        '{"type":"ok","process":"c1","time":1.5}',
      ].join('\n'),
    )
    const history = await read(text)
    assert.equal(history.format, 'json')
    assert.equal(history.model.name, 'kv')
    assert.deepEqual(short(history), [
      ['c1', 'set', 'k', ['v\n"1"'], undefined, 2, 4],
      ['c2', 'incr', 'n', [], undefined, 3, never],
      ['c2', 'get', 'missing', [], null, 6, 7],
      ['c1', 'cas', 'k', [null, 'w'], 'false', 10, 11],
      ['c3', 'set', 'k', ['late'], undefined, 12, never],
    ])
    assert.equal(check(history.operations, history.model).kind, 'linearizable')
  })

  it('takes numbers and truth values for their texts', async () => {
    const text = [
      '{"format":"roundhouse-history","version":1}',
      '{"type":"invoke","process":1,"f":"cas","args":[4,"5"]}',
      '{"type":"ok","process":1,"value":false}',
      '',
    ].join('\n')
    assert.deepEqual(short(await read(text, 'register')), [['1', 'cas', '', ['4', '5'], 'false', 2, 3]])
  })

  it('passes over a last line that a crash cut off, and over no other', async () => {
    const text = recorded(recorder => recorder.invoke('c1', 'set', 'k', ['v']).ok())
    for (let cut = 1; cut < 20; cut++) {
      const { operations } = await read(text.slice(0, -1 - cut))
      assert.deepEqual([operations.length, operations[0]!.returnedAt], [1, never])
    }
    await refuses(`${text.slice(0, -5)}\n{}\n`, null, /^line 3: not JSON .*: accepted is one object a line/)
  })

  it('is refused with the number of the wrong line and what is accepted', async () => {
    const header = '{"format":"roundhouse-history","version":1}\n'
    const invoke = '{"type":"invoke","process":1,"f":"get","time":5}\n'
    await refuses(header, null, /^line 1: the history names no model: say which it is, register or kv/)
    await refuses('{"format":"x"}\n', 'kv', /^line 1: "format" is "x": accepted is "roundhouse-history"/)
    await refuses(header.replace('1', '2'), 'kv', /^line 1: "version" is 2: accepted is 1/)
    await refuses(
      header.replace('}', ',"model":"queue"}'),
      null,
      /^line 1: model "queue": accepted are register, kv/,
    )
    await refuses(`${header}[]\n`, 'kv', /^line 2: no object/)
    await refuses(`${header}{"type":"begin"}\n`, 'kv', /^line 2: "type" is "begin": accepted are "invoke"/)
    await refuses(
      `${header}${invoke.replace('time', 'tim')}`,
      'kv',
      /^line 2: field "tim": accepted here are type, process, f/,
    )
    await refuses(
      `${header}${invoke.replace('1', '{}')}`,
      'kv',
      /^line 2: "process" is \{\}: accepted is a string or an integer/,
    )
    await refuses(
      `${header}${invoke.replace('"get"', '"cas"')}`,
      'kv',
      /^line 2: cas has 0 arguments: accepted is cas EXPECTED NEW/,
    )
    await refuses(
      `${header}${invoke.replace('5', '"5"')}`,
      'kv',
      /^line 2: "time" is "5": accepted are milliseconds/,
    )
    await refuses(
      `${header}${invoke}{"type":"ok","process":1,"value":1.5}\n`,
      'kv',
      /^line 3: "value" has 1\.5: accepted are strings/,
    )
    await refuses(
      `${header}${invoke}{"type":"ok","process":1,"value":null,"time":4}\n`,
      'kv',
      /^line 3: time goes back from 5 to 4/,
    )
    await refuses(
      `${header}${invoke.replace('get', 'incr')}{"type":"ok","process":1,"value":"x"}\n`,
      'kv',
      /^line 3: incr answers an integer/,
    )
  })
})

describe('reading', () => {
  it('refuses what has no known format, and what is empty', async () => {
    await refuses(
      'once upon a time\n',
      'kv',
      /^line 1: no known format: accepted are a Jepsen log .*EDN.*JSON/,
    )
    await refuses('\n\n', 'kv', /^the history is empty/)
    await refuses('INFO  jepsen.util - 0\t:invoke\t:read\tnil\n', null, /^line 1: the history names no model/)
  })

  it('refuses a line without end', async () => {
    const chunk = new Uint8Array(lineCharactersMax / 4).fill(0x20)
    await assert.rejects(
      readHistory([chunk, chunk, chunk, chunk, chunk], { model: 'kv', format: null }),
      /line 1: longer than/,
    )
  })

  it('does not care where chunks are cut', async () => {
    const text =
      '{"format":"roundhouse-history","version":1,"model":"kv"}\n{"type":"invoke","process":"ü","f":"set","args":["→"]}\n{"type":"ok","process":"ü"}\n'
    const bytes = new TextEncoder().encode(text)
    const whole = short(await read(text))
    for (let size = 1; size < 20; size++) {
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
        bytes.subarray(i * size, (i + 1) * size),
      )
      assert.deepEqual(short(await readHistory(chunks, { model: null, format: null })), whole)
    }
  })
})
