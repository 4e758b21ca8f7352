/** What `import { … } from 'roundhouse'` gives. */

export type { WatchCursor } from '../lib/watch-cursor.ts'
export type { AtomicAppend, AtomicCommand, AtomicResult } from './atomic.ts'
export { CallError, type CallErrorCode, type Outcome } from './call-error.ts'
export {
  type CallOptions,
  Client,
  type ConnectOptions,
  connect,
  type ProduceOptions,
  type Reply,
} from './client.ts'
export type { ConsumeOptions, Consumer, Positions } from './consumer.ts'
export type { Pipeline } from './pipeline.ts'
export type { Produced } from './producer.ts'
export type { HeadersInput, NewRecord, RecordOptions, StreamRecord } from './record.ts'
export type { Page, ScoredMember, Value } from './reply.ts'
export type {
  CreateOptions,
  PartitionInfo,
  Retention,
  StreamDescription,
  StreamInfo,
  Streams,
  TruncateOptions,
} from './streams.ts'
export type { ExpireOptions, Input, ScanOptions, SetOptions, ZaddOptions, ZrangeOptions } from './table.ts'
export type { TlsOptions } from './tls.ts'
export {
  CompactedError,
  type WatchEvent,
  type Watcher,
  type WatchOptions,
  type WatchTarget,
} from './watch.ts'
