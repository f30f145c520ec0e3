#!/bin/sh
# What pip changes in /opt/venv, in a build stage: changes.sh before, then pip, then changes.sh after. Leaves /build/changed: new and
# changed files in their places, and `removed`, the names of those that are gone, each ended by a zero byte.
set -eu
list() { find /opt/venv ! -type d -print0 | LC_ALL=C sort -z; }
case $1 in
before)
    list > /build/before
    ;;
after)
    mkdir /build/changed
    list | LC_ALL=C comm -z -23 /build/before - > /build/changed/removed
    # By the time of the inode: the other one is what the package says.
    find /opt/venv ! -type d -cnewer /build/before -print0 | tar -C / --null -T - -cf - | tar -C /build/changed -xf -
    ;;
esac
