#!/usr/bin/env bash
# `make test`: the test suite. Where a Docker Engine answers or can be started, the tests that need one must run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NO_ENGINE=3 # what engine.sh ends with where none can be had

status=0
bash scripts/engine.sh start || status=$?
case $status in
  0) export MODELFLEET_TEST_DOCKER=required ;;
  "$NO_ENGINE") echo "test: the tests that need a Docker Engine are skipped" ;;
  *) exit "$status" ;;
esac
exec .venv/bin/python -m pytest "$@"
