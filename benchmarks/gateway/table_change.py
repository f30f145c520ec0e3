"""What one changed model among many costs a gateway: as a snapshot, and as a delta.

Runs one gateway in this process, without clients, and turns the event loop as fast as it goes: the longest stretch
between two turns is what a request would have waited. Prints, for each way, the bytes of the answer, the time of taking
it in, and that longest stretch (median and worst); and the same of the table that is written to disk after deltas.

    python -m benchmarks.gateway.table_change --models 10000 --changes 20
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from router.config import Config
from router.contract import Endpoint, ModelRoute, Table, TableDelta, VersionRoute, encode, encode_in_steps
from router.crew import Crew
from router.kept import KeptTable
from router.log import EventLog
from router.server import Gateway
from router.stretches import in_stretches


def model(number: int, concurrency: int = 32) -> ModelRoute:
    versions = {
        version: VersionRoute((Endpoint(f"m{number}-{version}", "127.0.0.1", 20_000),), concurrency=concurrency)
        for version in ("1", "2")
    }
    return ModelRoute(versions, {"1": 90, "2": 10}, {"stable": "1"})


class Turns:
    """How long each piece of work took, and the longest stretch between two turns of the event loop meanwhile."""

    def __init__(self) -> None:
        self.longest_ms: list[float] = []
        self.took_ms: list[float] = []

    async def measure(self, work: Callable[[], Awaitable[None]]) -> None:
        longest = 0.0
        running = True

        async def turn() -> None:
            nonlocal longest
            last = time.perf_counter()
            while running:
                await asyncio.sleep(0)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now

        turning = asyncio.create_task(turn())
        await asyncio.sleep(0)
        began = time.perf_counter()
        await work()
        self.took_ms.append((time.perf_counter() - began) * 1000)
        running = False
        await turning
        self.longest_ms.append(longest * 1000)

    def show(self, name: str, size: int) -> None:
        print(
            f"{name:<22} {size:>10,} B   {statistics.median(self.took_ms):8.2f} ms   "
            f"{statistics.median(self.longest_ms):8.2f} ms   {max(self.longest_ms):8.2f} ms"
        )


async def main() -> None:
    flags = parse()
    with tempfile.TemporaryDirectory() as directory:
        gateway = Gateway(Config(table_file="none"), EventLog(os.path.join(directory, "log")), Crew())
        models = {f"model-{n}": model(n) for n in range(flags.models)}
        table = Table("bench", 1, "bench", models)
        await gateway.load(encode(table))
        await gateway.load_delta(encode(TableDelta("bench:1", "bench", 2)))  # the first makes an index
        print(f"{flags.models:,} models of two versions, one of them changed {flags.changes} times; medians")
        print(f"{'':<22} {'answer':>12}   {'took':>11}   {'longest':>11}   {'worst':>11}")
        for way in (by_delta, by_snapshot):
            await way(gateway, flags.changes)
        await write(gateway, Path(directory), flags.changes)


async def by_delta(gateway: Gateway, changes: int) -> None:
    turns, size = Turns(), 0
    for _ in range(changes):
        held = gateway.held.table
        assert held is not None
        one = {"model-7": model(7, 33 + held.revision % 7)}
        raw = encode(TableDelta(held.tag, "bench", held.revision + 1, models=one))
        size = len(raw)
        await turns.measure(lambda raw=raw: gateway.load_delta(raw))  # type: ignore[misc]
    turns.show("delta", size)


async def by_snapshot(gateway: Gateway, changes: int) -> None:
    turns, size = Turns(), 0
    for _ in range(changes):
        held = gateway.held.table
        assert held is not None
        models = held.models | {"model-7": model(7, 33 + held.revision % 7)}
        raw = encode(Table("bench", held.revision + 1, "bench", models))
        size = len(raw)

        async def load(raw: bytes = raw) -> None:
            await gateway.load(raw)

        await turns.measure(load)
    turns.show("snapshot", size)


async def write(gateway: Gateway, directory: Path, changes: int) -> None:
    """What `router/kept.py` does now and then while deltas come."""
    turns = Turns()
    held = gateway.held.table
    assert held is not None
    kept = KeptTable(gateway, directory / "table.json")

    async def keep() -> None:
        await kept.keep(await in_stretches(encode_in_steps(held)))

    for _ in range(changes):
        await turns.measure(keep)
    turns.show("kept on disk anew", (directory / "table.json").stat().st_size)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
