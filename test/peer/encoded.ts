import type { EncodedFrame } from '../../src/peer/frames.ts'

/** A frame in one piece, as it arrives. */
export const wholeOf = ({ parts }: EncodedFrame): Buffer => Buffer.concat(parts)
