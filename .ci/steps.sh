# shellcheck shell=bash
# What .ci/run and .ci/soak share: timed steps, the real services, and cleaning up. Sourced, not run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Nothing here asks a question; a tool that tries to gets an end of file instead of waiting for ever.
exec < /dev/null
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0

readonly KAFKA_SCRIPT=$PWD/tests/kafka/kafka
work=$(mktemp -d)
timings=()
current=''

# Whatever happens, the processes started here end, by their ids.
clean_up() {
  local status=$? dir
  set +e
  for dir in "$work"/kafka-*; do
    [[ -d $dir ]] || continue
    if ((status != 0)); then grep -hE '^\[[^]]*\] (.*)(WARN|ERROR|FATAL) ' "$dir"/node-*/server.log | tail -n 30 | cut -c 1-300; fi
    "$KAFKA_SCRIPT" --dir "$dir" clean
  done
  rm -rf "$work"
  echo
  printf '%s\n' ${timings[@]+"${timings[@]}"}
  if ((status != 0)); then
    echo "FAILED${current:+ in: $current} after $SECONDS s"
  else
    echo "passed in $SECONDS s"
  fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { # NAME COMMAND...
  local name=$1 began=$SECONDS
  shift
  current=$name
  echo
  echo "== $name"
  "$@"
  timings+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
  current=''
}

# Debian packages by the command each is wanted for.
packages() { # COMMAND=PACKAGE...
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
  done
  ((${#missing[@]})) || return 0
  if [[ $(id -u) != 0 ]] || ! command -v apt-get > /dev/null; then
    echo "please install: ${missing[*]}" >&2
    return 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

rust_components() {
  if ! cargo fmt --version || ! cargo clippy --version; then rustup component add rustfmt clippy; fi
}

# The clients of others that check what ours wrote, and write what ours reads.
foreign_clients() {
  local venv=${XDG_CACHE_HOME:-$HOME/.cache}/ottla/python
  packages java=default-jre-headless mvn=maven kcat=kcat python3=python3
  # Debian keeps the module that makes virtual environments in a package of its own.
  python3 -c 'import ensurepip' 2> /dev/null || packages no-such-command=python3-venv
  [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
  "$venv/bin/python" -c 'import kafka, confluent_kafka' 2> /dev/null ||
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      'kafka-python>=3,<4' 'confluent-kafka>=2.11,<3'
  export OTTLA_PYTHON=$venv/bin/python OTTLA_KCAT=kcat
  "$OTTLA_PYTHON" -c 'import kafka, confluent_kafka
print("kafka-python", kafka.__version__, "confluent-kafka", confluent_kafka.__version__)'
}

# Three brokers of this version, named to the tests by the environment.
start_kafka() { # VERSION
  export OTTLA_KAFKA_DIR=$work/kafka-$1 OTTLA_KAFKA_SCRIPT=$KAFKA_SCRIPT
  "$KAFKA_SCRIPT" start --version "$1" --port free
  OTTLA_KAFKA=$("$KAFKA_SCRIPT" bootstrap)
  export OTTLA_KAFKA
}

stop_kafka() {
  "$KAFKA_SCRIPT" clean
  unset OTTLA_KAFKA OTTLA_KAFKA_DIR OTTLA_KAFKA_SCRIPT
}

# The command itself, optimised and static: what the tests run where they want throughput or a person's
# view. Where the target for static binaries cannot be had, that is said, and it is one for this system.
ottla_binary() {
  local target
  target=$(uname -m)-unknown-linux-musl
  rustup target add "$target" || target=$(rustc -vV | sed -n 's/^host: //p')
  cargo build --release --locked -p ottla-cli --target "$target"
  OTTLA_BIN=${CARGO_TARGET_DIR:-$PWD/target}/$target/release/ottla
  export OTTLA_BIN
  "$OTTLA_BIN" --version
  if [[ $target != *-musl ]]; then
    echo "not tried: a static binary"
  elif readelf --dynamic "$OTTLA_BIN" | grep NEEDED; then
    echo "it is not static" >&2
    return 1
  fi
}

# What steering costs a producer in instructions a record, by valgrind's count.
steering_cost() {
  packages valgrind=valgrind
  cargo run --release --locked -p ottla-benches --bin instructions
}

# Where steering sends records, in a model, held to bounds, and what the choice and the collector cost: these
# figures are for people, but each must come to its end.
steering_benchmarks() {
  cargo run --release --locked -p ottla-benches --bin steering -- --quick
  cargo bench --locked -p ottla-benches --bench choice
  cargo bench --locked -p ottla-benches --bench collect
}

# One test at a time: they kill and freeze the brokers they share. A soak's name starts with soak_.
cluster_tests() { # TEST-RUNNER-ARGUMENTS...
  cargo test --locked -p ottla-tests --test cluster -- --ignored --test-threads 1 --nocapture "$@"
}

# What the exporter tells, as Prometheus' own tool reads it, and as Prometheus itself hands it on.
exporter_page() {
  packages promtool=prometheus prometheus=prometheus
  cargo test --locked -p ottla-cli --bin ottla -- --ignored promtool prometheus
}

# Lag from elsewhere: a store that a fleet shares, on Redis servers that the tests start on free ports
# and end by id, and a metrics server's answers.
lag_sources() {
  packages redis-server=redis-server redis-cli=redis-tools openssl=openssl
  cargo clippy --locked -p ottla-lag --features redis,prometheus --all-targets -- -D warnings
  cargo test --locked -p ottla-lag --features redis,prometheus --lib -- --include-ignored fleet prometheus
  cargo test --locked -p ottla-tests --features redis --test embedded -- --ignored redis
  cargo test --locked -p ottla-tests --test embedded -- --ignored a_build_without_redis
  cargo test --locked -p ottla-cli --test command -- --ignored redis
}
