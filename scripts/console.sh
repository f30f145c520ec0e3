#!/usr/bin/env bash
# Brings what the web console takes from npm: uPlot into orchestrator/console/static/vendor, from where it is served and
# goes into the wheel, and what its tests need. Part of `make setup`. A stamp makes a second run do nothing.
#
# Only what package-lock.json pins by hash is installed, and no script of a package runs. Without npm everything but
# the console's charts works, so that setup goes on; `console.sh --required` (of `make wheel`) does not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../orchestrator/console"

readonly VENDOR=static/vendor
readonly STAMP=node_modules/.stamp
readonly UPLOT=node_modules/uplot

wanted_stamp() { cat package.json package-lock.json ../../scripts/console.sh | cksum; }

is_current() {
  [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted_stamp)" ] && [ -f "$VENDOR/uPlot.esm.js" ]
}

say() { echo "setup: the web console will show no charts: $*, and run \`make setup\` again" >&2; }

# Into another directory first: a server that reads the old one meanwhile finds it whole.
copy_charts() {
  rm -rf "$VENDOR.new"
  mkdir -p "$VENDOR.new"
  cp "$UPLOT/dist/uPlot.esm.js" "$UPLOT/dist/uPlot.min.css" "$VENDOR.new/"
  cp "$UPLOT/LICENSE" "$VENDOR.new/uPlot.LICENSE.txt"
  rm -rf "$VENDOR"
  mv "$VENDOR.new" "$VENDOR"
}

main() {
  if is_current; then return; fi
  if ! command -v npm >/dev/null; then
    say "npm is not installed; install it ('apt-get install npm' on Debian)"
    [ "${1:-}" != --required ]
    return
  fi
  echo "setup: installing the console's chart library with npm"
  if ! npm ci --silent; then
    say "npm could not install it; see what \`npm ci\` says in orchestrator/console"
    [ "${1:-}" != --required ]
    return
  fi
  copy_charts
  wanted_stamp >"$STAMP"
}

# Two at once in one clone would remove node_modules under each other. Where there is no flock (macOS), they may.
if command -v flock >/dev/null; then
  exec 9>.npm.lock
  flock 9
fi
main "$@"
