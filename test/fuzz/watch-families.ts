/** Watches: what clients ask for, what nodes ask each other and answer, cursors as text. */
import { CopyStreamRequest } from '../../src/gen/roundhouse/v1/streams.ts'
import { WatchRequest, WatchResponse } from '../../src/gen/roundhouse/v1/watch.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import { cursorText, parseCursor } from '../../src/lib/watch-cursor.ts'
import { readAnswer, readQuestion } from '../../src/node/watch-question.ts'
import { decodeMessage, encodeMessage } from '../../src/peer/proto-io.ts'
import { streamsHandlers, streamsMethods } from '../../src/wire/grpc/streams.ts'
import { WatchHandlers, watchMethods } from '../../src/wire/grpc/watch.ts'
import { SimCluster } from '../sim/sim-cluster.ts'
import { decodes, type Family } from './family.ts'
import { connections, FakeStream, gateOptions, throwUnexpected, unaryLater } from './gate.ts'
import { damagedJson, Mutator } from './mutate.ts'

const text = (value: string): Buffer => Buffer.from(value)

const cursors: Family = {
  name: 'watch-cursor',
  refuses: 'null',
  share: 1,
  open: async () => {
    const mutator = new Mutator([fromUtf8('3:1044,17:9'), fromUtf8('0:0')], { isText: true })
    return {
      run: each => {
        const cursor = parseCursor(Buffer.from(mutator.next(each)).toString('latin1'))
        if (cursor === null) return 'refused'
        const places = Object.entries(cursor).map(([shard, index]) => [Number(shard), index] as const)
        const again = parseCursor(cursorText(places))
        if (JSON.stringify(again) !== JSON.stringify(cursor)) throw new Error(cursorText(places))
        return 'taken'
      },
    }
  },
}

const questions: Family = {
  name: 'watch-question',
  refuses: 'INVALID_ARGUMENT; of an answer, null or what its reader catches',
  share: 1,
  open: async () => {
    const question = { shard: 1, after: 40, target: { kind: 'key', key: 'k' }, bytesMax: 1_000, waitMs: 10 }
    const change = { index: 41, number: 0, kind: 'set', key: 'k', type: 1, timeMs: 5, value: 'dg==' }
    const answer = { start: 2, end: 50, upTo: 41, changes: [change] }
    const answers = new Mutator([fromUtf8(JSON.stringify(answer))], { isText: true })
    return {
      run: each => {
        if (each.below(2) === 0) {
          try {
            return readAnswer(Buffer.from(answers.next(each)).toString('utf8')) === null ? 'refused' : 'taken'
          } catch {
            return 'refused'
          }
        }
        const given: unknown = JSON.parse(JSON.stringify(damagedJson(question, each)) ?? 'null')
        // The node refuses what is no object before it looks who is to answer.
        if (typeof given !== 'object' || given === null) return 'refused'
        return decodes(['INVALID_ARGUMENT'], () => {
          const { shard, after, bytesMax, waitMs } = readQuestion(given)
          for (const number of [shard, Math.max(0, after), bytesMax, waitMs])
            if (!Number.isSafeInteger(number) || number < 0) throw new Error(`${number} is taken`)
        })
      },
    }
  },
}

/** On a real node of the simulator: watches that are opened, looked at for a moment and left; copies of records. */
const calls: Family = {
  name: 'watch-call',
  refuses: 'a status with one of our codes',
  share: 0.02,
  isStateful: true,
  open: async () => {
    const watch = new Mutator([
      encodeMessage(WatchRequest, WatchRequest.fromPartial({ target: { $case: 'key', value: text('k') } })),
      encodeMessage(
        WatchRequest,
        WatchRequest.fromPartial({
          target: { $case: 'prefix', value: text('user:') },
          cursor: { 0: 3n, 1: 4n, 2: 5n, 3: 6n },
          values: true,
          progressMs: 100,
        }),
      ),
      encodeMessage(
        WatchRequest,
        WatchRequest.fromPartial({ target: { $case: 'key', value: text('k') }, revision: 7n }),
      ),
    ])
    const record = { value: text('v'), headers: [{ name: 'h', value: text('x') }], timestampMs: 5n }
    const copy = new Mutator([
      encodeMessage(
        CopyStreamRequest,
        CopyStreamRequest.fromPartial({
          name: 'orders',
          partition: 1,
          offset: 0n,
          records: [record, record],
        }),
      ),
    ])
    const cluster = new SimCluster(1, { shardCount: 4 })
    if (!(await cluster.boot(1))) throw new Error('the cluster does not come up')
    const { world } = cluster
    const { node } = cluster.machines[0]!
    const options = gateOptions(node!)
    const open = new WatchHandlers(options, connections).handlers().watch as unknown as (
      stream: FakeStream,
    ) => void
    const handlers = streamsHandlers(options, connections)
    const alive = () => {
      const { ended } = cluster.machines[0]!
      if (ended !== null || cluster.machines[0]!.node !== node) throw new Error(`the node ended: ${ended}`)
    }
    return {
      run: async each => {
        if (each.below(4) === 0) {
          let isSettled = false
          const answered = unaryLater(handlers.copy, streamsMethods.copy, copy.next(each)).finally(() => {
            isSettled = true
          })
          answered.catch(() => {})
          await world.run(world.nowMs + 60_000, () => isSettled)
          alive()
          return (await answered) === null ? 'refused' : 'taken'
        }
        const request = watchMethods.watch.requestDeserialize(Buffer.from(watch.next(each)))
        const stream = Object.assign(new FakeStream(), { request })
        let error: (Error & { code?: unknown }) | null = null
        stream.on('error', given => {
          error = given as Error
        })
        open(stream)
        await world.run(world.nowMs + 3_000, () => error !== null || stream.written.length > 0)
        stream.emit('cancelled')
        for (let turns = 0; turns < 50; turns++) await Promise.resolve()
        stream.emit('close')
        throwUnexpected()
        alive()
        if (node!.stats().watches! > 0) throw new Error('a watch is left behind')
        const ended = error as (Error & { code?: unknown }) | null
        if (ended !== null && typeof ended.code !== 'number') throw ended
        for (const bytes of stream.written) decodeMessage(WatchResponse, bytes)
        return ended === null ? 'taken' : 'refused'
      },
    }
  },
}

export const watchFamilies: readonly Family[] = [cursors, questions, calls]
