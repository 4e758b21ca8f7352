#!/bin/sh
# Runs the tests named on the command line, or all of them. The files are named one by one: given a folder, Node 20's
# runner finds no TypeScript test in it and reports success. Tests have deadlines of their own; the runner's ends a file
# that hangs, and must not be met by a machine that is merely busy.
set -eu
cd "$(dirname "$0")/.."
if [ $# -eq 0 ]; then set -- $(find test -name '*.test.ts' | sort); fi
[ $# -gt 0 ] || { echo 'no test files found' >&2; exit 1; }
# Three files at a time: many wait for processes and clocks most of their time. What failed is told again at the end.
exec node --import tsx --test --test-concurrency="${TEST_CONCURRENCY:-3}" --test-timeout="${TEST_TIMEOUT_MS:-420000}" \
  --test-reporter=tap --test-reporter-destination=stdout \
  --test-reporter=./test/failures.mjs --test-reporter-destination=stderr "$@"
