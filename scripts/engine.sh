#!/usr/bin/env bash
# Sees to it that a Docker Engine answers: `make engine`; `engine.sh stop` ends one that it started by hand.
#
#   engine.sh [start]   exit 0: an engine answers; 3: none can be had here, with a sentence that says what to do
#   engine.sh stop      ends the engine that `start` launched without systemd; any other is left alone
#
# An engine that answers is never touched, and never one that somebody else started.
# Settings: DOCKERD_OPTIONS (more options for dockerd), DOCKERD_PIDFILE, DOCKERD_LOG, MODELFLEET_BASE_IMAGE.
# A second engine beside another one belongs into a network namespace of its own (`unshare --net`): dockerd takes docker0
# for its own, and with --bridge=none removes it from under the other.
set -euo pipefail

readonly PIDFILE=${DOCKERD_PIDFILE:-/var/run/docker.pid}
readonly LOG=${DOCKERD_LOG:-/var/log/modelfleet-dockerd.log}
readonly OURS=$PIDFILE.modelfleet # holds the process id of an engine that we started, for `stop`
readonly BASE_IMAGE=${MODELFLEET_BASE_IMAGE:-python:3.12-slim}
readonly NONE_CAN_BE_HAD=3
readonly WAIT_S=60

say() { echo "engine: $*"; }

has() { command -v "$1" >/dev/null; }

give_up() {
  echo "engine: $*" >&2
  exit "$NONE_CAN_BE_HAD"
}

# A hung engine accepts the connection and never answers, so each question has a bound.
engine_answers() { timeout 10 docker info --format '{{.ServerVersion}}' 2>/dev/null | grep -q .; }

# What the client says when it cannot reach an engine; "" when there is no client.
engine_complaint() { timeout 10 docker info --format '{{.ServerVersion}}' 2>&1 >/dev/null | head -1 || true; }

start() {
  if engine_answers; then
    say "Docker Engine $(docker info --format '{{.ServerVersion}}') answers"
  else
    refuse_where_we_may_not_start
    if ! has dockerd || ! has docker; then install_packages docker.io; fi
    bring_up
    say "Docker Engine $(docker info --format '{{.ServerVersion}}') started"
  fi
  offer_base_image
}

refuse_where_we_may_not_start() {
  local complaint endpoint=${DOCKER_HOST:-}
  complaint=$(engine_complaint)
  case $complaint in
    *"permission denied"*)
      give_up "an engine runs, but this user may not speak to it; members of the group 'docker' may:" \
        "run 'sudo usermod -aG docker $(id -un)' and sign in again" ;;
  esac
  case $endpoint in
    "" | unix://*) ;;
    *) give_up "DOCKER_HOST is '$endpoint' and no engine answers there (${complaint:-no docker client}); start that engine, or unset DOCKER_HOST" ;;
  esac
  if [ "$(uname -s)" != Linux ]; then
    give_up "no Docker Engine answers; on $(uname -s) start Docker Desktop (or colima) and run 'make up' again"
  elif [ "$(id -u)" != 0 ]; then
    give_up "no Docker Engine answers, and only root may start one; run 'sudo bash scripts/engine.sh' and then" \
      "'sudo usermod -aG docker $(id -un)', sign in again, and run 'make up'"
  elif ! has dockerd && ! has apt-get; then
    give_up "no Docker Engine is installed, and this script installs one only where there is apt-get (Debian, Ubuntu);" \
      "install Docker Engine >= 20.10 with this system's package manager, start it, and run 'make up' again"
  fi
}

install_packages() {
  local log
  log=$(mktemp)
  say "installing $*"
  # A machine whose package lists are fresh needs no update; one that has none fails at once and then gets them.
  if ! apt_install "$@" >"$log" 2>&1 && ! { apt-get update -qq && apt_install "$@"; } >>"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    give_up "apt-get could not install $*; its last lines stand above; install it by hand and run 'make up' again"
  fi
  rm -f "$log"
}

# With what the packages recommend: an engine without apparmor's tools cannot start a container where the kernel has it on.
apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y "$@"; }

# Starts dockerd unless one is on its way up. One that is still ending after a kill is waited for, then replaced.
bring_up() {
  if [ -d /run/systemd/system ] && [ -z "${DOCKERD_OPTIONS:-}" ]; then
    say "starting docker.service"
    systemctl start docker || give_up "docker.service did not start; 'journalctl -u docker' says why"
    is_answering_by $((SECONDS + WAIT_S)) || give_up "docker.service runs and does not answer; 'journalctl -u docker' says why"
    return
  fi
  local deadline=$((SECONDS + WAIT_S)) pid
  pid=$(recorded_pid)
  if is_dockerd "$pid"; then
    say "a dockerd (process $pid) runs and does not answer yet; waiting for it"
    is_answering_by "$deadline" "$pid" && return
    is_dockerd "$pid" && give_up "dockerd (process $pid) runs and did not answer within $WAIT_S s; its log says why, or end it"
  fi
  # Twice: right after a kill the first can meet the old one's dying containerd, and ends within seconds.
  for _ in 1 2; do
    launch
    is_answering_by "$deadline" "$(cat "$OURS")" && return
  done
  tail -n 5 "$LOG" >&2
  give_up "dockerd did not come up; the last lines of its log ($LOG) stand above"
}

launch() {
  # After a hard kill the file stays, and dockerd refuses to start when its number was given to another process.
  rm -f "$PIDFILE"
  say "starting dockerd (log: $LOG)"
  mkdir -p "$(dirname "$LOG")" "$(dirname "$PIDFILE")"
  # shellcheck disable=SC2086 # options are words
  setsid nohup dockerd --pidfile "$PIDFILE" ${DOCKERD_OPTIONS:-} </dev/null >"$LOG" 2>&1 &
  echo $! >"$OURS"
}

recorded_pid() { cat "$PIDFILE" 2>/dev/null || true; }

is_running() { [ -n "$1" ] && grep -qs '^State:.[^ZX]' "/proc/$1/status"; }

# By the command, not the name alone: between fork and exec our child is still called setsid or nohup.
is_dockerd() { is_running "$1" && grep -qsaw dockerd "/proc/$1/cmdline"; }

# is_answering_by DEADLINE [PID]: false at the deadline, or as soon as the process PID has ended.
is_answering_by() {
  while [ "$SECONDS" -lt "$1" ]; do
    if engine_answers; then return 0; fi
    if [ -n "${2:-}" ] && ! is_running "$2"; then return 1; fi
    sleep 0.2
  done
  return 1
}

# Where no registry can be reached, the base image is made from the distribution's packages, by mmdebstrap.
offer_base_image() {
  if has mmdebstrap || has_base_image; then return; fi
  if [ "$(id -u)" = 0 ] && has apt-get; then
    say "no registry answers for $BASE_IMAGE: its place is taken by an image made from the distribution's packages"
    install_packages mmdebstrap
  fi
}

has_base_image() {
  docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 || docker image ls -q modelfleet/base | grep -q . ||
    timeout 15 docker manifest inspect "$BASE_IMAGE" >/dev/null 2>&1
}

stop() {
  local pid
  pid=$(cat "$OURS" 2>/dev/null || true)
  if ! is_dockerd "$pid"; then
    rm -f "$OURS"
    say "no engine of ours runs"
    return
  fi
  say "stopping dockerd (process $pid)"
  kill "$pid"
  local deadline=$((SECONDS + WAIT_S))
  while is_running "$pid" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.2; done
  if is_running "$pid"; then
    echo "engine: dockerd (process $pid) did not end within ${WAIT_S} s; its log is $LOG" >&2
    exit 1
  fi
  rm -f "$OURS"
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  *)
    echo "engine: ${1}: unknown command; use 'start' or 'stop'" >&2
    exit 2
    ;;
esac
