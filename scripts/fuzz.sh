#!/usr/bin/env bash
# `make fuzz`: fuzzes the gateway's readers of what clients, replicas and the control plane send. Atheris guides it by
# coverage where it has a wheel; elsewhere it mutates blindly. `make fuzz ARGS="--seconds 60 --target client"`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

.venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: \
  --requirement requirements/fuzz.lock || echo "fuzz: Atheris cannot be installed here"
exec nice -n 10 .venv/bin/python -m tests.fuzz "$@"
