#!/bin/sh
# Certificates for a cluster and its clients, by openssl: a CA of its own, a certificate for each node (host names and the
# identity URI that peers check), clients, an admin. What is there and good is kept, so it can be run again at any time;
# what is missing, expires soon or does not fit is made. Running nodes take new files by themselves.
set -eu

usage() {
  cat <<'END'
usage: ./certs.sh [--dir DIR] [--days N] [NAME...]

Writes NAME.crt and NAME.key for each NAME, and the CA that signs them (ca.crt, ca.key), into certs/.
Without names: the nodes node1 node2 node3 node4, the clients root and nobody, the admin admin.

  NAME                  a node; its certificate is good for the host names NAME, localhost and 127.0.0.1
  NAME=HOST[,HOST...]   a node, and more host names or addresses by which others dial it
  client:NAME           a client; NAME is the user that access rules speak of
  admin:NAME            a client that may use roundhouse.v1.Admin (status, leave, replace, verify …)

  --dir DIR             where to write [certs]
  --days N              for how long certificates are good [365]; the CA is good for ten years
  --renew-days N        certificates that expire within N days are renewed [30]
  -h, --help            this text

Good files are kept: run it again to renew what expires, to add names, to mend what is broken; without names it looks
after all that it made before. Keep ca.key away from the nodes: whoever has it can make any certificate.

  ./certs.sh                                 # all that docker-compose.tls.yml needs
  ./certs.sh node5 node6=10.0.0.6,n6.lan     # more nodes
  ./certs.sh client:ada admin:bob            # more people
END
}

fail() { printf 'certs.sh: %s\n' "$*" >&2 && exit 1; }
say() { printf '%s\n' "$*"; }
# misused MESSAGE…: the command line can't be understood.
misused() { printf 'certs.sh: %s (./certs.sh --help)\n' "$*" >&2 && exit 2; }
positive() { case $2 in '' | *[!0-9]* | ??????*) misused "$1: '$2' is not a number of days" ;; esac; }

dir=certs
days=365
renew_days=30
ca_days=3650
names=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --dir | --days | --renew-days) [ $# -ge 2 ] || misused "$1 needs a value" ;;
  esac
  case $1 in
    --dir) dir=$2 && shift ;;
    --days) positive "$1" "$2" && days=$2 && shift ;;
    --renew-days) positive "$1" "$2" && renew_days=$2 && shift ;;
    -*) misused "unknown option $1" ;;
    '' | *[[:space:]]*) misused "'$1' is not a name" ;;
    *) names="$names $1" ;;
  esac
  shift
done
[ "$days" -gt 0 ] || misused "--days: '$days' is not a number of days"
# A certificate that is born within the time of renewal would be made anew at each run.
[ "$renew_days" -lt "$days" ] || renew_days=$((days / 2))
all=
[ -n "$names" ] || all=yes
names=${names:-node1 node2 node3 node4 client:root client:nobody admin:admin}
command -v openssl >/dev/null || fail 'openssl is not installed (Debian: apt-get install openssl)'

# Checked before anything is written.
for each in $names; do
  name=${each%%=*}
  case $name in client:* | admin:*) case $each in *=*) misused "$each: only nodes have host names" ;; esac ;; esac
  name=${name#client:}
  name=${name#admin:}
  case $name in
    ca) misused "'ca' is the name of the CA" ;;
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) misused "'$name' is not a name: letters, digits, dots, dashes or underscores" ;;
  esac
  [ ${#name} -le 64 ] || misused "'$name' is too long: at most 64 characters"
  case $each in *=*) case ${each#*=} in '' | *[!A-Za-z0-9.,:_-]*) misused "'$each': host names with commas between them go behind the =" ;; esac ;; esac
done

umask 077
# The directory itself may be looked into: certificates are no secret, and keys have their own rights.
[ -d "$dir" ] || { mkdir -p "$dir" && chmod 755 "$dir"; }
work=$(mktemp -d "$dir/.making.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

seconds=86400
made=0
kept=0

# quiet COMMAND…: what it says is shown when it fails.
quiet() { "$@" >"$work/output" 2>&1 || { cat "$work/output" >&2 && fail "failed: $*"; }; }

# fits NAME: certificate and key are there, can be read and belong together.
fits() {
  [ -f "$dir/$1.crt" ] && [ -f "$dir/$1.key" ] &&
    openssl x509 -in "$dir/$1.crt" -noout -pubkey >"$work/a" 2>/dev/null &&
    openssl pkey -in "$dir/$1.key" -pubout >"$work/b" 2>/dev/null && cmp -s "$work/a" "$work/b"
}

# key NAME: one that can be used is kept, so that old and new certificate fit it alike.
key() {
  if ! openssl pkey -in "$dir/$1.key" -noout 2>/dev/null; then
    quiet openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$1.key"
    mv "$work/$1.key" "$dir/$1.key"
  fi
}

# --- The CA -------------------------------------------------------------------------------------------------------------

why=
if [ ! -f "$dir/ca.crt" ]; then
  why='it is new'
elif ! openssl x509 -in "$dir/ca.crt" -noout 2>/dev/null; then
  fail "$dir/ca.crt is not a certificate: mend or remove it (then all certificates are made anew)"
elif ! openssl x509 -in "$dir/ca.crt" -noout -checkend 0 >/dev/null; then
  why='the old one has expired'
elif [ -f "$dir/ca.key" ] && ! fits ca; then
  fail "$dir/ca.key does not fit $dir/ca.crt: remove the wrong one (without ca.crt all certificates are made anew)"
fi
if [ -n "$why" ]; then
  key ca
  cat >"$work/ca.cnf" <<END
[req]
prompt = no
distinguished_name = name
x509_extensions = ca
[name]
O = Roundhouse
CN = Roundhouse CA $(openssl rand -hex 4)
[ca]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
  quiet openssl req -x509 -new -sha256 -config "$work/ca.cnf" -key "$dir/ca.key" -days "$ca_days" -out "$work/ca.crt"
  chmod 644 "$work/ca.crt"
  mv "$work/ca.crt" "$dir/ca.crt"
  made=$((made + 1))
  say "made     $dir/ca.crt: $why"
else
  kept=$((kept + 1))
fi

# --- Certificates -------------------------------------------------------------------------------------------------------

# alternatives NAME KIND HOSTS: the subject alternative names, as openssl writes them in a configuration.
alternatives() {
  [ "$2" = node ] || return 0
  printf 'DNS:%s,DNS:localhost,IP:127.0.0.1' "$1"
  for host in $(printf %s "$3" | tr ',' ' '); do
    case $host in
      *:*) printf ',IP:%s' "$host" ;;
      *[!0-9.]*) printf ',DNS:%s' "$host" ;;
      *) printf ',IP:%s' "$host" ;;
    esac
  done
  printf ',URI:roundhouse://node/%s' "$1"
}

# trouble NAME: why its certificate must be made; nothing when it is good.
trouble() {
  name=$1
  if [ ! -f "$dir/$name.crt" ]; then
    echo 'it is new'
  elif ! fits "$name"; then
    echo 'the old one and its key did not fit'
  elif ! openssl x509 -in "$dir/$name.crt" -noout -checkend 0 >/dev/null; then
    echo 'the old one had expired'
  elif ! openssl x509 -in "$dir/$name.crt" -noout -checkend $((renew_days * seconds)) >/dev/null; then
    echo "the old one would have expired within $renew_days days"
  elif ! openssl verify -CAfile "$dir/ca.crt" "$dir/$name.crt" >/dev/null 2>&1; then
    echo 'the old one was of another CA'
  fi
}

# kind_of NAME: node, client or admin, by its certificate.
kind_of() {
  case $(openssl x509 -in "$dir/$1.crt" -noout -subject -nameopt RFC2253 2>/dev/null) in
    *OU=node,O=Roundhouse) echo node ;;
    *OU=admin,O=Roundhouse) echo admin ;;
    *,O=Roundhouse) echo client ;;
    *) echo foreign ;;
  esac
}

# old_hosts NAME: the host names that were given to it besides those of every node.
old_hosts() {
  openssl x509 -in "$dir/$1.crt" -noout -ext subjectAltName 2>/dev/null | sed 1d | tr ',' '\n' |
    sed -n 's/^ *DNS://p; s/^ *IP Address://p' | grep -vxF -e "$1" -e localhost -e 127.0.0.1 | tr '\n' ',' | sed 's/,$//'
}

# differs NAME: whether its certificate says something else than the configuration. Compared by what openssl makes of
# both, for it has its own way to write an address.
differs() {
  openssl x509 -in "$dir/$1.crt" -noout -subject -ext subjectAltName,extendedKeyUsage >"$work/is" 2>/dev/null || true
  openssl req -x509 -new -config "$work/$1.cnf" -extensions usage -key "$dir/$1.key" -days 1 -out "$work/wish.crt" 2>/dev/null &&
    openssl x509 -in "$work/wish.crt" -noout -subject -ext subjectAltName,extendedKeyUsage >"$work/wish" 2>/dev/null || true
  ! cmp -s "$work/is" "$work/wish"
}

if [ -n "$all" ]; then
  for file in "$dir"/*.crt; do
    name=${file##*/}
    name=${name%.crt}
    kind=$(kind_of "$name")
    case " $names " in *" $name "* | *":$name "*) continue ;; esac
    case $kind:$name in
      foreign:* | *:ca) ;;
      node:*) names="$names $name" ;;
      *) names="$names $kind:$name" ;;
    esac
  done
fi

for each in $names; do
  kind=node
  hosts=
  name=$each
  case $each in
    client:*) kind=client && name=${each#client:} ;;
    admin:*) kind=admin && name=${each#admin:} ;;
    *=*) name=${each%%=*} && hosts=${each#*=} ;;
  esac
  if [ -f "$dir/$name.crt" ]; then
    # A node's certificate must not become a person's by a slip, nor the other way round.
    old=$(kind_of "$name")
    if [ "$old" = foreign ] && openssl x509 -in "$dir/$name.crt" -noout 2>/dev/null; then
      fail "$dir/$name.crt was not made here: remove it, or write elsewhere with --dir"
    fi
    [ "$old" = "$kind" ] || [ "$old" = foreign ] || fail "$dir/$name.crt is of the kind $old, not $kind: remove it first"
    # Without host names on the command line those of an older run stay.
    [ -n "$hosts" ] || [ "$kind" != node ] || hosts=$(old_hosts "$name")
  fi
  sans=$(alternatives "$name" "$kind" "$hosts")
  {
    printf '[req]\nprompt = no\ndistinguished_name = name\n[name]\nO = Roundhouse\n'
    [ "$kind" = client ] || printf 'OU = %s\n' "$kind"
    printf 'CN = %s\n[usage]\nbasicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature\n' "$name"
    if [ "$kind" = node ]; then
      printf 'extendedKeyUsage = serverAuth, clientAuth\nsubjectAltName = %s\n' "$sans"
    else
      printf 'extendedKeyUsage = clientAuth\n'
    fi
    printf 'subjectKeyIdentifier = hash\n'
  } >"$work/$name.cnf"
  why=$(trouble "$name")
  if [ -z "$why" ] && differs "$name"; then why='its host names are others now'; fi
  if [ -z "$why" ]; then
    chmod 600 "$dir/$name.key"
    kept=$((kept + 1))
    continue
  fi
  [ -f "$dir/ca.key" ] || fail "$dir/$name.crt can't be made: $dir/ca.key, which signs, is not here"
  key "$name"
  quiet openssl req -new -sha256 -config "$work/$name.cnf" -key "$dir/$name.key" -out "$work/$name.csr"
  printf 'authorityKeyIdentifier = keyid\n' >>"$work/$name.cnf"
  quiet openssl x509 -req -sha256 -in "$work/$name.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
    -set_serial "0x$(openssl rand -hex 16 | sed 's/^./1/')" -days "$days" \
    -extfile "$work/$name.cnf" -extensions usage -out "$work/$name.crt"
  chmod 644 "$work/$name.crt"
  chmod 600 "$dir/$name.key"
  # In one step: a node that looks just now sees the old one or the new one.
  mv "$work/$name.crt" "$dir/$name.crt"
  made=$((made + 1))
  say "made     $dir/$name.crt ($kind): $why"
done
if [ -f "$dir/ca.key" ]; then chmod 600 "$dir/ca.key"; fi
say "$made made, $kept kept in $dir/"
