#!/usr/bin/env bash
# Runs docker-compose.yml for real: three nodes from an image built here, set and get through every port and from inside
# the network, a fourth node that takes its share, a killed container, and down again. Prints what it does and sees;
# ends with 0 only if all of it went as it should.
#
#   NODE_IMAGE          base image; without it node:22-bookworm-slim where it is here or can be pulled
#   BASE_IMAGE_SCRIPT   makes an engine and a base image and prints its name, where there is no registry
#   NPM_REGISTRY        registry for `npm ci` in the image, where it is not npm's own
set -euo pipefail
cd "$(dirname "$0")/.."

base_image_script=${BASE_IMAGE_SCRIPT:-../shared/docker/base-image.sh}
default_image=node:22-bookworm-slim
export COMPOSE_PROJECT_NAME=roundhouse-test
passed=0

say() { printf '\n== %s\n' "$*"; }
ok() { passed=$((passed + 1)); printf 'ok   %s\n' "$*"; }
fail() {
  printf 'FAIL %s\n' "$*" >&2
  compose logs --tail=30 >&2 2>/dev/null || true
  exit 1
}
compose() { if command -v docker-compose >/dev/null; then docker-compose "$@"; else docker compose "$@"; fi; }
roundhouse() { node dist/main.js "$@"; }
# is 'a description' expected actual
is() { if [ "$2" = "$3" ]; then ok "$1: $3"; else fail "$1: expected '$2', got '$3'"; fi; }

# within SECONDS 'a description' command…: until the command succeeds.
within() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then fail "$what: not in time"; fi
    sleep 0.5
  done
  ok "$what"
}

# judge PORT 'javascript over `s`, the status': true or false as exit code.
judge() {
  roundhouse status --node "127.0.0.1:$1" --timeout 5s -o json |
    node -e 'const s = JSON.parse(require("fs").readFileSync(0, "utf8")); process.exit(eval(process.argv[1]) ? 0 : 1)' "$2"
}
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(compose ps -a -q "$1")")" = healthy ]; }
alive() { judge "$1" "s.nodes.filter(n => n.state === 'alive').length === $2"; }
whole() { judge "$1" "s.shards.length > 0 && s.shards.every(x => x.leader !== null && x.voters.length === 3)"; }
balanced() {
  judge "$1" "(mean => s.rebalance.state === 'idle' && s.nodes.every(n => n.replicas <= Math.max(Math.ceil(mean), Math.floor(1.1 * mean))))(s.nodes.reduce((sum, n) => sum + n.replicas, 0) / s.nodes.length)"
}

# --- An engine and an image -----------------------------------------------------------------------------------------

if [ -z "${NODE_IMAGE:-}" ]; then
  if docker image inspect "$default_image" >/dev/null 2>&1 || timeout 60 docker pull -q "$default_image" >/dev/null 2>&1; then
    NODE_IMAGE=$default_image
  elif [ -f "$base_image_script" ]; then
    say "no image registry: $base_image_script makes a base image"
    NODE_IMAGE=$(bash "$base_image_script" | tail -n 1)
  else
    echo "needs docker and $default_image, or BASE_IMAGE_SCRIPT" >&2
    exit 1
  fi
fi
export NODE_IMAGE
say "base image $NODE_IMAGE; $(docker version -f 'engine {{.Server.Version}}'); $(compose version --short 2>/dev/null | head -n 1)"

say 'build'
build_args=(--build-arg "NODE_IMAGE=$NODE_IMAGE")
for name in NPM_REGISTRY HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  if [ -n "${!name:-}" ]; then build_args+=(--build-arg "$name"); fi
done
docker build --network host "${build_args[@]}" -t roundhouse:local .
docker image inspect -f 'image of {{.Size}} bytes, user {{.Config.User}}' roundhouse:local
npm run --silent build

# --- Three nodes ----------------------------------------------------------------------------------------------------

compose --profile grow down -v --remove-orphans >/dev/null 2>&1 || true
trap 'compose --profile grow down -v --remove-orphans >/dev/null 2>&1 || true' EXIT

say 'three nodes'
compose up -d --no-build
for node in node1 node2 node3; do within 90 "$node is healthy" healthy "$node"; done
within 60 'three members' alive 8081 3
within 90 'every shard has a leader and three voters' whole 8081
roundhouse status --node 127.0.0.1:8081

say 'set and get through every node'
for port in 8081 8082 8083; do
  is "set through $port" OK "$(roundhouse set "greeting-$port" "hello from $port" --node "127.0.0.1:$port")"
  for other in 8081 8082 8083; do
    is "get through $other" "hello from $port" "$(roundhouse get "greeting-$port" --node "127.0.0.1:$other")"
  done
done
is 'get inside the network' 'hello from 8081' \
  "$(compose exec -T node2 roundhouse get greeting-8081 --node node1:8080 | tr -d '\r')"
is 'who runs in the container' node "$(compose exec -T node1 id -un | tr -d '\r')"

# --- A fourth -------------------------------------------------------------------------------------------------------

say 'load, and a fourth node'
pairs=() keys=()
for i in $(seq 500); do
  pairs+=("key-$i" "value-$i")
  keys+=("key-$i")
done
expected=$(for i in $(seq 500); do printf '"value-%s"\n' "$i"; done)
values() { roundhouse run MGET "${keys[@]}" --node "127.0.0.1:$1" | sed -E 's/^ *[0-9]+\) //'; }
is 'load 500 keys' OK "$(roundhouse run MSET "${pairs[@]}" --node 127.0.0.1:8081)"
compose --profile grow up -d --no-build node4
within 60 'four members' alive 8081 4
timeout 300 node dist/main.js rebalance --watch --node 127.0.0.1:8082 || fail 'rebalance --watch'
within 60 'balanced' balanced 8083
judge 8081 "s.nodes.find(n => n.node_id === 'node4').replicas > 0" || fail 'node4 holds nothing'
roundhouse status --node 127.0.0.1:8084
for port in 8081 8082 8083 8084; do
  [ "$(values "$port")" = "$expected" ] || fail "the 500 keys through $port"
  ok "the 500 keys through $port"
done

# --- A crash --------------------------------------------------------------------------------------------------------

say 'kill -9 of node2'
compose kill -s SIGKILL node2
is 'set without node2' OK "$(roundhouse set after-the-crash yes --node 127.0.0.1:8081,8083 --timeout 20s)"
[ "$(values 8083)" = "$expected" ] || fail 'the 500 keys without node2'
ok 'the 500 keys without node2'
compose start node2
within 60 'four members again' alive 8081 4
within 60 'node2 answers' roundhouse health --node 127.0.0.1:8082
is 'what was written meanwhile, through node2' yes "$(roundhouse get after-the-crash --node 127.0.0.1:8082)"

say 'all down and up again'
compose --profile grow stop
is 'clean ends' '0 0 0 0' "$(docker inspect -f '{{.State.ExitCode}}' $(compose --profile grow ps -a -q) | xargs)"
compose --profile grow up -d --no-build
within 90 'four members after a restart' alive 8081 4
within 60 'every shard has a leader' whole 8081
[ "$(values 8082)" = "$expected" ] || fail 'the 500 keys after a restart'
ok 'the 500 keys after a restart'

say "compose: $passed checks passed"
