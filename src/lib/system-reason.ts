import { getSystemErrorMap } from 'node:util'

/** What the system says about a failed call, for people: "EACCES: permission denied", without call and path. */
export function systemReason(error: unknown): string {
  const { code, errno, message } = error as NodeJS.ErrnoException
  const text = errno === undefined ? undefined : getSystemErrorMap().get(errno)?.[1]
  return code === undefined ? message : text === undefined ? code : `${code}: ${text}`
}
