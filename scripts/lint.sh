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

# Node reads each module of the console: what does not parse is found before a browser is.
check_scripts() {
  if command -v node >/dev/null; then
    local script
    for script in orchestrator/console/static/js/*.js; do
      node --check "$script" || failed+=("node --check $script")
    done
  elif [ -n "${CI:-}" ]; then
    echo "lint: node is not installed; it is required where CI is set" >&2
    failed+=(node)
  else
    echo "lint: the console's scripts are not checked: node is not installed (apt-get install nodejs)"
  fi
}

check .venv/bin/ruff check .
check .venv/bin/ruff format --check .
check .venv/bin/mypy
check .venv/bin/lint-imports
check_shell
echo "lint: node --check orchestrator/console/static/js/*.js"
check_scripts

if [ "${#failed[@]}" -gt 0 ]; then
  echo "lint: failed: $(printf "%s; " "${failed[@]}")" >&2
  exit 1
fi
