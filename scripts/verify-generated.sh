#!/usr/bin/env bash
# Fails when src/gen is not what proto/ generates. Writes nothing outside a temporary directory.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npx buf generate --output "$work"
node scripts/write-image.mjs "$work/src/gen/image.ts"
diff -r "$work/src/gen" src/gen || { echo 'src/gen is stale: run npm run generate' >&2; exit 1; }
