import { connect } from 'node:http2'
import { describe, it } from 'node:test'
import { grpcLimits } from '../../../src/wire/grpc/options.ts'
import { startServer, until } from './harness.ts'

describe('a server', () => {
  it('takes half a mebibyte of a call, and of a connection, before its sender must wait', async () => {
    const harness = await startServer()
    const session = connect(`http://${harness.address}`)
    try {
      const { receiveWindowBytes } = grpcLimits
      await until('settings', () => session.remoteSettings?.initialWindowSize === receiveWindowBytes)
      // Of the connection: what the peer said, not what was sent since.
      await until('a window', () => session.state.remoteWindowSize === receiveWindowBytes)
    } finally {
      session.destroy()
      await harness.close()
    }
  })
})
