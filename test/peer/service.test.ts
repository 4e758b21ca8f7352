import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { describe, it } from 'node:test'
import { Metadata, status } from '@grpc/grpc-js'
import { AskRequest } from '../../src/gen/roundhouse/v1/peer.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { deferred } from '../../src/lib/deferred.ts'
import { nobodyIsChecked } from '../../src/peer/caller.ts'
import { encodeHandshake } from '../../src/peer/frames.ts'
import { encodeMessage } from '../../src/peer/proto-io.ts'
import { PeerHandlers, peerLimits } from '../../src/peer/service.ts'
import { type GrpcStatus, statusOf } from '../../src/peer/status.ts'
import { FakePeerService } from '../wire/grpc/fake-service.ts'

class Timers implements Clock {
  private nowMs = 0
  private timers: { readonly atMs: number; readonly run: () => void }[] = []
  now = () => this.nowMs
  wall = () => this.nowMs
  after = (ms: number, run: () => void) => {
    const timer = { atMs: this.nowMs + ms, run }
    this.timers.push(timer)
    return () => {
      this.timers = this.timers.filter(each => each !== timer)
    }
  }

  get size(): number {
    return this.timers.length
  }

  pass(ms: number): void {
    this.nowMs += ms
    const due = this.timers.filter(({ atMs }) => atMs <= this.nowMs)
    this.timers = this.timers.filter(({ atMs }) => atMs > this.nowMs)
    for (const { run } of due) run()
  }
}

/** A stream as grpc-js hands it over; null while it is open, 'OK' or what it ended with. */
class Stream extends EventEmitter {
  readonly metadata = new Metadata()
  end: 'OK' | GrpcStatus | null = null
  sendMetadata(): void {}

  introduce(nodeId: string): this {
    this.emit('data', encodeHandshake({ clusterId: 'c1', nodeId, storeId: 's' }, 'control'))
    return this
  }
}

function setUp() {
  const clock = new Timers()
  const service = new FakePeerService()
  const weights: { handedOver: number; answered: number }[] = []
  const memoryOf = () => {
    const weight = { handedOver: 0, answered: 0 }
    weights.push(weight)
    return {
      handOver: () => void weight.handedOver++,
      answered: (bytes: number) => {
        weight.answered += bytes
      },
    }
  }
  const handlers = new PeerHandlers({
    service,
    statusOf,
    callerOf: nobodyIsChecked,
    clock,
    memoryOf,
  }).handlers()
  type Frames = (stream: Stream, callback: (error: GrpcStatus | null) => void) => void
  type Ask = (call: object, callback: (error: GrpcStatus | null, answer?: Buffer) => void) => void
  const { frames, ask } = handlers as unknown as { frames: Frames; ask: Ask }
  const open = (): Stream => {
    const stream = new Stream()
    frames(stream, error => {
      assert.equal(stream.end, null)
      stream.end = error ?? 'OK'
    })
    return stream
  }
  const question = () => {
    const from = { clusterId: 'c1', nodeId: 'n2', storeId: 's', lane: '' }
    const request = encodeMessage(AskRequest, { from, method: 'x', body: '{}' })
    return new Promise<GrpcStatus | 'answered'>(resolve =>
      ask({ request, metadata: new Metadata() }, error => resolve(error ?? 'answered')),
    )
  }
  return { clock, service, weights, open, question }
}

const codeOf = ({ end }: Stream) => (end === null || end === 'OK' ? end : end.code)

describe('streams of frames', () => {
  it('say who they are in time, or end', () => {
    const { clock, open } = setUp()
    const [silent, node] = [open(), open().introduce('n2')]
    clock.pass(peerLimits.handshakeMsMax - 1)
    assert.equal(silent.end, null)
    clock.pass(1)
    assert.equal(codeOf(silent), status.INVALID_ARGUMENT)
    assert.equal(node.end, null)
    assert.equal(clock.size, 0)
  })

  it('of one node are a few: the oldest gives way', () => {
    const { open } = setUp()
    const other = open().introduce('n3')
    const streams = Array.from({ length: peerLimits.streamsOfNodeMax }, () => open().introduce('n2'))
    streams[1]!.emit('end')
    streams.push(open().introduce('n2'))
    assert.deepEqual(streams.map(codeOf), [null, 'OK', ...streams.slice(2).map(() => null)])
    streams.push(open().introduce('n2'))
    assert.deepEqual(streams.map(codeOf).slice(0, 3), [status.RESOURCE_EXHAUSTED, 'OK', null])
    assert.equal(other.end, null)
  })

  it('that have not said who they are give way to others; where all have, a further one is refused', () => {
    const { open } = setUp()
    const stranger = open()
    const nodes = Array.from({ length: peerLimits.streamsMax - 1 }, (_, i) => open().introduce(`n${i}`))
    const late = open().introduce('late')
    assert.deepEqual([codeOf(stranger), late.end], [status.RESOURCE_EXHAUSTED, null])
    assert.equal(codeOf(open()), status.RESOURCE_EXHAUSTED)
    nodes[0]!.emit('cancelled')
    assert.equal(open().introduce('again').end, null)
    assert.ok(nodes.every(({ end }) => end === null))
  })

  it('weigh what has not come whole', () => {
    const { open, weights } = setUp()
    open().introduce('n2').emit('data', Buffer.alloc(0))
    assert.deepEqual(weights, [{ handedOver: 2, answered: 0 }])
  })
})

describe('questions', () => {
  it('beyond so many that are not answered are refused', async () => {
    const { service, question } = setUp()
    const wait = deferred<string>()
    service.onAsk = () => wait.promise
    const asked = Array.from({ length: peerLimits.questionsMax }, question)
    const refused = await question()
    assert.equal(refused !== 'answered' && refused.code, status.RESOURCE_EXHAUSTED)
    wait.resolve('{}')
    assert.ok((await Promise.all(asked)).every(each => each === 'answered'))
    assert.equal(await question(), 'answered')
  })

  it('weigh with their answers', async () => {
    const { service, question, weights } = setUp()
    service.onAsk = async () => 'x'.repeat(1_000)
    await question()
    assert.ok(weights[0]!.answered >= 1_000)
  })
})
