"""Ports of this machine for what tests start.

They lie below those that the kernel gives to whoever connects, so that none is taken between the moment it is picked and
the moment somebody listens; each process of a test run that has several (pytest-xdist) picks in a range of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator

FIRST, LAST = 20_000, 32_000
RANGES = 4


def _of_this_process() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % RANGES
    width = (LAST - FIRST) // RANGES
    # From anywhere in it: two runs on one machine are unlikely to meet.
    ports = random.sample(range(FIRST + worker * width, FIRST + (worker + 1) * width), width)
    return itertools.cycle(ports)


_ports = _of_this_process()


def free_port() -> int:
    """A port that nobody listens on, another one with each call."""
    for port in itertools.islice(_ports, (LAST - FIRST) // RANGES):
        with socket.socket() as probe:
            # As servers do: the connections that a port had before keep nobody from listening there.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
