"""A gateway of several processes: they share its work, one's end is nobody else's, and a restart loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from router.contract import Endpoint, ModelRoute, VersionRoute
from tests.fakes.gateway import Client, until
from tests.fakes.gateway_process import RunningGateway
from tests.fakes.scripted_replica import Call, ScriptedReplica


def model(*replicas: ScriptedReplica, **settings: object) -> ModelRoute:
    endpoints = tuple(Endpoint(f"r{i}", "127.0.0.1", replica.port) for i, replica in enumerate(replicas))
    return ModelRoute({"1": VersionRoute(endpoints, **settings)}, {"1": 1})  # type: ignore[arg-type]


@pytest.fixture
async def gateway(
    tmp_path: Path, free_port: Callable[[], int], replica: ScriptedReplica
) -> AsyncIterator[RunningGateway]:
    gateway = RunningGateway(tmp_path, free_port(), free_port())
    gateway.route(m=model(replica))
    try:
        yield gateway
    finally:
        await gateway.stop()


class Load:
    """Clients that ask without pause: some keep their connection, some take a new one for each request."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self._is_over = False
        self.statuses: list[int] = []
        self._tasks = [asyncio.create_task(work()) for work in (self._keep, self._keep, self._fresh, self._fresh)]

    async def _keep(self) -> None:
        client = await self._gateway.connect()
        while not self._is_over:
            answer = await client.ask()
            self.statuses.append(answer.status)
            if answer.field("connection") == "close":
                client = await self._gateway.connect()
            await asyncio.sleep(0.001)

    async def _fresh(self) -> None:
        while not self._is_over:
            client = await self._gateway.connect()
            self.statuses.append((await client.ask()).status)
            client.leave()
            await asyncio.sleep(0.001)

    async def carried(self, more: int) -> None:
        enough = len(self.statuses) + more
        await until(lambda: len(self.statuses) >= enough or any(task.done() for task in self._tasks))

    async def end(self) -> None:
        """Raises what a client saw besides answers."""
        self._is_over = True
        await asyncio.gather(*self._tasks)


class TestHotRestart:
    @pytest.mark.parametrize("processes", [1, 2])
    async def test_loses_no_request_under_load(self, gateway: RunningGateway, processes: int) -> None:
        await gateway.start(processes=processes)
        before = {worker.pid for worker in gateway.workers}
        load = Load(gateway)
        await load.carried(100)

        for _ in range(2):
            await gateway.restart()
            await load.carried(100)
        await load.end()

        assert set(load.statuses) == {200}
        assert (await gateway.report())["generation"] == 3
        await until(lambda: not before & {worker.pid for worker in gateway.workers}, "the first processes ended", 20)

    async def test_puts_new_limits_in_force(self, gateway: RunningGateway) -> None:
        await gateway.start()
        assert (await gateway.ask("/v2/models/m/infer", *["x: 1"] * 20)).status == 200

        gateway.configure(limits={"fields": 10})
        await gateway.restart()

        assert (await gateway.ask("/v2/models/m/infer", *["x: 1"] * 20)).status == 431

    @pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
    async def test_changes_the_number_of_processes_without_losing_a_request(
        self, gateway: RunningGateway, before: int, after: int
    ) -> None:
        await gateway.start(processes=before)
        load = Load(gateway)
        await load.carried(50)

        gateway.configure(processes=after)
        await gateway.restart()
        await load.carried(200)
        await load.end()

        assert set(load.statuses) == {200}
        await until(lambda: len(gateway.workers) == after, "only the new processes are left", 20)

    async def test_lets_a_kept_connection_have_one_more_answer(self, gateway: RunningGateway) -> None:
        await gateway.start()
        kept = await gateway.connect()
        await kept.ask()

        await gateway.restart()
        answer = await kept.ask()

        assert (answer.status, answer.field("connection")) == (200, "close")
        assert await kept.closed() == b""

    async def test_finishes_what_the_old_processes_had_in_flight(
        self, gateway: RunningGateway, replica: ScriptedReplica
    ) -> None:
        go_on = asyncio.Event()

        async def wait(call: Call) -> None:
            await call.completed.wait()
            await go_on.wait()
            call.answer(b"finished")

        replica.script = wait
        await gateway.start()
        client = await gateway.connect()
        client.request()
        await until(lambda: replica.calls)

        await gateway.restart()
        go_on.set()

        assert (await client.answer()).body == b"finished"

    async def test_with_a_broken_config_leaves_all_as_it_is(self, gateway: RunningGateway) -> None:
        await gateway.start()
        before = [worker.pid for worker in gateway.workers]

        gateway.break_config()
        gateway.signal(signal.SIGHUP)
        await until(lambda: gateway.event("gateway not restarted; it goes on as it is"), within_s=20)

        assert "fields" in gateway.event("gateway not restarted; it goes on as it is")["reason"]
        assert [worker.pid for worker in gateway.workers] == before
        assert (await gateway.ask()).status == 200

    async def test_with_another_address_leaves_all_as_it_is(
        self, gateway: RunningGateway, free_port: Callable[[], int]
    ) -> None:
        await gateway.start()

        gateway.configure(port=free_port())
        gateway.signal(signal.SIGHUP)
        await until(lambda: gateway.event("gateway not restarted; it goes on as it is"), within_s=20)

        assert "start another" in gateway.event("gateway not restarted; it goes on as it is")["reason"]
        assert (await gateway.ask()).status == 200

    async def test_whose_processes_cannot_serve_leaves_the_old_ones(
        self, gateway: RunningGateway, tmp_path: Path
    ) -> None:
        await gateway.start()
        before = [worker.pid for worker in gateway.workers]

        gateway.configure(access_log=str(tmp_path / "none" / "access.log"))
        gateway.signal(signal.SIGHUP)
        await until(lambda: gateway.event("gateway not restarted; the processes before it go on"), within_s=20)

        assert (await gateway.ask()).status == 200
        assert [worker.pid for worker in gateway.workers] == before
        gateway.configure()
        await gateway.restart()
        assert (await gateway.ask()).status == 200


class TestEnds:
    async def test_of_the_supervisor_ends_its_processes(self, gateway: RunningGateway) -> None:
        await gateway.start(processes=2)
        workers = gateway.workers

        gateway.signal(signal.SIGKILL)

        gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, 10)
        assert (len(gone), alive) == (2, [])

    async def test_of_one_process_is_not_seen_by_the_connections_of_another(self, gateway: RunningGateway) -> None:
        await gateway.start(processes=2)
        victim = gateway.workers[0].pid
        clients = [await gateway.connect() for _ in range(20)]
        for client in clients:
            await client.ask()

        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in (alive := [w.pid for w in gateway.workers]) and len(alive) == 2, within_s=20)
        answers = [await answer_or_none(client) for client in clients]

        assert 200 in answers
        assert None in answers  # precondition: the dead one had connections too
        assert {(await gateway.ask()).status for _ in range(20)} == {200}

    async def test_of_all_drains_and_exits_0(self, gateway: RunningGateway) -> None:
        await gateway.start(processes=2)

        gateway.signal(signal.SIGTERM)

        assert await gateway.exit_code() == 0


async def answer_or_none(client: Client) -> int | None:
    try:
        return (await client.ask()).status
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
