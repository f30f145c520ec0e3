"""Batching off against on: `make bench-batching`.

For each model and count of connections, the same closed loop asks a server with `max_size: 1` and one with
`max_size: auto`, in turns, so that both meet the same machine. The figure is on / off in requests per second over all
turns, with its standard error: on a machine with other work a figure without one says nothing. A model costs real CPU
time outside the interpreter's lock, either per call (as scikit-learn does for few rows) or per row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import urllib.request
from pathlib import Path

from benchmarks.server import closed_loop
from benchmarks.server.plot import svg
from benchmarks.server.replica import server

COSTS_US = (50, 1000, 20_000)
CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
LEAST = 0.97
MODEL = """
import hashlib, time

# PBKDF2 computes without the interpreter's lock; SHA-256 rounds are what it is asked for.
def rounds_for(seconds):
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2000)
    best = min(timed(5000) for _ in range(5))
    return max(1, int(5000 * seconds / best))

def timed(rounds):
    began = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", rounds)
    return time.perf_counter() - began

class Model:
    inputs = [{{"name": "x", "datatype": "FP64", "shape": [-1, 4]}}]
    outputs = [{{"name": "y", "datatype": "FP64", "shape": [-1]}}]

    def load(self, path):
        self.rounds = rounds_for({seconds})

    def predict(self, inputs):
        rows = inputs["x"]
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", self.rounds * (len(rows) if {per_row} else 1))
        return rows.sum(axis=1)
"""
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]})
REQUEST = closed_loop.post("/v2/models/bench/infer", BODY.encode())


def main() -> int:
    options = _options()
    print(f"{'model':>16} {'connections':>11} {'off/s':>9} {'on/s':>9} {'on/off':>15} {'p50 off':>10} {'p50 on':>10}")
    below = 0
    lines: dict[str, list[tuple[float, float]]] = {}
    for per_row in (False, True):
        for cost_us in options.costs_us:
            with tempfile.TemporaryDirectory(prefix="bench-batching-") as directory:
                (Path(directory) / "model.py").write_text(MODEL.format(seconds=cost_us / 1e6, per_row=per_row))
                with server(Path(directory), 1) as off, server(Path(directory), "auto") as on:
                    for connections in options.connections:
                        name = f"{cost_us} µs/{'row' if per_row else 'call'}"
                        ratio, error = _compare(name, off, on, connections, options)
                        below += ratio + 2 * error < LEAST
                        lines.setdefault(name, []).append((connections, ratio))
    print(f"{below} figures are below {LEAST} by more than twice their standard error")
    if options.svg:
        title = "Requests/s with batching over requests/s without, by what the model costs"
        options.svg.write_text(svg(title, lines, y_title="on / off", limit=LEAST))
    return 1 if below else 0


def _compare(name: str, off: int, on: int, connections: int, options: argparse.Namespace) -> tuple[float, float]:
    """On / off, and its standard error."""
    turns = [_turn(index, off, on, connections, options.seconds) for index in range(options.turns)]
    rates = [statistics.fmean(turn[side].per_s for turn in turns) for side in (0, 1)]
    ratios = [turn[1].per_s / turn[0].per_s for turn in turns]
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    medians_ms = [statistics.median(turn[side].percentile_s(50) for turn in turns) * 1000 for side in (0, 1)]
    print(
        f"{name:>16} {connections:>11} {rates[0]:>9.0f} {rates[1]:>9.0f} {rates[1] / rates[0]:>7.2f} ± {error:<5.2f}"
        f" {medians_ms[0]:>7.2f} ms {medians_ms[1]:>7.2f} ms limit {_limit(on)}",
        flush=True,
    )
    return rates[1] / rates[0], error


def _turn(index: int, off: int, on: int, connections: int, seconds: float) -> list[closed_loop.Result]:
    """Off and on, each first in every other turn: what slows the machine down meets both alike."""
    order = (off, on) if index % 2 else (on, off)
    results = [closed_loop.run(port, REQUEST, connections, seconds, warm_s=0.1) for port in order]
    return results if index % 2 else results[::-1]


def _limit(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/bench") as answer:
        limit: int = json.load(answer)["parameters"]["batching"]["limit"]
    return limit


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs-us", type=int, nargs="+", default=COSTS_US)
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one turn")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--svg", type=Path, help="a file for the figures as a plot")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
