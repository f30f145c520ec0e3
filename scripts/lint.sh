#!/usr/bin/env bash
# `make lint`: style, types, import layers, shell scripts, the console's scripts. Runs them all, then fails if one did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

failed=()

check() {
  echo "lint: $*"
  "$@" || failed+=("$*")
}

check_shell() {
  if command -v shellcheck >/dev/null; then
    check shellcheck scripts/*.sh .ci/run
  elif [ -n "${CI:-}" ]; then
    echo "lint: shellcheck is not installed; it is required where CI is set" >&2
    failed+=(shellcheck)
  else
    echo "lint: the shell scripts are not checked: shellcheck is not installed (apt-get install shellcheck)"
  fi
}

console_parses() {
  local script
  for script in orchestrator/console/static/js/*.js; do
    node --check "$script" || return
  done
}

# The console's modules: that they parse, and their form. Both tools come with `make setup`, where there is npm.
check_console() {
  local console=orchestrator/console
  if [ -x $console/node_modules/.bin/prettier ]; then
    check console_parses
    check $console/node_modules/.bin/prettier --log-level warn --check $console/static/js
  elif [ -n "${CI:-}" ]; then
    echo "lint: npm is not installed; it is required where CI is set" >&2
    failed+=(console)
  else
    echo "lint: the console's scripts are not checked: npm is not installed (apt-get install npm, make setup)"
  fi
}

check .venv/bin/ruff check .
check .venv/bin/ruff format --check .
check .venv/bin/mypy
check .venv/bin/lint-imports
check_shell
check_console

if [ "${#failed[@]}" -gt 0 ]; then
  echo "lint: failed: $(printf "%s; " "${failed[@]}")" >&2
  exit 1
fi
