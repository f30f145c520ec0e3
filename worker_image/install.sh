#!/bin/sh
# Installs one requirements file into /opt/venv, in a build stage: install.sh FILE
# A lock is installed with its hashes. A model's own requirements.txt need not have any.
set -eu
cd /build
if [ -f build-ca.crt ]; then export PIP_CERT=/build/build-ca.crt; fi
if [ -f pip.conf ]; then export PIP_CONFIG_FILE=/build/pip.conf; fi
pip="/opt/pip/bin/pip --python /opt/venv/bin/python install --quiet"
case $1 in
*.lock)
    $pip --require-hashes --only-binary=:all: -r "$1"
    # These packages ship their tests, which are a fifth of the image and are never imported.
    find /opt/venv -type d -name tests -prune -exec rm -rf {} +
    ;;
*)
    $pip -r "$1"
    ;;
esac
