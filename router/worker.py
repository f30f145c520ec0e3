"""`python -m router.worker`: one process of the gateway, as its supervisor starts it.

Owns its life: from the job on standard input to ready, to serving when told so, to retiring or draining. Nobody else
starts it; people start `python -m router`. The supervisor's end, seen as the end of that input, is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import msgspec
import uvloop

from router.config import ConfigError
from router.crew import Crew
from router.job import EXIT_UNREADY, RETIRE, SERVE, Job
from router.kept import load_cache
from router.log import EventLog
from router.page import Phase
from router.server import Gateway
from router.sync import follow_control_plane, follow_file

# Whoever serves has a table by then, or is not let in: a successor must not answer "not found" where its
# predecessor served.
TABLE_WAIT_S: Final = 15.0


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor says what follows
    orders = _Orders()
    job = orders.read_job()
    try:
        log = EventLog(job.config.log_file)
    except OSError as exc:
        print(f"Error: {exc}", file=sys.stderr)  # noqa: T201
        return EXIT_UNREADY
    try:
        code: int = uvloop.run(_run(job, orders, log))
    except (OSError, ConfigError) as exc:
        log.error("gateway cannot listen", reason=str(exc))
        return EXIT_UNREADY
    return code


class _Orders:
    """Standard input: a job, then orders, one a line."""

    def __init__(self) -> None:
        self._rest = b""

    def read_job(self) -> Job:
        while b"\n" not in self._rest:
            data = os.read(0, 65_536)
            if not data:
                sys.exit(EXIT_UNREADY)  # the supervisor ended
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return msgspec.json.decode(line, type=Job)

    def follow(self, obey: Callable[[bytes], None]) -> None:
        """Calls `obey` with every order, b"" at the supervisor's end."""
        loop = asyncio.get_running_loop()
        os.set_blocking(0, False)

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                data = os.read(0, 4096)
                *lines, self._rest = (self._rest + data).split(b"\n")
                if not data:
                    loop.remove_reader(0)
                    lines.append(b"")
                for line in lines:
                    obey(line)

        loop.add_reader(0, read)


async def _run(job: Job, orders: _Orders, log: EventLog) -> int:
    crew = Crew(job)
    gateway = Gateway(job.config, log, crew)
    life = _Life(gateway, job, crew)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, life.end)
    orders.follow(life.obey)
    return await life.run()


class _Life:
    """The phases of one process, up to its exit code."""

    def __init__(self, gateway: Gateway, job: Job, crew: Crew) -> None:
        self._gateway = gateway
        self._job = job
        self._crew = crew
        self._serve = asyncio.Event()
        self._leave = asyncio.Event()
        self._has_successor = False

    def obey(self, order: bytes) -> None:
        if order == SERVE:
            self._serve.set()
        elif order == RETIRE:
            self._has_successor = True
            self._leave.set()
        elif not order:
            self.end()

    def end(self) -> None:
        self._has_successor = False
        self._gateway.end_idle()  # those that were kept for a successor's sake
        self._leave.set()

    async def run(self) -> int:
        gateway = self._gateway
        await gateway.answers.take_over()
        if gateway.config.table_cache:
            await load_cache(gateway)
        publishing = asyncio.create_task(gateway.answers.publish_now_and_then(), name="accounts")
        source = asyncio.create_task(_follow(gateway), name="tables")
        life = asyncio.create_task(self._serve_until_told(), name="life")
        try:
            await asyncio.wait((source, publishing, life), return_when=asyncio.FIRST_COMPLETED)
            for task in (source, publishing):
                if task.done():  # they never end but by a fault of ours: do not serve on without in silence
                    task.result()
            return await life
        finally:
            await _cancel(source, publishing)

    async def _serve_until_told(self) -> int:
        gateway = self._gateway
        if self._job.await_table and not await self._has_table():
            gateway.log.error("gateway process not ready; it has no routing table", waited_s=TABLE_WAIT_S)
            return EXIT_UNREADY
        self._crew.enter(Phase.READY)
        await _first_of(self._serve, self._leave)
        if self._serve.is_set():
            await gateway.listen(*map(_sockets, (self._job.public, self._job.private, self._job.rpc)))
            self._crew.enter(Phase.SERVING)
            await self._leave.wait()
        self._crew.enter(Phase.RETIRING)
        await gateway.drain(has_successor=self._has_successor)
        return 0

    async def _has_table(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TABLE_WAIT_S):
                await self._gateway.has_table.wait()
        return self._gateway.has_table.is_set()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _follow(gateway: Gateway) -> None:
    await (follow_control_plane if gateway.config.control_url else follow_file)(gateway)


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _sockets(fds: list[int]) -> list[socket.socket]:
    return [socket.socket(fileno=fd) for fd in fds]


if __name__ == "__main__":
    sys.exit(main())
