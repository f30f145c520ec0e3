"""The model server beside other systems': `make bench-server`.

One container with a linear iris model, one row as JSON, through the gateway; each peer with the same model, one worker
and no gateway where it needs none. They run one after the other on the same two cores as the load, ours before, between
and after them, so that a machine that slows down meets both sides. Prints a table, then each bar; exit 1 if one is
missed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet import ROOT
from benchmarks.gateway.figures import AT_LEAST, AT_MOST, Bar
from benchmarks.gateway.wrk import LoadError
from benchmarks.server import load
from benchmarks.server.lineup import OURS, PEERS_DIR, StartError, missing_tools, ours_running, peer_running
from benchmarks.server.load import Figures
from benchmarks.server.peers import PEERS, V2, Peer, install, is_installed

CONNECTIONS: Final = (1, 16, 64)
# Requests per second of ours over theirs, by connections.
FACTORS: Final[dict[int, dict[str, float]]] = {
    16: {
        "MLServer": 10, "BentoML": 10, "LitServe": 10, "Ray Serve": 10, "KServe": 8, "TorchServe": 8,
        "Ray Serve HAProxy": 6, "PyTriton": 4, "FastAPI async": 3.5,
    },
    64: {"MLServer": 15, "LitServe": 15, "FastAPI async": 6, "PyTriton": 4},
}  # fmt: skip
BARE: Final = ("FastAPI", "FastAPI async")
MEMORY_MB: Final = 150
MODEL: Final = {
    "versions": {"1": {"source": "models/iris/1", "backend": "sklearn", "resources": {"cpus": 2, "memory": "512Mi"}}},
    "concurrency": 128,
}


@dataclass
class Row:
    """What one system reached, at each number of connections; ours has several turns."""

    name: str
    cold_s: float = 0.0
    memory_mb: float = 0.0
    turns: dict[int, list[Figures]] = field(default_factory=lambda: {count: [] for count in CONNECTIONS})

    def at(self, connections: int) -> Figures:
        """No requests a second, and infinitely late, where none was answered in time to be counted."""
        turns = self.turns[connections] or [Figures(connections, 0.0, math.inf, math.inf)]
        return Figures(
            connections,
            statistics.median(turn.rate_per_s for turn in turns),
            statistics.median(turn.p50_ms for turn in turns),
            statistics.median(turn.p99_ms for turn in turns),
        )


def main() -> int:
    options = _options()
    if lacking := missing_tools("wrk", "taskset", "docker"):
        print(f"bench-server: {', '.join(lacking)}: not found; `make bench-tools` installs what can be installed")
        return 2
    if not (ROOT / "configs/models/iris/1").is_dir():
        print("bench-server: the example models are not trained; run `make up` once")
        return 2
    chosen = [PEERS[name] for name in options.peers]
    _install_missing(chosen)
    rows = _measure(chosen, options)
    _print_table(rows)
    bars = bars_of(rows)
    print("\n".join(bar.render() for bar in bars))
    if options.json:
        options.json.write_text(json.dumps({name: _as_json(row) for name, row in rows.items()}, indent=1))
    return 0 if all(bar.is_met for bar in bars) else 1


def _measure(chosen: list[Peer], options: argparse.Namespace) -> dict[str, Row]:
    rows = {OURS: Row(OURS)}
    between = max(1, -(-len(chosen) // options.turns))
    for index, peer in enumerate(chosen):
        if index % between == 0:
            _measure_ours(rows[OURS], options)
        try:
            with peer_running(peer) as running:
                row = rows[peer.name] = Row(peer.name, running.cold_s)
                _measure_one(row, running, options)
        except (StartError, LoadError) as exc:
            rows.pop(peer.name, None)
            print(f"{peer.name}: left out: {exc}", flush=True)
    _measure_ours(rows[OURS], options)
    return rows


def _measure_ours(row: Row, options: argparse.Namespace) -> None:
    with ours_running(MODEL, "/v2/models/iris/infer", V2, ROOT / "configs") as running:
        _measure_one(row, running, options)


def _measure_one(row: Row, running: Any, options: argparse.Namespace) -> None:
    for connections in CONNECTIONS:
        try:
            figures = load.measure(
                running, connections, seconds=options.seconds, warm_s=options.warm, runs=options.runs
            )
        except LoadError as exc:
            print(f"{row.name:<18} {connections:>3} connections: not counted: {exc}", flush=True)
            continue
        row.turns[connections].append(figures)
        print(
            f"{row.name:<18} {connections:>3} connections {figures.rate_per_s:>9.0f}/s"
            f"  p50 {figures.p50_ms:>7.2f} ms  p99 {figures.p99_ms:>8.2f} ms",
            flush=True,
        )
    row.memory_mb = running.memory() / 1e6


def bars_of(rows: dict[str, Row]) -> list[Bar]:
    ours = rows[OURS]
    bars = []
    for connections, factors in FACTORS.items():
        for name, factor in factors.items():
            if name in rows:
                theirs = rows[name].at(connections).rate_per_s
                ratio = ours.at(connections).rate_per_s / theirs if theirs else math.inf
                bars.append(Bar(f"{connections} connections, requests/s over {name}'s", ratio, AT_LEAST, factor))
    peers = [row for name, row in rows.items() if name != OURS]
    for row in peers:
        if row.name not in BARE:
            ratio = ours.at(1).p50_ms / row.at(1).p50_ms
            bars.append(Bar(f"1 connection, median over {row.name}'s", ratio, AT_MOST, 1.0))
    if "FastAPI async" in rows:
        ratio = ours.at(1).p50_ms / rows["FastAPI async"].at(1).p50_ms
        bars.append(Bar("1 connection, median over FastAPI async's", ratio, AT_MOST, 1.1))
    for connections in CONNECTIONS:
        best = min(peers, key=lambda row: row.at(connections).p99_ms, default=None)
        if best:
            ratio = ours.at(connections).p99_ms / best.at(connections).p99_ms
            bars.append(Bar(f"{connections} connections, p99 over the best peer's ({best.name})", ratio, AT_MOST, 1.0))
    bars.append(Bar("memory of the replica, MB", ours.memory_mb, AT_MOST, MEMORY_MB))
    return bars


def _print_table(rows: dict[str, Row]) -> None:
    print(f"\n{'':<18}{'1 connection':>26}{'16 connections':>28}{'64 connections':>28}{'memory':>10}{'start':>9}")
    for row in rows.values():
        cells = "".join(
            f"{(at := row.at(count)).rate_per_s:>11.0f}/s {at.p50_ms:>6.2f} {at.p99_ms:>7.2f}" for count in CONNECTIONS
        )
        start = f"{row.cold_s:>7.1f} s" if row.cold_s else f"{'':>9}"
        print(f"{row.name:<18}{cells} {row.memory_mb:>6.0f} MB{start}")
    print("requests/s, then p50 and p99 in ms; medians\n")


def _install_missing(chosen: list[Peer]) -> None:
    for peer in chosen:
        if not is_installed(PEERS_DIR, peer):
            print(f"installing {peer.name}: {' '.join(peer.packages)}", flush=True)
            install(PEERS_DIR, peer)


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "cold_s": row.cold_s,
        "memory_mb": row.memory_mb,
        "figures": [asdict(row.at(count)) for count in CONNECTIONS],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", default=list(PEERS), metavar="PEER", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--seconds", type=int, default=5, help="of one run (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=2, help="seconds before the runs (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="at each number of connections (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of ours among the peers (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"{name!r} is no peer; there are: {', '.join(PEERS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
