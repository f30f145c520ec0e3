#!/usr/bin/env bash
# The servers that tests of remote sources fetch from: S3 (moto), Google Cloud Storage and Azure Blob emulators, MLflow.
#
#   source_servers.sh     makes .source-servers, or brings it up to date; quick when nothing changed
#
# Into an environment of its own: they are no dependencies of ours, and MLflow alone is larger than all of ours together.
# Azurite comes from npm; without npm its tests are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly HOME_DIR=.source-servers
readonly LOCK=requirements/source-servers.lock
readonly AZURITE="azurite@3.37.0"
readonly STAMP=$HOME_DIR/.stamp

wanted_stamp() { { cat "$LOCK" && echo "$AZURITE" && command -v npm && pwd -P; } | cksum; }

is_current() { [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted_stamp)" ]; }

mkdir -p "$HOME_DIR"
# Several test runs in one clone: one installs, the others wait.
if command -v flock >/dev/null; then
  exec 9>"$HOME_DIR/.lock"
  flock 9
fi
if is_current; then exit 0; fi
echo "source-servers: installing into $HOME_DIR (half a minute the first time)"
.venv/bin/uv venv -q --clear --python .venv/bin/python "$HOME_DIR/venv"
.venv/bin/uv pip install -q --require-hashes --only-binary :all: --python "$HOME_DIR/venv/bin/python" -r "$LOCK"
if command -v npm >/dev/null; then
  # Without their install scripts: what they would build is not needed.
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$HOME_DIR/npm" "$AZURITE" >/dev/null || {
    echo "source-servers: npm could not install $AZURITE; the tests of az:// are skipped" >&2
    exit 0 # without a stamp: the next run tries again
  }
fi
wanted_stamp >"$STAMP"
