/**
 * Cancels a call, but never from within another call's callback. Such a callback may run while nghttp2 reads a RST_STREAM
 * of the same connection, and a RST_STREAM that Node sends from there makes it write for ever: the loop hangs and memory
 * grows by gigabytes a second (nodejs/node#52952). It was seen when a process that had been stopped for a minute woke up
 * to a connection whose streams the other side had reset.
 */
export function cancelSoon(call: { cancel(): void }): void {
  setImmediate(() => call.cancel())
}
