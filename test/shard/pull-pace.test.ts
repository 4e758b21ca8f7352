import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { gapMsMax, PullPace, restFactor, wholeChunkBytes } from '../../src/shard/pull-pace.ts'

const mebibyte = 1024 * 1024

/** Pulls chunks one after another, each of which takes `chunkMs`, and says when each was asked for. */
class Puller {
  nowMs = 0
  readonly askedMs: number[] = []
  private readonly pace: PullPace
  private readonly due: { readonly atMs: number; readonly run: () => void }[] = []

  constructor(bytesPerSecond: number) {
    const after = (ms: number, run: () => void) => {
      this.due.push({ atMs: this.nowMs + ms, run })
      return () => {}
    }
    this.pace = new PullPace({ now: () => this.nowMs, wall: () => 0, after }, bytesPerSecond)
  }

  async pull(chunks: number, chunkMs: number, bytes = mebibyte): Promise<void> {
    for (let i = 0; i < chunks; i++) {
      const turn = this.pace.turn(bytes)
      for (const { atMs, run } of this.due.splice(0)) {
        this.nowMs = atMs
        run()
      }
      await turn
      this.askedMs.push(this.nowMs)
      this.nowMs += chunkMs
      this.pace.note(chunkMs)
    }
  }

  /** Between the last two questions. */
  get gapMs(): number {
    return this.askedMs.at(-1)! - this.askedMs.at(-2)!
  }
}

describe('the pace of pulls', () => {
  it('is that of the setting where a chunk costs nothing', async () => {
    const puller = new Puller(64 * mebibyte)
    await puller.pull(65, 0)
    assert.equal(puller.askedMs.at(-1), 1_000)
  })

  it('rests as many times as long as a chunk took', async () => {
    const puller = new Puller(1024 * mebibyte)
    await puller.pull(40, 10)
    assert.ok(Math.abs(puller.gapMs - (1 + restFactor) * 10) < 0.1, `${puller.gapMs}`)
  })

  it('is never slower than a chunk each gapMsMax, so that every move ends', async () => {
    const puller = new Puller(1024 * mebibyte)
    await puller.pull(20, gapMsMax - 1)
    assert.equal(puller.gapMs, gapMsMax)
  })

  it('rests less after less', async () => {
    const puller = new Puller(1024 * mebibyte)
    await puller.pull(40, 10, wholeChunkBytes / 2)
    assert.ok(Math.abs(puller.gapMs - ((1 + restFactor) * 10) / 2) < 0.1, `${puller.gapMs}`)
  })

  it('is at its full speed again some chunks after they are quick again', async () => {
    const puller = new Puller(64 * mebibyte)
    await puller.pull(20, 200)
    await puller.pull(12, 0)
    assert.equal(puller.gapMs, 1_000 / 64)
  })

  it('is that of all pulls together', async () => {
    const puller = new Puller(mebibyte)
    await Promise.all([puller.pull(2, 0), puller.pull(2, 0)])
    assert.equal(puller.askedMs.length, 4)
    assert.equal(puller.nowMs, 3_000)
  })
})
