"""Closed-loop load by wrk: each connection asks again as soon as it has its answer.

Owns the command line and the reading of what wrk prints. It cannot keep a rate: see `openloop.py` for that.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCALE_MS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class LoadError(Exception):
    """A load that did not measure what it should: requests failed."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float


def run(script: Path, port: int, *, cores: str, connections: int, seconds: int, path: str = "/") -> Load:
    """Raises `LoadError` when any request failed."""
    command = ["taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode:
        raise LoadError(f"wrk: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}")
    return parse(done.stdout)


def parse(printed: str) -> Load:
    """Reads wrk's `--latency` output. Raises `LoadError` when any request failed or a figure is missing."""
    for word in ("Non-2xx", "Socket errors"):
        if word in printed:
            line = next(line for line in printed.splitlines() if word in line)
            raise LoadError(f"requests failed: {line.strip()}")
    return Load(
        requests=int(_find(r"(\d+) requests in", printed)[0]),
        rate_per_s=float(_find(r"Requests/sec:\s+([\d.]+)", printed)[0]),
        p50_ms=_duration_ms("50%", printed),
        p99_ms=_duration_ms("99%", printed),
    )


def _duration_ms(label: str, printed: str) -> float:
    value, unit = _find(rf"^\s*{label}\s+([\d.]+)(us|ms|s|m)$", printed)
    return float(value) * _SCALE_MS[unit]


def _find(pattern: str, printed: str) -> tuple[str, ...]:
    match = re.search(pattern, printed, re.MULTILINE)
    if match is None:
        raise LoadError(f"wrk printed nothing like {pattern!r}")
    return match.groups()
