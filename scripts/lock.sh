#!/bin/sh
# Writes every lock anew from what it is made of: requirements/dev.lock from pyproject.toml, and one lock per worker image from
# worker_image/requirements/*.in. Universal for Python 3.11 to 3.13, hashed, and without the name of any package index.
# The examples' lock comes first and constrains the others: what was trained in one image must load in the next.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}

compile() {
    out=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --output-file "$out" "$@"
}

images=worker_image/requirements
compile $images/examples.lock $images/examples.in ${UPGRADE:+--upgrade}
for file in "$images"/*.in; do
    name=${file%.in}
    [ "$name" = $images/examples ] && continue
    # An excluded package may be missing, because locks are installed without looking for dependencies.
    excludes=
    [ -f "$name.excludes" ] && excludes="--excludes $name.excludes"
    # shellcheck disable=SC2086 # two words
    compile "$name.lock" "$file" $excludes --constraint $images/examples.lock ${UPGRADE:+--upgrade}
done
compile requirements/kserve.lock requirements/kserve.in ${UPGRADE:+--upgrade}
compile requirements/fuzz.lock requirements/fuzz.in ${UPGRADE:+--upgrade}
compile requirements/source-servers.lock requirements/source-servers.in ${UPGRADE:+--upgrade}
# Not PyTorch and its like: the tests that need them run in their images, and the environment for development stays small.
extras=$(sed -n '/^\[project.optional-dependencies\]/,/^\[dep/s/^\([a-z0-9]*\) = .*/--extra \1/p' pyproject.toml |
    grep -vE 'pytorch|transformers|mlflow')
# shellcheck disable=SC2086 # a list of words
compile requirements/dev.lock pyproject.toml $extras --group dev --constraint $images/examples.lock ${UPGRADE:+--upgrade}
