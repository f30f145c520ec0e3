#!/usr/bin/env bash
# Makes .venv with everything of requirements/dev.lock and the modelfleet command in it. Run through `make setup`.
#
# Nothing is installed that is not pinned by a hash: the project itself is built without isolation, by the locked
# hatchling. A stamp keeps the digest of what was installed, so that a second run with the same lock does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv
readonly STAMP=$VENV/.setup-stamp
readonly LEAST="3.11"
readonly LOCK=.setup.lock

fail() {
  echo "setup: $*" >&2
  exit 1
}

# A name on the PATH is not yet a Python: a pyenv shim can name a version that is not selected. So each is run.
find_python() {
  local name first=
  # Distributions build theirs with profile-guided optimisation; what is built from source mostly is not, and carries
  # an eighth fewer requests (docs/PERFORMANCE.md). So that comes second.
  for name in ${PYTHON:-python3.13 python3.12 python3.11 python3 /usr/bin/python3}; do
    runs "$name" 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
    [ -n "${PYTHON:-}" ] || runs "$name" "$IS_OPTIMISED" || { first=${first:-$name} && continue; }
    command -v "$name"
    return
  done
  [ -n "$first" ] && command -v "$first" && return
  fail "python: ${PYTHON:-python3.13, python3.12, python3.11, python3}: none runs with version >= $LEAST;" \
    "install one ('apt-get install python3 python3-venv' on Debian 12 or later), or name it: make setup PYTHON=/path/to/python3.11"
}

runs() { "$1" -c "$2" >/dev/null 2>&1; }

# One that could not make an environment is no better than the others.
readonly IS_OPTIMISED='
import ensurepip, sys, sysconfig, venv
options = sysconfig.get_config_var("CONFIG_ARGS") or ""
sys.exit(not (sys.base_prefix == "/usr" or "--enable-optimizations" in options))'

make_venv() {
  local python=$1
  if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    fail "$python: it has no venv or ensurepip module; both are needed for .venv;" \
      "on Debian and Ubuntu: apt-get install $(basename "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")"
  fi
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
}

# What decides whether .venv is current: the lock, the project's metadata, and where the clone lies (an editable
# install and the scripts in .venv/bin hold absolute paths).
wanted_stamp() {
  { cat requirements/dev.lock pyproject.toml scripts/setup.sh && pwd -P; } | cksum
}

install_locked() {
  # --only-binary: the whole lock is wheels on the platforms we support, and no package's setup.py runs here.
  "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: \
    --requirement requirements/dev.lock
  "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
}

is_current() {
  [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted_stamp)" ] && "$VENV/bin/python" -c '' 2>/dev/null
}

# One that was copied or moved here still has the old place in its scripts.
is_usable() {
  grep -qsF "$(pwd -P)/$VENV" "$VENV/bin/activate" &&
    "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

main() {
  if is_current; then return; fi
  # Two at once in one clone would remove the environment under each other. Where there is no flock (macOS), they may.
  if command -v flock >/dev/null; then
    exec 9>"$LOCK"
    flock --nonblock 9 || { echo "setup: another one runs in this clone; waiting for it" && flock 9; }
    if is_current; then return; fi
  fi
  local python
  if ! is_usable; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version) ($python)"
    make_venv "$python"
  fi
  echo "setup: installing the locked packages into .venv (a minute or two the first time)"
  install_locked
  wanted_stamp >"$STAMP"
}

main
