import { HealthCheckResponse_ServingStatus } from '../gen/grpc/health/v1/health.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson } from './print.ts'
import { exitCodes, reportOf, UsageError, type Verb } from './shell.ts'

const servingNames = new Map<number, string>(
  Object.entries(HealthCheckResponse_ServingStatus).map(([name, value]) => [value, name]),
)

export const healthVerb: Verb = {
  path: ['health'],
  summary: 'Ask a node whether it has joined and works: 0 if so, 1 if not',
  options: { ...outputOption, ...connectionOptions },
  examples: [['health --node 127.0.0.1:8080 --timeout 2s', 'for a container’s health check']],
  async run(input, shell) {
    const nodes = Nodes.from(input, shell)
    const isJson = input.options.output === 'json'
    const say = (status: string, why: string) => {
      if (isJson) printJson(shell.stdout, { node: nodes.address, status, ...(why === '' ? {} : { why }) })
      else
        shell.stdout.write(
          `${status}${nodes.address === null ? '' : ` ${nodes.address}`}${why === '' ? '' : `: ${why}`}\n`,
        )
    }
    try {
      const answer = await nodes.call('read', (call, { health }) =>
        call(health.check.bind(health), { service: '' }),
      )
      say(servingNames.get(answer.status) ?? 'UNKNOWN', '')
      return answer.status === HealthCheckResponse_ServingStatus.SERVING ? exitCodes.done : exitCodes.failed
    } catch (error) {
      if (error instanceof UsageError) throw error
      // A health check knows two answers: whatever keeps a node from answering is the second.
      say('UNREACHABLE', reportOf(error, false).error.message)
      return exitCodes.failed
    } finally {
      nodes.close()
    }
  },
}
