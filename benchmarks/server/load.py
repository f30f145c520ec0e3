"""The load of the comparison: wrk with one thread on one core, the servers free on all of them.

Owns what is sent and for how long. A run is preceded by a warm one, and every answer but 200 ends it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.gateway.wrk import Load, parse
from benchmarks.server.lineup import Running

LOAD_CORE: Final = "0"
_SCRIPT: Final = Path(__file__).parent / "infer.lua"


@dataclass(frozen=True)
class Figures:
    """Medians over the runs at one number of connections."""

    connections: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float


def measure(running: Running, connections: int, *, seconds: int, warm_s: int, runs: int) -> Figures:
    """Raises `LoadError` when a request failed."""
    _run(running, connections, warm_s)
    return median(connections, [_run(running, connections, seconds) for _ in range(runs)])


def median(connections: int, loads: list[Load]) -> Figures:
    return Figures(
        connections,
        statistics.median(load.rate_per_s for load in loads),
        statistics.median(load.p50_ms for load in loads),
        statistics.median(load.p99_ms for load in loads),
    )


def _run(running: Running, connections: int, seconds: int) -> Load:
    with tempfile.NamedTemporaryFile(prefix="bench-body-") as body:
        body.write(running.body)
        body.flush()
        command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        command += ["--timeout", "30s", "-s", str(_SCRIPT), f"http://127.0.0.1:{running.port}{running.path}"]
        environ = os.environ | {"BENCH_BODY": body.name} | running.fields
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90, check=False, env=environ)
    return parse(done.stdout)
