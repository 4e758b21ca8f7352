/**
 * A reporter for Node's test runner that says at the end, in one place, what failed and why: between two thousand lines
 * of successes nobody finds it. The machine-readable report goes beside it.
 */
export default async function* failures(events) {
  const failed = [];
  for await (const event of events) {
    if (event.type === 'test:fail' && !event.data.todo) failed.push(event.data);
  }
  for (const { file, line, name, nesting, details } of failed) {
    const error = details.error?.cause ?? details.error;
    // A suite fails with its tests; they are told one by one.
    if (details.error?.failureType === 'subtestsFailed') continue;
    yield `\nFAILED ${file}:${line} ${'› '.repeat(nesting)}${name}\n${error?.stack ?? error}\n`;
  }
}
