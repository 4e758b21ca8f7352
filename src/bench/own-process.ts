/**
 * A process that the bench starts for itself: a node of ours or of another store. Whatever becomes of the bench, it does
 * not outlive it: an exit handler kills what still runs; where nodes know the pipe to their standard input they stop when
 * it closes, and others are told by the kernel (`setpriv --pdeathsig`, where there is one). The same holds for directories.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

/** The end of what it printed is kept, to explain why it ended. */
const outputCharsMax = 8_000
const linesShown = 12
/** In which /proc counts processor time, on every Linux. */
const ticksPerSecond = 100
const stopMsMax = 10_000
/** Below those that systems give to outgoing connections: it stays free while its node is down. */
const ports = { from: 10_000, to: 30_000 } as const

const running = new Set<ChildProcess>()
const directories = new Set<string>()

process.on('exit', endAll)

/** Whatever is left of what was started and made: at the end, and where somebody has lost hold of it. */
export function endAll(): void {
  for (const child of running) child.kill('SIGKILL')
  for (const path of directories) removeDirectory(path)
}

export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), `roundhouse-bench-${process.pid}-`))
  directories.add(path)
  return path
}

export function removeDirectory(path: string): void {
  remove(path)
  directories.delete(path)
}

function remove(path: string): void {
  // What a killed node had begun in processes of its own ends a moment after it, and may leave a file meanwhile.
  rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
}

/** Where PATH has a program of this name; null: nowhere. */
export function inPath(name: string, path = process.env.PATH ?? ''): string | null {
  for (const directory of path.split(delimiter).filter(each => each !== '')) {
    const candidate = join(directory, name)
    try {
      accessSync(candidate, constants.X_OK)
      return candidate
    } catch {
      // The next one.
    }
  }
  return null
}

const given = new Set<number>()

export async function freePort(): Promise<number> {
  for (;;) {
    const port = ports.from + Math.floor(Math.random() * (ports.to - ports.from))
    if (given.has(port)) continue
    given.add(port)
    const isFree = await new Promise<boolean>(resolve => {
      const probe = createServer()
      probe.once('error', () => resolve(false))
      probe.listen({ host: '127.0.0.1', port, exclusive: true }, () => probe.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}

export interface OwnCommand {
  readonly name: string
  readonly command: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly directory: string
  /** It ends when its standard input does. */
  readonly isSupervised: boolean
}

export class OwnProcess {
  readonly name: string
  private readonly child: ChildProcess
  private readonly isSupervised: boolean
  private readonly end: Promise<void>
  private hasEnded = false
  private text = ''

  constructor({ name, command, env, directory, isSupervised }: OwnCommand) {
    this.name = name
    this.isSupervised = isSupervised
    const keeper = isSupervised ? null : inPath('setpriv')
    const whole = keeper === null ? command : [keeper, '--pdeathsig', 'KILL', '--', ...command]
    // A group of its own: Ctrl-C reaches the bench alone, which then ends it.
    const child = spawn(whole[0]!, whole.slice(1), {
      ...{ cwd: directory, env, detached: true },
      stdio: [isSupervised ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    })
    this.child = child
    running.add(child)
    child.stdin?.on('error', () => {})
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding('utf8')
      stream.on('data', (chunk: string) => {
        this.text = (this.text + chunk).slice(-outputCharsMax)
      })
    }
    this.end = new Promise(resolve => {
      const ended = () => {
        running.delete(child)
        this.hasEnded = true
        resolve()
      }
      child.once('error', error => {
        this.text += `${error.message}\n`
        if (child.pid === undefined) ended()
      })
      child.once('close', ended)
    })
  }

  get isRunning(): boolean {
    return !this.hasEnded
  }

  get ended(): Promise<void> {
    return this.end
  }

  get pid(): number {
    if (this.child.pid === undefined)
      throw new Error(`${this.name} could not be started: ${this.lastLines()}`)
    return this.child.pid
  }

  /** The end of what it printed. */
  get output(): string {
    return this.text
  }

  lastLines(): string {
    return this.text.trimEnd().split('\n').slice(-linesShown).join('\n')
  }

  /** kill -9: no chance to write anything more. */
  kill(): Promise<void> {
    this.child.kill('SIGKILL')
    return this.end
  }

  /** Asks it to end, and kills it when it does not. Whether it ended by itself. */
  async stop(msMax = stopMsMax): Promise<boolean> {
    if (this.hasEnded) return true
    if (this.isSupervised) this.child.stdin?.end()
    else this.child.kill('SIGTERM')
    let isKilled = false
    const timer = setTimeout(() => {
      isKilled = true
      this.child.kill('SIGKILL')
    }, msMax)
    await this.end
    clearTimeout(timer)
    return !isKilled
  }

  /** Processor time since its start, s; null: the system does not say (it is not Linux), or it has ended. */
  cpuS(): number | null {
    return this.hasEnded || this.child.pid === undefined ? null : cpuOf(this.child.pid)
  }
}

export function cpuOf(pid: number): number | null {
  try {
    return cpuIn(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return null
  }
}

/** Of a line of /proc/PID/stat: the process's name, in brackets, may hold anything. */
export function cpuIn(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}
