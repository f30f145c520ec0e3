"""A normal client's latency while slowhttptest holds 1,000 slow connections: slow heads, slow bodies, slow reading.

A request each 10 ms, latency counted from when it was due, first undisturbed and then during each attack.
slowhttptest's own verdict (service available or not) is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.gateway.figures import AT_MOST, Bar
from benchmarks.gateway.lineup import ANSWER, BODY, LOAD_CORE, Lineup, Server, StartError, missing_tools
from benchmarks.gateway.openrate import at_rate
from benchmarks.gateway.wrk import LoadError

RATE_PER_S: Final = 100.0
PATH: Final = "/v2/models/iris/infer"
# 1,000 connections, opened at 500/s; -i seconds between two pieces, -p seconds that its own probe waits for an answer.
_COMMON: Final = ("-c", "1000", "-r", "500", "-p", "3")
ATTACKS: Final = {
    "slow heads": ("-H", "-i", "5"),
    "slow bodies": ("-B", "-i", "5", "-s", "8192"),
    "slow reading": ("-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "3"),
}
# What noise alone does to a 99th percentile of a thousand requests on a shared machine.
MOST_RATIO: Final = 2.0
FLOOR_MS: Final = 5.0


@dataclass(frozen=True)
class Latency:
    """Of the normal client. `available` is slowhttptest's word on its own probe."""

    p50_ms: float
    p99_ms: float
    available: bool


def main() -> None:
    options = _options()
    missing = missing_tools("slowhttptest", "nginx", "taskset")
    if missing:
        sys.exit(f"Error: {', '.join(missing)}: not found; `bash scripts/bench_tools.sh` installs them")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with tempfile.TemporaryDirectory() as directory, Lineup(Path(directory)) as lineup:
            found = measure(lineup.modelfleet(), options.seconds)
    except (StartError, LoadError) as exc:
        sys.exit(f"Error: {exc}")
    bars = judge(found)
    if options.output == "json":
        shown = {name: asdict(latency) for name, latency in found.items()}
        print(json.dumps({"latency": shown, "bars": [asdict(bar) | {"is_met": bar.is_met} for bar in bars]}, indent=1))
    else:
        _print(found, bars)
    if not all(bar.is_met for bar in bars) or not all(latency.available for latency in found.values()):
        sys.exit(1)


def measure(server: Server, seconds: int) -> dict[str, Latency]:
    found = {"undisturbed": _ask(server, seconds)}
    for name, flags in ATTACKS.items():
        url = f"http://127.0.0.1:{server.port}{PATH}"
        command = ["taskset", "-c", LOAD_CORE, "slowhttptest", *_COMMON, *flags, "-l", str(seconds + 4), "-u", url]
        attack = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        time.sleep(3.0)  # until all connections are open
        latency = _ask(server, seconds)
        printed, _ = attack.communicate(timeout=seconds + 60)
        available = "service available:   NO" not in printed
        found[name] = Latency(latency.p50_ms, latency.p99_ms, available)
    return found


def judge(found: dict[str, Latency]) -> list[Bar]:
    """A limit that noise alone does not reach: twice the undisturbed p99, or 5 ms where that is less."""
    limit = max(FLOOR_MS, MOST_RATIO * found["undisturbed"].p99_ms)
    return [Bar(f"p99 ms during {name}", found[name].p99_ms, AT_MOST, round(limit, 3)) for name in ATTACKS]


def _ask(server: Server, seconds: int) -> Latency:
    seen = at_rate(server.port, RATE_PER_S, seconds, path=PATH, body=BODY, tail=ANSWER)
    return Latency(seen["p50_ms"], seen["p99_ms"], True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement (default: %(default)s)")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser.parse_args()


def _print(found: dict[str, Latency], bars: list[Bar]) -> None:
    print(f"{'':16}{'p50 ms':>10}{'p99 ms':>10}   slowhttptest's probe")
    for name, latency in found.items():
        word = "answered" if latency.available else "NOT answered"
        print(f"{name:16}{latency.p50_ms:10.3f}{latency.p99_ms:10.3f}   {'' if name == 'undisturbed' else word}")
    for bar in bars:
        print(bar.render())


if __name__ == "__main__":
    main()
