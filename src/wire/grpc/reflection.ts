/** Server reflection from the descriptors that were generated beside the code: no .proto file is read at run time. */

import { BinaryReader } from '@bufbuild/protobuf/wire'
import type {
  Server,
  ServerDuplexStream,
  ServiceDefinition,
  UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { ReflectionService } from '@grpc/reflection'
import { image } from '../../gen/image.ts'

/** What is listed. `roundhouse.v1.Peer` is between nodes and nobody's to explore. */
const services = [
  'clusterpb.ClusterNode',
  'log.v1.Log',
  'roundhouse.v1.Shards',
  'roundhouse.v1.Streams',
  'roundhouse.v1.Watch',
  'roundhouse.v1.Admin',
  'grpc.health.v1.Health',
]

export function addReflection(server: Server): void {
  const addService = (definition: object, handlers: object) => {
    const paced = Object.entries(handlers as Record<string, Handler>).map(
      ([name, handler]) => [name, (call: Explored) => handler(pushingBack(call))] as const,
    )
    server.addService(
      definition as ServiceDefinition,
      Object.fromEntries(paced) as unknown as UntypedServiceImplementation,
    )
  }
  makeReflection().addToServer({ addService } as Parameters<ReflectionService['addToServer']>[0])
}

type Explored = ServerDuplexStream<unknown, unknown>
type Handler = (call: Explored) => void

/** The library answers each question at once, in pages of kilobytes for a few bytes, whether the answers are read or not. */
function pushingBack(call: Explored): Explored {
  const write = call.write.bind(call) as (message: unknown) => boolean
  call.write = (message: unknown) => {
    const isTaken = write(message)
    if (!isTaken) call.pause()
    return isTaken
  }
  call.on('drain', () => call.resume())
  return call
}

function makeReflection(): ReflectionService {
  // The library wants proto-loader's package definition and reads nothing of it but the files' descriptors.
  const definition = {
    image: { format: 'FileDescriptorSet', type: {}, fileDescriptorProtos: filesOf(image) },
  }
  return new ReflectionService(definition as unknown as ConstructorParameters<typeof ReflectionService>[0], {
    services,
  })
}

/** FileDescriptorSet { 1 file repeated FileDescriptorProto }: each file's bytes. */
function filesOf(base64: string): Buffer[] {
  const reader = new BinaryReader(Buffer.from(base64, 'base64'))
  const files: Buffer[] = []
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === 1) files.push(Buffer.from(reader.bytes()))
    else reader.skip(wireType, field)
  }
  return files
}
