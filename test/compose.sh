#!/usr/bin/env bash
# Runs docker-compose.yml for real: an image built here, three nodes that clients reach from this machine and from inside
# the network, a fourth that takes its share, processes killed with -9, all containers removed and made again on their
# volumes, a node that leaves, one that lost its volume; then docker-compose.tls.yml. Prints what it does and sees, ends with 0 only if all of it went
# as it should, and removes its containers, volumes and network whatever happens.
#
#   PORT1 … PORT4       ports on this machine; without them 8081 … 8084, or 18081 … 18084 where one of those is taken
#   NODE_IMAGE          base image; without it node:22-bookworm-slim where it is here or can be pulled
#   BASE_IMAGE_SCRIPT   makes an engine and a base image and prints its name, where there is no registry
#   NPM_REGISTRY        registry for `npm ci` in the image, where it is not npm's own
set -euo pipefail
cd "$(dirname "$0")/.."

base_image_script=${BASE_IMAGE_SCRIPT:-../shared/docker/base-image.sh}
default_image=node:22-bookworm-slim
image=roundhouse:local
export COMPOSE_PROJECT_NAME=roundhouse-test
work=$(mktemp -d)
# Stderr as it is now: the trap may run inside a command whose own is sent away.
exec 3>&2
passed=0

say() { printf '\n== %s\n' "$*"; }
ok() { passed=$((passed + 1)) && printf 'ok   %s\n' "$*"; }
fail() {
  printf 'FAIL %s\n' "$*" >&2
  compose --profile grow ps >&2 2>/dev/null || true
  compose --profile grow logs --no-color --tail=20 2>/dev/null | cut -c -300 >&2 || true
  exit 1
}
compose() { if command -v docker-compose >/dev/null; then docker-compose "$@"; else docker compose "$@"; fi; }
# What a command says is shown when it fails.
quiet() { "$@" >"$work/output" 2>&1 || { cat "$work/output" >&2 && fail "$*"; }; }
# The same with TLS; its certificates are made by this run, beside nobody else's.
tls_compose() {
  compose --project-directory "$work" -f "$PWD/docker-compose.yml" -f "$PWD/docker-compose.tls.yml" "$@"
}
remove_all() { tls_compose --profile grow down -v --remove-orphans >/dev/null 2>&1 || true; }
cleanup() {
  local status=$?
  trap - EXIT INT TERM
  remove_all
  rm -rf "$work"
  if [ "$status" != 0 ]; then printf '\n== compose: FAILED with %s after %s checks\n' "$status" "$passed" >&3; fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The client on this machine: the program of the image, with the packages of this checkout.
roundhouse() { node "$work/dist/main.js" "$@"; }
# A client inside the network: a container of its own.
inside() { docker run --rm --network "${COMPOSE_PROJECT_NAME}_default" "$image" "$@"; }

# is 'a description' expected actual
is() { if [ "$2" = "$3" ]; then ok "$1: $3"; else fail "$1: expected '$2', got '$3'"; fi; }
# so 'a description' command…: the command succeeds.
so() {
  local what=$1
  shift
  if "$@"; then ok "$what"; else fail "$what"; fi
}
# watched COMMAND…: the client's own progress, its end.
watched() {
  local status=0
  timeout 180 node "$work/dist/main.js" "$@" >"$work/output" 2>&1 || status=$?
  tail -n 2 "$work/output"
  return "$status"
}
# within SECONDS 'a description' command…: until the command succeeds.
within() {
  local from=$SECONDS deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then fail "$what: not in time"; fi
    sleep 0.5
  done
  ok "$what ($((SECONDS - from)) s)"
}

# look PORT 'javascript over `s`, the status': its value.
look() {
  roundhouse status --node "127.0.0.1:$1" --timeout 5s -o json |
    node -e 'const s = JSON.parse(require("fs").readFileSync(0, "utf8")); console.log(eval(process.argv[1]))' "$2"
}
judge() { [ "$(look "$@")" = true ]; }
container() { compose --profile grow ps -a -q "$@"; }
inspect() { docker inspect -f "$1" $(container "${@:2}") | xargs; }
healthy() { [ "$(inspect '{{.State.Health.Status}}' "$1")" = healthy ]; }
exited() { [ "$(inspect '{{.State.Status}}' "$1")" = exited ]; }
restarts() { [ "$(inspect '{{.RestartCount}}' "$1")" -ge "$2" ]; }
# logged NODE 'text': since its container was made.
logged() { compose --profile grow logs --no-color "$1" 2>&1 | grep -F -- "$2" >/dev/null; }
not() { ! "$@"; }
alive() { judge "$1" "s.nodes.filter(n => n.state === 'alive').length === $2"; }
whole() { judge "$1" "s.shards.length > 0 && s.shards.every(x => x.leader !== null && x.voters.length === 3)"; }
# Replicas and leaders within the bound of the placement, max(⌈mean⌉, ⌊1.1 × mean⌋), and nothing to move.
balanced() {
  judge "$1" "(within => s.rebalance.state === 'idle' && within(n => n.replicas) && within(n => n.leaders))(
    of => { const all = s.nodes.map(of), mean = all.reduce((a, b) => a + b) / all.length
      return all.every(n => n > 0 && n <= Math.max(Math.ceil(mean), Math.floor(1.1 * mean))) })"
}
# kill9 NODE…: the processes, all in one go, from outside their containers: the engine sees them die.
kill9() {
  local pids
  pids=$(inspect '{{.State.Pid}}' "$@")
  docker run --rm --pid host --user root --entrypoint node "$image" \
    -e 'for (const pid of process.argv.slice(1)) process.kill(Number(pid), "SIGKILL")' $pids
}
free() {
  node -e '
    let open = process.argv.length - 1
    for (const port of process.argv.slice(1))
      require("net").createServer().on("error", () => process.exit(1))
        .listen(Number(port), "127.0.0.1", function () { this.close(() => --open || process.exit(0)) })' "$@"
}

# --- An engine and an image -----------------------------------------------------------------------------------------

if [ -z "${NODE_IMAGE:-}" ]; then
  if docker image inspect "$default_image" >/dev/null 2>&1 || timeout 60 docker pull -q "$default_image" >/dev/null 2>&1; then
    NODE_IMAGE=$default_image
  elif [ -f "$base_image_script" ]; then
    say "no image registry: a base image is made here"
    NODE_IMAGE=$(bash "$base_image_script" | tail -n 1)
  else
    echo "needs docker and $default_image, or BASE_IMAGE_SCRIPT" >&2
    exit 1
  fi
fi
export NODE_IMAGE
say "base image $NODE_IMAGE, engine $(docker version -f '{{.Server.Version}}'), compose $(compose version --short 2>/dev/null | head -n 1)"

remove_all
if [ -z "${PORT1:-}${PORT2:-}${PORT3:-}${PORT4:-}" ] && ! free 8081 8082 8083 8084; then
  export PORT1=18081 PORT2=18082 PORT3=18083 PORT4=18084
  echo "8081 … 8084 are taken: $PORT1 … $PORT4 instead"
fi
p1=${PORT1:-8081} p2=${PORT2:-8082} p3=${PORT3:-8083} p4=${PORT4:-8084}

say 'build'
build_args=()
for name in HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  if [ -n "${!name:-}" ]; then build_args+=(--build-arg "$name=${!name}"); fi
done
quiet compose build --force-rm ${build_args[@]+"${build_args[@]}"} node1
docker image inspect -f 'image of {{.Size}} bytes' "$image"
is 'the image runs as' node "$(docker image inspect -f '{{.Config.User}}' "$image")"
so 'the image holds neither source nor what builds it' docker run --rm --entrypoint sh "$image" \
  -c 'test -f /app/dist/main.js && test ! -e /app/src && test ! -e /app/node_modules/typescript'
from_image=$(docker create "$image")
quiet docker cp "$from_image:/app/dist" "$work/dist"
quiet docker cp "$from_image:/app/package.json" "$work/package.json"
quiet docker rm -v "$from_image"
ln -s "$PWD/node_modules" "$work/node_modules"

# --- Three nodes ----------------------------------------------------------------------------------------------------

say 'docker-compose up: three nodes'
quiet compose up -d --no-build
for node in node1 node2 node3; do within 90 "$node is healthy" healthy "$node"; done
within 60 'three members' alive "$p1" 3
within 90 'every shard has a leader and three voters' whole "$p1"
within 60 'balanced' balanced "$p1"
roundhouse status --node "127.0.0.1:$p1"
cluster=$(look "$p1" s.cluster_id)
is 'addresses for peers and for clients outside' \
  "node1:8080 127.0.0.1:$p1 node2:8080 127.0.0.1:$p2 node3:8080 127.0.0.1:$p3" \
  "$(look "$p2" 's.nodes.map(n => `${n.address} ${n.client_address}`).sort().join(" ")')"
is 'who runs in the container' node "$(compose exec -T node1 id -un | tr -d '\r')"

say 'set and get through every node, from this machine'
for port in "$p1" "$p2" "$p3"; do
  is "set through $port" OK "$(roundhouse set "greeting-$port" "hello from $port" --node "127.0.0.1:$port")"
  for other in "$p1" "$p2" "$p3"; do
    is "get through $other" "hello from $port" "$(roundhouse get "greeting-$port" --node "127.0.0.1:$other")"
  done
done

say 'set and get inside the network'
is 'set through node1:8080' OK "$(inside set greeting-inside 'hello from inside' --node node1:8080)"
for node in node1 node2 node3; do
  is "get through $node:8080" 'hello from inside' "$(inside get greeting-inside --node "$node:8080")"
done
is "get through $p2, from this machine" 'hello from inside' "$(roundhouse get greeting-inside --node "127.0.0.1:$p2")"

# --- A fourth -------------------------------------------------------------------------------------------------------

say 'load, and docker-compose --profile grow up: a fourth node'
keys=() pairs=() expected=()
# load ROUND: 500 keys get the round's values, acknowledged.
load() {
  keys=() pairs=() expected=()
  for i in $(seq 500); do
    keys+=("key-$i")
    pairs+=("key-$i" "value-$i-$1")
    expected+=("\"value-$i-$1\"")
  done
  is "500 keys written, round $1" OK "$(roundhouse run MSET "${pairs[@]}" --node "$2" --timeout 20s)"
}
values() { roundhouse run MGET "${keys[@]}" --node "127.0.0.1:$1" --timeout 20s | sed -E 's/^ *[0-9]+\) //'; }
holds() { [ "$(values "$1")" = "$(printf '%s\n' "${expected[@]}")" ]; }
load 1 "127.0.0.1:$p1"
before=$(container node1 node2 node3)
places='s.shards.flatMap(x => [...x.voters, ...x.learners].map(n => x.shard_id + "/" + n)).join(" ")'
placed=$(look "$p1" "$places")
quiet compose --profile grow up -d --no-build
so 'the other containers stay' [ "$before" = "$(container node1 node2 node3)" ]
within 60 'four members' alive "$p1" 4
so 'rebalance --watch ends' watched rebalance --watch --node "127.0.0.1:$p2"
within 60 'balanced, in replicas and leaders' balanced "$p3"
within 60 'every shard has a leader and three voters' whole "$p4"
roundhouse status --node "127.0.0.1:$p4"
moved=$(comm -13 <(tr ' ' '\n' <<<"$placed" | sort) <(look "$p1" "$places" | tr ' ' '\n' | sort) | wc -l | xargs)
share=$(look "$p1" 'Math.floor(s.nodes.reduce((sum, n) => sum + n.replicas, 0) / 4)')
so "$moved replicas moved for a share of $share: at most 1.15 times that" [ $((moved * 100)) -le $((share * 115)) ]
for port in "$p1" "$p2" "$p3" "$p4"; do so "the 500 keys through $port" holds "$port"; done
within 60 'node4 is healthy' healthy node4

# --- Crashes --------------------------------------------------------------------------------------------------------

say 'docker-compose kill of node2, and start'
quiet compose kill -s SIGKILL node2
load 2 "127.0.0.1:$p1,127.0.0.1:$p3"
so 'the 500 keys without node2' holds "$p3"
quiet compose start node2
within 60 'node2 answers' roundhouse health --node "127.0.0.1:$p2"
within 60 'four members again' alive "$p1" 4
so 'what was written meanwhile, through node2' holds "$p2"

say 'kill -9 of the process of node3: the engine starts it again'
kill9 node3
within 60 'node3 was restarted' restarts node3 1
within 60 'node3 answers' roundhouse health --node "127.0.0.1:$p3"
so 'the 500 keys through node3' holds "$p3"

say 'kill -9 of all four processes at once'
load 3 "127.0.0.1:$p2"
kill9 node1 node2 node3 node4
for port in "$p1" "$p2" "$p3" "$p4"; do within 60 "$port answers" roundhouse health --node "127.0.0.1:$port"; done
within 60 'every shard has a leader and three voters' whole "$p1"
for port in "$p1" "$p4"; do so "the 500 keys through $port" holds "$port"; done

# --- Stop, down, up -------------------------------------------------------------------------------------------------

say 'docker-compose stop, down and up again'
from=$SECONDS
quiet compose --profile grow stop
is 'clean ends' '0 0 0 0' "$(inspect '{{.State.ExitCode}}')"
echo "after $((SECONDS - from)) s"
quiet compose --profile grow down
is 'containers left' '' "$(container)"
quiet compose --profile grow up -d --no-build
within 90 'four members' alive "$p1" 4
within 60 'every shard has a leader and three voters' whole "$p1"
is 'the same cluster' "$cluster" "$(look "$p2" s.cluster_id)"
so 'the 500 keys from the named volumes' holds "$p2"

# --- A node leaves --------------------------------------------------------------------------------------------------

say 'leave node4'
so 'leave ends' watched leave node4 --node "127.0.0.1:$p1"
within 30 'its container ends' exited node4
is 'with the status' 0 "$(inspect '{{.State.ExitCode}}' node4)"
within 60 'three members, every shard whole' whole "$p2"
within 60 'balanced' balanced "$p2"
so 'node4 stays away' exited node4
for port in "$p1" "$p2" "$p3"; do so "the 500 keys through $port" holds "$port"; done

# --- A lost volume --------------------------------------------------------------------------------------------------

say 'node1, which founded the cluster, loses its volume while all are down'
quiet compose down
quiet docker volume rm "${COMPOSE_PROJECT_NAME}_node1"
quiet compose up -d --no-build node1
within 60 'node1 waits for its seeds' logged node1 'waiting for a seed before founding a cluster'
sleep 5
so 'and founds nothing while they are silent' not logged node1 'founded a cluster'
so 'nor says that it serves' not roundhouse health --node "127.0.0.1:$p1" --timeout 2s
quiet compose up -d --no-build
within 60 'node1 is refused when they answer' logged node1 'its volume was lost or swapped'
compose logs --no-color node1 2>/dev/null | sed -nE 's/.*"code":"([A-Z_]+)".*"msg":"(.*)".*/  \1 \2/p' | tail -n 1
within 60 'every shard has a leader' judge "$p2" 's.shards.every(x => x.leader !== null)'
is 'the same cluster' "$cluster" "$(look "$p2" s.cluster_id)"
so 'the 500 keys without node1' holds "$p3"

say 'and once more, while the others run'
quiet compose stop node1
quiet compose rm -f node1
quiet docker volume rm "${COMPOSE_PROJECT_NAME}_node1"
quiet compose up -d --no-build node1
within 60 'node1 is refused' logged node1 'its volume was lost or swapped'
within 60 'is tried again' restarts node1 2
so 'and has founded nothing' not logged node1 'founded a cluster'
load 4 "127.0.0.1:$p2,127.0.0.1:$p3"
is 'the same cluster' "$cluster" "$(look "$p3" s.cluster_id)"
for port in "$p2" "$p3"; do so "the 500 keys through $port" holds "$port"; done

say 'leave node1: then its empty volume is welcome'
so 'leave ends' watched leave node1 --allow-under-replicated --node "127.0.0.1:$p2,127.0.0.1:$p3"
within 120 'node1 is a member again' alive "$p3" 3
within 120 'balanced' balanced "$p3"
within 60 'every shard has a leader and three voters' whole "$p3"
within 60 'node1 answers' roundhouse health --node "127.0.0.1:$p1"
is 'the same cluster' "$cluster" "$(look "$p1" s.cluster_id)"
roundhouse status --node "127.0.0.1:$p1"
for port in "$p1" "$p2" "$p3"; do so "the 500 keys through $port" holds "$port"; done

# --- Nothing is left ------------------------------------------------------------------------------------------------

say 'docker-compose down -v'
quiet compose --profile grow down -v
nothing_left() {
  local mine="label=com.docker.compose.project=$COMPOSE_PROJECT_NAME"
  is 'containers, volumes and networks left' '' \
    "$(docker ps -aq --filter "$mine")$(docker volume ls -q --filter "$mine")$(docker network ls -q --filter "$mine")"
}
nothing_left

# --- With TLS -------------------------------------------------------------------------------------------------------

# as NAME COMMAND…: with the client's certificate.
as() {
  local name=$1
  shift
  TLS_CA_PATH=$work/certs/ca.crt TLS_CERT_PATH=$work/certs/$name.crt TLS_KEY_PATH=$work/certs/$name.key "$@"
}
# refused STATUS 'text' COMMAND…: it ends with the status and says so.
refused() {
  local expected=$1 text=$2 status=0
  shift 2
  "$@" >"$work/output" 2>&1 || status=$?
  [ "$status" = "$expected" ] && grep -F -- "$text" "$work/output" >/dev/null || { cat "$work/output" >&2 && return 1; }
}

say 'certs.sh, docker-compose -f docker-compose.yml -f docker-compose.tls.yml up'
quiet ./certs.sh --dir "$work/certs"
quiet tls_compose up -d --no-build
for node in node1 node2 node3; do within 90 "$node is healthy" healthy "$node"; done
within 60 'three members' as admin alive "$p1" 3
within 90 'every shard has a leader and three voters' as admin whole "$p1"
is "root sets through $p1" OK "$(as root roundhouse set tls-key 'over TLS' --node "127.0.0.1:$p1")"
is "nobody gets through $p3" 'over TLS' "$(as nobody roundhouse get tls-key --node "127.0.0.1:$p3")"
is 'and inside the network, by the name' 'over TLS' \
  "$(tls_compose exec -T node2 node dist/main.js get tls-key --node node3:8080 | tr -d '\r')"
so 'a client is no admin' refused 1 NOPERM as root roundhouse status --node "127.0.0.1:$p1"
so 'who shows no certificate is told so' refused 1 'NOAUTH Authentication required: the caller presents no certificate' \
  env TLS_CA_PATH="$work/certs/ca.crt" node "$work/dist/main.js" get tls-key --node "127.0.0.1:$p1"
so 'who speaks no TLS is told so' refused 1 'it speaks TLS and no certificates are given' roundhouse get tls-key --node "127.0.0.1:$p1" --timeout 3s
is 'clean ends' '0 0 0' "$(quiet tls_compose stop node1 node2 node3 && inspect '{{.State.ExitCode}}' node1 node2 node3)"
quiet tls_compose down -v
nothing_left
say "compose: $passed checks passed in $SECONDS s"
