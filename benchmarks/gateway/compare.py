"""The gateway beside HAProxy, nginx and Envoy: one process or thread each on one core, the same back end, alternated.

The load is a POST of an 84-byte inference request unless a part says otherwise; load generator and back end share the
other core. Each part measures its servers in turn, `--rounds` times over, and compares medians. On a shared machine
only ratios mean anything; CPU time a request is what other work disturbs least.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.gateway import crowd, wrk
from benchmarks.gateway.figures import AT_LEAST, AT_MOST, Bar
from benchmarks.gateway.lineup import (
    ANSWER,
    BODY,
    BOTH_CORES,
    ENVOY,
    LARGE_BYTES,
    LOAD_CORE,
    Lineup,
    Server,
    StartError,
    missing_tools,
)
from benchmarks.gateway.openrate import at_rate

PATH: Final = "/v2/models/iris/infer"
IDLE_CONNECTIONS: Final = 10_000
MODELS: Final = 10_000
SPREAD: Final = 100  # models that requests are spread over


@dataclass(frozen=True)
class Row:
    """Medians of one server in one part. Zero where the part does not measure it."""

    server: str
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the server, a request


@dataclass(frozen=True)
class Part:
    """What one part found. `note` says what a reader must know of it."""

    title: str
    rows: Sequence[Row]
    bars: Sequence[Bar]
    note: str = ""


@dataclass(frozen=True)
class Effort:
    """How long is measured."""

    rounds: int
    seconds: int  # of one measurement; wrk knows no fractions


class Bench:
    """The parts, each with servers of its own."""

    def __init__(self, effort: Effort, directory: Path) -> None:
        self._effort = effort
        self._directory = directory
        self._scripts = 0

    def throughput(self) -> Part:
        with Lineup(self._directory) as lineup:
            servers = [lineup.modelfleet(), lineup.haproxy(), lineup.nginx(), lineup.envoy()]
            rows = self._alternate({s.name: self._closed(s, connections=32) for s in servers})
        ours, haproxy, envoy = rows["modelfleet"], rows["haproxy"], rows["envoy"]
        return Part(
            "32 connections",
            list(rows.values()),
            [
                Bar("requests/s at 32 connections, of HAProxy's", ours.rate_per_s / haproxy.rate_per_s, AT_LEAST, 0.6),
                Bar("requests/s at 32 connections, of Envoy's", ours.rate_per_s / envoy.rate_per_s, AT_LEAST, 2.0),
            ],
            f"by CPU time a request: {haproxy.cpu_us / ours.cpu_us:.2f} of HAProxy, "
            f"{envoy.cpu_us / ours.cpu_us:.2f} of Envoy",
        )

    def latency(self) -> Part:
        with Lineup(self._directory) as lineup:
            servers = [lineup.modelfleet(), lineup.haproxy(), lineup.nginx(), lineup.envoy()]
            rows = self._alternate({s.name: self._closed(s, connections=1) for s in servers})
        ratio = rows["modelfleet"].p50_ms / rows["haproxy"].p50_ms
        return Part(
            "1 connection", list(rows.values()), [Bar("median at 1 connection, of HAProxy's", ratio, AT_MOST, 1.1)]
        )

    def half_load(self) -> Part:
        """Each at half of what it could carry a moment before, Poisson arrivals, counted from when they were due."""
        late: list[float] = []
        with Lineup(self._directory) as lineup:
            servers = [lineup.modelfleet(), lineup.envoy()]
            rows = self._alternate({server.name: self._half_of_own(server, late) for server in servers})
        ratio = rows["modelfleet"].p99_ms / rows["envoy"].p99_ms
        return Part(
            "half of own capacity, open loop over 64 connections",
            list(rows.values()),
            [Bar("p99 at half of own capacity, of Envoy's", ratio, AT_MOST, 1.0)],
            f"requests left late by {statistics.median(late):.3f} ms (median over runs of the p99)",
        )

    def large_bodies(self) -> Part:
        upload = self._script(f'wrk.body = string.rep("x", {LARGE_BYTES})')
        download = self._script('wrk.method = "GET"')
        with Lineup(self._directory) as lineup:
            servers = [lineup.modelfleet(), lineup.nginx()]
            up = self._alternate({s.name: self._closed(s, 8, upload) for s in servers})
            down = self._alternate({s.name: self._closed(s, 8, download, "/v2/models/iris/download") for s in servers})
        rows = [*_renamed(up, "request"), *_renamed(down, "answer")]
        bars = [
            Bar(
                f"requests/s with {what} of 1 MiB, of nginx's", _rate_ratio(found, "modelfleet", "nginx"), AT_LEAST, 0.5
            )
            for what, found in (("request bodies", up), ("answers", down))
        ]
        return Part("1 MiB, 8 connections", rows, bars)

    def idle(self) -> Part:
        """Two gateways, one of which holds 10,000 connections that asked once and stay."""
        options = ("--idle-timeout-s", "3600", "--connections", str(2 * IDLE_CONNECTIONS))
        with Lineup(self._directory) as lineup:
            free, crowded = lineup.modelfleet(options=options), lineup.modelfleet(options=options)
            with crowd.connections(crowded.port, IDLE_CONNECTIONS, PATH):
                rows = self._alternate({"free": self._closed(free, 32), "crowded": self._closed(crowded, 32)})
                resident_mb = crowded.resident_bytes() / 1e6
        return Part(
            f"32 connections beside {IDLE_CONNECTIONS} idle ones",
            list(rows.values()),
            [
                Bar("MB resident with 10,000 idle connections", resident_mb, AT_MOST, 300),
                Bar("requests/s beside them, of those without", _rate_ratio(rows, "crowded", "free"), AT_LEAST, 0.9),
            ],
        )

    def models(self) -> Part:
        """The same requests at tables of one model and of 10,000; then spread over 100 models, beside as many paths."""
        paths = self._script(_SPREAD_LUA % (SPREAD, f'"{PATH}?n=" .. n'))
        spread = self._script(_SPREAD_LUA % (SPREAD, '"/v2/models/model-" .. n .. "/infer"'))
        with Lineup(self._directory) as lineup:
            one, many = lineup.modelfleet(), lineup.modelfleet(models=MODELS)
            rows = self._alternate(
                {
                    "one": self._closed(one, 32),
                    "10,000": self._closed(many, 32),
                    "one, 100 paths": self._closed(one, 32, paths),
                    "10,000, 100 asked": self._closed(many, 32, spread),
                }
            )
        return Part(
            "models in the table",
            list(rows.values()),
            [
                Bar("requests/s with 10,000 models, of one's", _rate_ratio(rows, "10,000", "one"), AT_LEAST, 0.95),
                Bar(
                    "the same, requests spread over 100 paths or models",
                    _rate_ratio(rows, "10,000, 100 asked", "one, 100 paths"),
                    AT_LEAST,
                    0.95,
                ),
            ],
        )

    def processes(self) -> Part:
        """One process beside two, with load generator and back end on the same two cores.

        Those take a good part of both cores, so that requests/s cannot double. What two processes could carry is
        counted instead: each has a core's worth of CPU time, so that the scale is 2 x the CPU time of a request with
        one / with two. It holds every cost of sharing (memory, locks, caches), for these are CPU time too. nginx under
        the same load says how far requests/s could grow at most.
        """
        with Lineup(self._directory, backend_cores=BOTH_CORES) as lineup:
            servers = {
                "modelfleet, 1": lineup.modelfleet(cores=BOTH_CORES, options=("--processes", "1")),
                "modelfleet, 2": lineup.modelfleet(cores=BOTH_CORES, options=("--processes", "2")),
                "nginx, 1": lineup.nginx(1, BOTH_CORES),
                "nginx, 2": lineup.nginx(2, BOTH_CORES),
            }
            rows = self._alternate({n: self._closed(s, 64, cores=BOTH_CORES) for n, s in servers.items()})
        scale = 2 * rows["modelfleet, 1"].cpu_us / rows["modelfleet, 2"].cpu_us
        ours, theirs = (_rate_ratio(rows, f"{name}, 2", f"{name}, 1") for name in ("modelfleet", "nginx"))
        return Part(
            "processes, everything on two cores",
            list(rows.values()),
            [Bar("scale of two processes, by CPU time a request", scale, AT_LEAST, 1.7)],
            f"requests/s grew by {ours:.2f}, nginx's with a second worker by {theirs:.2f}: the load is the limit there",
        )

    # steps

    def _alternate(self, measures: Mapping[str, Callable[[int], Row]]) -> dict[str, Row]:
        """Runs all measures in turn, as often as asked for, after one short turn that does not count."""
        found: dict[str, list[Row]] = {name: [] for name in measures}
        for measure in measures.values():
            measure(1)
        for _ in range(self._effort.rounds):
            for name, measure in measures.items():
                found[name].append(measure(self._effort.seconds))
        return {name: _median(name, rows) for name, rows in found.items()}

    def _closed(
        self, server: Server, connections: int, script: Path | None = None, path: str = PATH, cores: str = LOAD_CORE
    ) -> Callable[[int], Row]:
        chosen = script or self._script(f"wrk.body = '{BODY}'")

        def measure(seconds: int) -> Row:
            before = server.cpu_s()
            load = wrk.run(chosen, server.port, cores=cores, connections=connections, seconds=seconds, path=path)
            cpu_us = (server.cpu_s() - before) / load.requests * 1e6
            return Row(server.name, load.rate_per_s, load.p50_ms, load.p99_ms, cpu_us)

        return measure

    def _half_of_own(self, server: Server, late_ms: list[float]) -> Callable[[int], Row]:
        closed = self._closed(server, connections=32)

        def measure(seconds: int) -> Row:
            rate = closed(1).rate_per_s / 2
            before = server.cpu_s()
            seen = at_rate(server.port, rate, seconds, path=PATH, body=BODY, tail=ANSWER)
            late_ms.append(seen["late_p99_ms"])
            cpu_us = (server.cpu_s() - before) / seen["answered"] * 1e6
            return Row(server.name, rate, seen["p50_ms"], seen["p99_ms"], cpu_us)

        return measure

    def _script(self, lines: str) -> Path:
        self._scripts += 1
        path = self._directory / f"{self._scripts}.lua"
        path.write_text(f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n{lines}\n')
        return path


# Every request names another path: %d of them in turn, made once so that the generator's cost is that of one.
_SPREAD_LUA: Final = (
    f"wrk.body = '{BODY}'\nlocal made, at = {{}}, 0\n"
    "init = function()\n  for n = 1, %d do made[n] = wrk.format(nil, %s) end\nend\n"
    "request = function()\n  at = at %% #made + 1\n  return made[at]\nend\n"
)

PARTS: Final = ("throughput", "latency", "half_load", "large_bodies", "idle", "models", "processes")


def main() -> None:
    options = _options()
    missing = missing_tools("nginx", "haproxy", "wrk", "taskset") + ([] if ENVOY.exists() else ["envoy"])
    if missing:
        sys.exit(f"Error: {', '.join(missing)}: not found; `bash scripts/bench_tools.sh` installs them")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rounds, seconds = (3, 1) if options.quick else (5, 4)
    effort = Effort(options.rounds or rounds, options.seconds or seconds)
    found = {}
    try:
        for name in options.parts or PARTS:
            with tempfile.TemporaryDirectory() as directory:
                found[name] = getattr(Bench(effort, Path(directory)), name)()
            if options.output == "text":
                _print(found[name])
    except (StartError, wrk.LoadError) as exc:
        sys.exit(f"Error: {name}: {exc}")
    if options.output == "json":
        print(json.dumps({"conditions": _conditions(effort), "parts": _as_json(found)}, indent=1))
    if any(not bar.is_met for part in found.values() for bar in part.bars):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 s: about three minutes for all")
    parser.add_argument("--rounds", type=int, default=0, help="default: 5")
    parser.add_argument("--seconds", type=int, default=0, help="of each measurement; default: 4")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser.parse_args()


def _median(name: str, rows: Sequence[Row]) -> Row:
    columns = {field: statistics.median(getattr(row, field) for row in rows) for field in _FIGURES}
    return Row(name, **columns)


_FIGURES: Final = ("rate_per_s", "p50_ms", "p99_ms", "cpu_us")


def _renamed(rows: Mapping[str, Row], what: str) -> list[Row]:
    return [Row(f"{name}, {what}", **{field: getattr(row, field) for field in _FIGURES}) for name, row in rows.items()]


def _rate_ratio(rows: Mapping[str, Row], ours: str, theirs: str) -> float:
    return rows[ours].rate_per_s / rows[theirs].rate_per_s


def _print(part: Part) -> None:
    print(f"{part.title}\n{'':24}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'CPU µs':>10}")
    for row in part.rows:
        print(f"  {row.server:22}{row.rate_per_s:12.0f}{row.p50_ms:10.3f}{row.p99_ms:10.3f}{row.cpu_us:10.2f}")
    for bar in part.bars:
        print(f"  {bar.render()}")
    print(f"  {part.note}\n" if part.note else "", flush=True)


def _as_json(found: Mapping[str, Part]) -> dict[str, Any]:
    return {
        name: asdict(part) | {"bars": [asdict(bar) | {"is_met": bar.is_met} for bar in part.bars]}
        for name, part in found.items()
    }


def _conditions(effort: Effort) -> dict[str, Any]:
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": Path("/proc/loadavg").read_text().split()[0],
    }


if __name__ == "__main__":
    main()
