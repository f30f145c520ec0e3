#!/usr/bin/env bash
# `make up`: starts everything with the example manifest, on Docker, or as local processes where no engine can be had.
#
#   up.sh [docker|process|""]    "" chooses: Docker if an engine answers or can be started
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NO_ENGINE=3 # what engine.sh ends with where none can be had

choose_engine() {
  local status=0
  bash scripts/engine.sh start >&2 || status=$?
  case $status in
    0) echo docker ;;
    "$NO_ENGINE")
      echo "up: going on without Docker: replicas run as local processes (--engine process), without its sandbox" >&2
      echo process
      ;;
    *) exit "$status" ;;
  esac
}

main() {
  local engine=${1:-}
  case $engine in
    "") engine=$(choose_engine) ;;
    docker) bash scripts/engine.sh start ;;
    process) ;;
    *)
      echo "up: ENGINE=$engine; it must be docker or process; correct it or leave it out" >&2
      exit 2
      ;;
  esac
  exec .venv/bin/modelfleet up --engine "$engine" --example configs/models.yaml
}

main "$@"
