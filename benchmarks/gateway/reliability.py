"""What clients see while replicas die, stop, talk nonsense and restart, tables change, and the gateway is replaced.

1,000 requests/s in an open loop through one gateway to four replicas of 5 ms, each a process; every disturbance with an
idempotent and with a non-idempotent version. Every request has an id, and every replica keeps a journal of the requests
that it had whole, so that each failure is judged by itself. The rule: a request may fail only if its version is not
idempotent and a replica that was disturbed had the whole of it. Requests that lay whole in the socket of a replica that
ended without reading them are counted apart: to the gateway they look the same. And no request of a non-idempotent
version may be executed twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.gateway.figures import percentile, poisson_arrivals
from benchmarks.gateway.lineup import ROOT, end, free_port
from benchmarks.gateway.steady import OK, Client
from router.contract import Endpoint, ModelRoute, Table, VersionRoute, encode

REPLICAS: Final = 4
TIMEOUT_MS: Final = 3_000
BEFORE_S: Final = 1.0  # undisturbed, so that the gateway knows what is usual
START_S: Final = 20.0
UNREAD: Final = "before the answer"  # the gateway's words for a connection that ended without a byte


class ReplicaProcess:
    """One replica, which can be disturbed."""

    def __init__(self, directory: Path, number: int) -> None:
        self.id = f"r{number}"
        self.port = free_port()
        self.was_disturbed = False
        self._journal = directory / f"{self.id}.journal"
        self._process = self._start()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def toggle_garbage(self) -> None:
        self._signal(signal.SIGUSR1)

    async def restart(self) -> None:
        """Ends it as a model server ends, and starts it again at the same port."""
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)
        self._process = self._start()

    def revive(self) -> None:
        self._process = self._start()

    def journal(self) -> list[str]:
        return self._journal.read_text().split() if self._journal.exists() else []

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        self.was_disturbed = True
        self._process.send_signal(number)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.gateway.replica", "--port", str(self.port)]
        return subprocess.Popen([*command, "--journal", str(self._journal)], cwd=ROOT)


class ControlPlane:
    """Hands out tables by long poll, as the real one does."""

    def __init__(self, replicas: list[ReplicaProcess], is_idempotent: bool) -> None:
        self.token = "benchmark"
        self.port = free_port()
        self._replicas = replicas
        self._is_idempotent = is_idempotent
        self._revision = 0
        self._changed = asyncio.Event()
        self._table = b""
        self._tag = ""
        self.publish(without=-1)

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    def publish(self, without: int) -> None:
        """A new table with all replicas but one; -1: with all."""
        self._revision += 1
        chosen = [replica for number, replica in enumerate(self._replicas) if number != without]
        endpoints = tuple(Endpoint(replica.id, "127.0.0.1", replica.port) for replica in chosen)
        route = VersionRoute(endpoints, idempotent=self._is_idempotent)
        table = Table("benchmark", self._revision, "c", {"m": ModelRoute({"1": route}, {"1": 1})})
        self._table, self._tag = encode(table), table.tag
        self._changed.set()
        self._changed = asyncio.Event()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled when the run ends, with a gateway still waiting for the next table.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            request = await reader.readuntil(b"\r\n\r\n")
            if f"after={self._tag}&".encode() in request:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 20)
            head = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(self._table)}\r\n\r\n"
            writer.write(head.encode() + self._table)
            await writer.drain()
        writer.close()


@dataclass
class Stage:
    """What a disturbance may touch."""

    replicas: list[ReplicaProcess]
    control: ControlPlane
    gateway: subprocess.Popen[bytes]
    ends: float


Disturbance = Callable[[Stage], Awaitable[None]]


async def kill(stage: Stage) -> None:
    """One replica after the other is killed and comes back half a second later; the table knows nothing of it."""
    for replica in _in_turn(stage):
        replica.kill()
        await asyncio.sleep(0.5)
        replica.revive()
        await asyncio.sleep(1.0)


async def stop(stage: Stage) -> None:
    """One replica is stopped: its connections stay open and nothing comes."""
    replica = stage.replicas[0]
    replica.stop()
    await asyncio.sleep(max(0.0, stage.ends - time.monotonic() - 1.0))
    replica.go_on()


async def garbage(stage: Stage) -> None:
    """One replica answers what is not HTTP, for two seconds at a time."""
    for replica in _in_turn(stage):
        replica.toggle_garbage()
        await asyncio.sleep(2.0)
        replica.toggle_garbage()
        await asyncio.sleep(0.5)


async def tables(stage: Stage) -> None:
    """A new table each 100 ms, each without another replica: it finishes what it has."""
    number = 0
    while time.monotonic() < stage.ends:
        stage.control.publish(without=number % REPLICAS)
        number += 1
        await asyncio.sleep(0.1)


async def restarts(stage: Stage) -> None:
    """One replica after the other ends with SIGTERM and starts again; the table knows nothing of it."""
    for replica in _in_turn(stage):
        await replica.restart()
        await asyncio.sleep(0.8)


async def hot_restart(stage: Stage) -> None:
    """The gateway is replaced by itself, each second."""
    while time.monotonic() < stage.ends:
        stage.gateway.send_signal(signal.SIGHUP)
        await asyncio.sleep(1.0)


DISTURBANCES: Final[dict[str, Disturbance]] = {
    "kill": kill,
    "stop": stop,
    "garbage": garbage,
    "tables": tables,
    "restarts": restarts,
    "hot_restart": hot_restart,
}


@dataclass(frozen=True)
class Verdict:
    """What clients saw in one run."""

    disturbance: str
    is_idempotent: bool
    sent: int
    causes: dict[str, int]
    allowed: int  # failures that the rule allows
    unread: int  # failures of what a replica's socket had when it ended, but not the replica
    violations: int  # all other failures
    executed_twice: int
    p99_ms: float

    @property
    def is_kept(self) -> bool:
        return not self.violations and (self.is_idempotent or not self.executed_twice)


def judge(
    disturbance: str, is_idempotent: bool, client: Client, journals: dict[str, list[str]], disturbed: set[str]
) -> Verdict:
    """`journals` are by replica; `disturbed` names the replicas that were."""
    outcomes = client.outcomes
    had_it = {request_id for replica in disturbed for request_id in journals[replica]}
    failed = [outcome for outcome in outcomes if outcome.cause != OK]
    fatal = [] if is_idempotent else failed
    allowed = sum(outcome.request_id in had_it for outcome in fatal)
    unread = sum(outcome.request_id not in had_it and UNREAD in outcome.cause for outcome in fatal)
    executed = Counter(request_id for journal in journals.values() for request_id in journal)
    return Verdict(
        disturbance=disturbance,
        is_idempotent=is_idempotent,
        sent=len(outcomes),
        causes=dict(Counter(outcome.cause for outcome in outcomes)),
        allowed=allowed,
        unread=unread,
        violations=len(failed) - allowed - unread,
        executed_twice=sum(count > 1 for count in executed.values()),
        p99_ms=percentile([outcome.took_s for outcome in outcomes]) * 1000,
    )


async def run(name: str, is_idempotent: bool, options: argparse.Namespace, directory: Path) -> Verdict:
    with _replicas(directory) as replicas:
        control = ControlPlane(replicas, is_idempotent)
        await control.serve()
        port = free_port()
        with _gateway(directory, control, port) as gateway:
            await _until_served(port, replicas)
            client = Client(port, "/v2/models/m/infer", TIMEOUT_MS, name)
            load = asyncio.create_task(
                client.run(poisson_arrivals(options.rate, options.seconds, seed=11)), name="load"
            )
            await asyncio.sleep(BEFORE_S)
            await DISTURBANCES[name](Stage(replicas, control, gateway, time.monotonic() + options.seconds - BEFORE_S))
            await load
        journals = {replica.id: replica.journal() for replica in replicas}
        disturbed = {replica.id for replica in replicas if replica.was_disturbed}
        return judge(name, is_idempotent, client, journals, disturbed)


def main() -> None:
    options = _options()
    verdicts = []
    for name in options.disturbances or DISTURBANCES:
        for is_idempotent in (True, False):
            with tempfile.TemporaryDirectory() as directory:
                verdicts.append(uvloop.run(run(name, is_idempotent, options, Path(directory))))
            if options.output == "text":
                _print(verdicts[-1])
    if options.output == "json":
        print(json.dumps([asdict(verdict) | {"is_kept": verdict.is_kept} for verdict in verdicts], indent=1))
    if not all(verdict.is_kept for verdict in verdicts):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(DISTURBANCES)
    parser.add_argument("disturbances", nargs="*", metavar="DISTURBANCE", help=f"of {names}; default: all")
    parser.add_argument("--rate", type=float, default=1000, help="requests/s (default: %(default)g)")
    parser.add_argument("--seconds", type=float, default=8, help="of each run (default: %(default)g)")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    unknown = [name for name in options.disturbances if name not in DISTURBANCES]
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such disturbance; choose of {names}")
    return options


def _print(verdict: Verdict) -> None:
    kind = "idempotent" if verdict.is_idempotent else "not idempotent"
    causes = ", ".join(f"{count} x {cause}" for cause, count in sorted(verdict.causes.items()))
    print(f"{verdict.disturbance} ({kind}): {'kept' if verdict.is_kept else 'BROKEN'}; {verdict.sent} sent: {causes}")
    print(
        f"    failures: {verdict.allowed} allowed, {verdict.unread} unread, {verdict.violations} others; "
        f"executed twice {verdict.executed_twice}, p99 {verdict.p99_ms:.1f} ms",
        flush=True,
    )


def _in_turn(stage: Stage) -> Iterator[ReplicaProcess]:
    """The replicas, one after the other, until there is no time for another."""
    while True:
        for replica in stage.replicas:
            if time.monotonic() > stage.ends - 2.0:
                return
            yield replica


@contextmanager
def _replicas(directory: Path) -> Iterator[list[ReplicaProcess]]:
    replicas = [ReplicaProcess(directory, number) for number in range(REPLICAS)]
    try:
        yield replicas
    finally:
        for replica in replicas:
            replica.end()


@contextmanager
def _gateway(directory: Path, control: ControlPlane, port: int) -> Iterator[subprocess.Popen[bytes]]:
    token = directory / "token"
    token.write_text(control.token)
    config = {
        "port": port,
        "metrics_port": free_port(),
        "control_url": f"http://127.0.0.1:{control.port}",
        "token_file": str(token),
        "log_file": os.environ.get("MODELFLEET_BENCH_LOG", str(directory / "gateway.log")),
        "limits": {"drain_timeout_s": 5.0},
    }
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    process = subprocess.Popen([sys.executable, "-m", "router", "--config", str(path)], cwd=ROOT)
    try:
        yield process
    finally:
        end(process)


async def _until_served(port: int, replicas: list[ReplicaProcess]) -> None:
    """Until the gateway has its table, and every replica listens."""
    ends = time.monotonic() + START_S
    waiting = {port, *(replica.port for replica in replicas)}
    while waiting:
        if time.monotonic() > ends:
            sys.exit(f"Error: nothing listens on {', '.join(map(str, waiting))} after {START_S:.0f} s")
        for each in tuple(waiting):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", each), 1).close()
                waiting.discard(each)
        await asyncio.sleep(0.05)
    probe = Client(port, "/v2/models/m/infer", TIMEOUT_MS, "probe")
    while not (probe.outcomes and probe.outcomes[-1].cause == OK) and time.monotonic() < ends:
        await probe.run([0.0])
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    main()
