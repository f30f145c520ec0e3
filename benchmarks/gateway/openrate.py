"""Runs `openloop.py` as a process of its own on the load generator's core, and reads its figures."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.gateway.lineup import LOAD_CORE, ROOT
from benchmarks.gateway.wrk import LoadError


def at_rate(port: int, rate: float, seconds: float, *, path: str, body: str, tail: str) -> dict[str, float]:
    """The fields of `openloop.summary`. Raises `LoadError` when any request failed."""
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.gateway.openloop", "--port", str(port)]
    command += ["--rate", f"{rate:g}", "--seconds", f"{seconds:g}", "--path", path, "--body", body, "--tail", tail]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        raise LoadError(f"openloop: exit {done.returncode}: {done.stderr.strip()[-300:]}")
    seen: dict[str, float] = json.loads(done.stdout)
    if seen["failed"]:
        raise LoadError(f"openloop: {seen['failed']:.0f} of {seen['answered'] + seen['failed']:.0f} requests failed")
    return seen
