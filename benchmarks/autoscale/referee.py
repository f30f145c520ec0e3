"""Judges an autoscaling policy on traffic of many kinds, beside Knative's KPA, Ray Serve's and Kubernetes HPA's rules.

    python -m benchmarks.autoscale.referee                             the project's policy, recorded traces
    python -m benchmarks.autoscale.referee --made                      on 14 kinds of made traffic
    python -m benchmarks.autoscale.referee --policy package.module:Class   another one: Class() with decide(obs)
    python -m benchmarks.autoscale.referee --lag 3                     what is observed comes 6 s late
    python -m benchmarks.autoscale.referee --cold 0.05                 replicas wake from standby instead of starting

A pool of replicas with 4 slots each, mean service time 0.25 s (log-normal, cv 0.6), objective 1 s, decisions each 2 s
(`simulator.py`). A cell is one traffic at one mean load (erlangs: busy slots) and one cold start, in seconds.
Violations were answered after the objective, or shed. Cost is replica-seconds, starts and drains included.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.autoscale.adapter import Policy as ProjectPolicy
from benchmarks.autoscale.peers import Hpa, Kpa, Ray, Static
from benchmarks.autoscale.reference import Reference
from benchmarks.autoscale.simulator import Floats, Outcome, Policy, Simulator
from benchmarks.autoscale.workloads import KINDS, TRACES, made, recorded, service_times

SLOTS, SLO_S, MEAN_S, CV = 4, 1.0, 0.25, 0.6
PROJECT = "this project"
# What the project holds itself to: its share of a peer's violations, cost and actions, over all cells.
BARS = (("KPA", 0.5, 0.9, 0.6), ("Ray", 0.5, 0.6, None))
WORST_CELL_POINTS = 0.1
Maker = Callable[[], Policy]


@dataclass(frozen=True, slots=True)
class Row:
    """One policy in one cell, with one seed."""

    policy: str
    traffic: str
    erlangs: float
    cold_s: float
    seed: int
    outcome: Outcome

    @property
    def cell(self) -> tuple[str, float, float]:
        return self.traffic, self.erlangs, self.cold_s


def peak_replicas(arrivals: Floats) -> int:
    """The fixed count that someone who knew the busiest ten seconds would choose."""
    per_s = np.bincount((arrivals // 10).astype(int)) / 10
    return math.ceil(float(per_s.max()) * MEAN_S / SLOTS / 0.8)


def first_replicas(arrivals: Floats) -> int:
    return max(1, math.ceil(np.sum(arrivals < 60) / 60 * MEAN_S / SLOTS / 0.7))


def traffic(args: argparse.Namespace) -> dict[str, Callable[[float, int], Floats]]:
    """By name: (requests per second, seed) -> arrivals."""
    if args.made:
        return {kind: partial(made, kind) for kind in KINDS}
    return {path.stem: partial(recorded, path) for path in sorted(Path(args.traces).glob("*.csv"))}


def judge(args: argparse.Namespace) -> list[Row]:
    rows = []
    for name, arrivals_of in traffic(args).items():
        for erlangs in args.erlangs:
            for seed in args.seeds:
                arrivals = arrivals_of(erlangs / MEAN_S, seed)
                services = service_times(len(arrivals), MEAN_S, CV, seed)
                for cold_s in args.cold:
                    for policy, make in makers(args.policy, arrivals).items():
                        outcome = Simulator(
                            arrivals,
                            services,
                            slots=SLOTS,
                            slo_s=SLO_S,
                            cold_s=cold_s,
                            first=first_replicas(arrivals),
                            seed=seed,
                            lag=args.lag,
                        ).run(make())
                        rows.append(Row(policy, name, erlangs, cold_s, seed, outcome))
        if sys.stderr.isatty():
            print(f"{name} done", file=sys.stderr)
    return rows


def makers(named: Sequence[str], arrivals: Floats) -> dict[str, Maker]:
    found: dict[str, Maker] = {
        "static peak": lambda: Static(peak_replicas(arrivals)),
        "HPA on p95": Hpa,
        "KPA": Kpa,
        "Ray": Ray,
        "reference": Reference,
        PROJECT: ProjectPolicy,
    }
    for name in named:
        module, _, attribute = name.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


def mean(rows: Sequence[Row], of: Callable[[Outcome], float]) -> float:
    return float(np.mean([of(row.outcome) for row in rows]))


def table(title: str, rows: Sequence[Row]) -> None:
    print(f"\n{title}\n{'policy':<28}{'violations %':>13}{'cost / work':>12}{'actions':>9}{'wait p95 ms':>13}")
    for policy in dict.fromkeys(row.policy for row in rows):
        mine = [row for row in rows if row.policy == policy]
        print(
            f"{policy:<28}{mean(mine, lambda o: o.violations):13.2f}{mean(mine, lambda o: o.cost / o.work):12.2f}"
            f"{mean(mine, lambda o: o.actions):9.0f}{1000 * mean(mine, lambda o: o.wait_p95_s):13.0f}"
        )


def verdicts(rows: Sequence[Row], policy: str) -> list[str]:
    """The bars, one a line, each with what was reached."""
    lines = []
    mine = [row for row in rows if row.policy == policy]
    for peer, most_violations, most_cost, most_actions in BARS:
        theirs = [row for row in rows if row.policy == peer]
        parts = [
            ("violations", lambda o: o.violations, most_violations),
            ("cost", lambda o: o.cost / o.work, most_cost),
        ]
        if most_actions is not None:
            parts.append(("actions", lambda o: float(o.actions), most_actions))
        for what, of, most in parts:
            ratio = mean(mine, of) / max(1e-9, mean(theirs, of))
            lines.append(f"{_word(ratio <= most)} {what}: {ratio:.2f} of {peer}'s, at most {most}")
    kpa = [row for row in rows if row.policy == "KPA"]
    points, cell = max((_violations(mine, cell) - _violations(kpa, cell), cell) for cell in {row.cell for row in mine})
    bar = f"at most {WORST_CELL_POINTS:+}"
    lines.append(f"{_word(points <= WORST_CELL_POINTS)} worst cell: {points:+.2f} points to KPA, {bar} {cell}")
    return lines


def _violations(rows: Sequence[Row], cell: tuple[str, float, float]) -> float:
    return mean([row for row in rows if row.cell == cell], lambda o: o.violations)


def _word(is_met: bool) -> str:
    return "met   " if is_met else "MISSED"


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", action="append", default=[], help="module:Class, may be given again")
    parser.add_argument("--traces", default=str(TRACES), help="a folder of CSV files")
    parser.add_argument("--made", action="store_true", help="made traffic instead of traces")
    parser.add_argument("--erlangs", type=_numbers, default=[4.0, 16.0])
    parser.add_argument("--cold", type=_numbers, default=[2.0, 10.0])
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1])
    parser.add_argument("--lag", type=int, default=0, help="ticks of 2 s by which observations are late")
    parser.add_argument("--json", help="a file for every cell's figures")
    args = parser.parse_args()
    rows = judge(args)
    for name in dict.fromkeys(row.traffic for row in rows):
        table(name, [row for row in rows if row.traffic == name])
    table("all", rows)
    for policy in (PROJECT, *args.policy):
        print("\n".join(("", policy, *verdicts(rows, policy))))
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
