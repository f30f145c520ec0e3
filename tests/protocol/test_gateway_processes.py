"""A gateway of several processes: they share its work, one's end is nobody else's, and a restart loses nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from router.contract import ApiKey, Endpoint, ModelRoute, RateLimit, VersionRoute
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


async def process_of(client: Client) -> str:
    """Which process holds the connection: request ids begin alike in one process."""
    return (await client.ask("/v2", method="GET")).field("x-request-id").partition("-")[0]


async def in_two_processes(gateway: RunningGateway) -> tuple[Client, Client]:
    """A connection to each of two processes."""
    first = await gateway.connect()
    name = await process_of(first)
    while await process_of(second := await gateway.connect()) == name:
        second.leave()
    return first, second


class Gate:
    """A replica's script that lets one request after the other go, and remembers how many were inside at once."""

    def __init__(self) -> None:
        self.inside: list[Call] = []
        self.most = 0
        self.order: list[str] = []

    async def __call__(self, call: Call) -> None:
        self.inside.append(call)
        self.order.append(call.target.decode())
        self.most = max(self.most, len(self.inside))
        await call.completed.wait()

    def let_one_go(self) -> None:
        self.inside.pop(0).answer()


class TestReplicas:
    async def test_never_get_more_than_their_concurrency_from_all_processes(
        self, gateway: RunningGateway, replica: ScriptedReplica
    ) -> None:
        inside, seen = 0, []

        async def count(call: Call) -> None:
            nonlocal inside
            inside += 1
            seen.append(inside)
            await call.completed.wait()
            await asyncio.sleep(0.001)
            inside -= 1
            call.answer()

        replica.script = count
        gateway.route(m=model(replica, concurrency=3))
        await gateway.start(processes=2)
        clients = [await gateway.connect() for _ in range(16)]
        assert len({await process_of(client) for client in clients}) == 2

        async def ask(client: Client) -> None:
            for _ in range(40):
                assert (await client.ask()).status == 200

        await asyncio.gather(*(ask(client) for client in clients))

        assert len(seen) == 640
        assert max(seen) == 3

    async def test_are_given_to_waiters_of_all_processes_in_the_order_they_came(
        self, gateway: RunningGateway, replica: ScriptedReplica
    ) -> None:
        replica.script = gate = Gate()
        gateway.route(m=model(replica, concurrency=1))
        await gateway.start(processes=2)
        pairs = [await in_two_processes(gateway) for _ in range(4)]
        clients = [client for pair in pairs for client in pair]
        for number, client in enumerate(clients):
            client.request(f"/models/m/{number}")
            if number:
                await gateway.eventually("it waits", lambda report, n=number: sum(report["queued"].values()) == n)
            else:
                await until(lambda: gate.inside)

        for number, client in enumerate(clients):
            await until(lambda number=number: len(gate.order) == number + 1, "the next one's turn")
            gate.let_one_go()
            assert (await client.answer()).status == 200

        assert gate.order == [f"/models/m/{number}" for number in range(8)]
        assert gate.most == 1

    async def test_are_free_again_when_the_process_that_used_them_is_killed(
        self, gateway: RunningGateway, replica: ScriptedReplica
    ) -> None:
        replica.script = gate = Gate()
        gateway.route(m=model(replica, concurrency=1))
        await gateway.start(processes=2)
        victims, others = await in_two_processes(gateway)
        victims.request()
        await until(lambda: gate.inside)
        others.request()
        await gateway.eventually("one waits", lambda report: sum(report["queued"].values()) == 1)

        os.kill(await pid_holding(gateway, "in_flight"), signal.SIGKILL)
        await until(lambda: len(gate.inside) == 2, "the waiter's turn")
        gate.inside[1].answer(b"late")

        assert (await others.answer()).body == b"late"
        report = await gateway.eventually("nothing is inside", lambda report: not report["in_flight"])
        assert report["queued"] == {}


class TestQueue:
    async def test_is_woken_by_every_process(self, gateway: RunningGateway) -> None:
        """The first process was started without the second one's bell: its wake-ups came 5 ms late, by the timer."""
        await gateway.start(processes=2)

        first, second = (bells(worker) for worker in gateway.workers)

        assert first == second

    async def test_is_bounded_for_all_processes_together(
        self, gateway: RunningGateway, replica: ScriptedReplica
    ) -> None:
        replica.script = gate = Gate()
        gateway.route(m=model(replica, concurrency=1, queue_max=2))
        await gateway.start(processes=2)
        pairs = [await in_two_processes(gateway) for _ in range(2)]
        clients = [client for pair in pairs for client in pair]
        clients[0].request()
        await until(lambda: gate.inside)
        for number, client in enumerate(clients[1:3], 1):
            client.request()
            await gateway.eventually("it waits", lambda report, n=number: sum(report["queued"].values()) == n)

        refused = [await client.ask() for client in await in_two_processes(gateway)]

        assert [answer.code for answer in refused] == ["OVERLOADED", "OVERLOADED"]


class TestMetrics:
    SAMPLE = 'modelfleet_requests_total{model="m",version="1",code="200"}'

    async def test_of_any_process_are_those_of_all(self, gateway: RunningGateway) -> None:
        await gateway.start(processes=2)
        for client in await in_two_processes(gateway):
            for _ in range(5):
                await client.ask()
            await client.ask("/v2/models/unknown/infer")

        texts = [await metrics(client) for client in await gateway.connect_to_each(2)]

        assert [value(text, self.SAMPLE) for text in texts] == [10, 10]
        count = 'modelfleet_request_seconds_count{model="m",version="1"}'
        assert [value(text, count) for text in texts] == [10, 10]
        unrouted = 'modelfleet_requests_total{model="",version="",code="404"}'
        assert [value(text, unrouted) for text in texts] == [2, 2]
        assert [value(text, "modelfleet_gateway_processes") for text in texts] == [2, 2]

    async def test_do_not_go_back_when_a_process_is_killed(self, gateway: RunningGateway) -> None:
        await gateway.start(processes=2)
        for client in await in_two_processes(gateway):
            for _ in range(5):
                await client.ask()
        before = await gateway.metric(self.SAMPLE)  # has all write down what they counted
        victim = gateway.workers[0].pid

        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in (alive := [w.pid for w in gateway.workers]) and len(alive) == 2, within_s=20)
        clients = await gateway.connect_to_each(2)
        await gateway.ask()

        assert before == 10
        assert [value(await metrics(client), self.SAMPLE) for client in clients] == [11, 11]

    async def test_do_not_go_back_in_a_hot_restart(self, gateway: RunningGateway) -> None:
        await gateway.start(processes=2)
        for expected in (1, 2, 3):
            await gateway.ask()
            await gateway.restart()

            assert await gateway.metric(self.SAMPLE) == expected


class TestReport:
    async def test_names_a_table_once_every_process_has_applied_it(
        self, gateway: RunningGateway, replica: ScriptedReplica
    ) -> None:
        """The control plane stops a replica on the strength of it."""
        await gateway.start(processes=2)
        await gateway.eventually("the first table is in force", lambda report: report["tag"] == "e:1")
        stuck = gateway.workers[0]
        client = (await gateway.connect_to_each(2))[0]
        state = (await client.ask("/debug/state", method="GET")).json
        stuck = next(worker for worker in gateway.workers if worker.pid != state["process"])

        stuck.suspend()
        gateway.route(m=model(replica, concurrency=7))
        await until(lambda: gateway.event("table applied", tag="e:2"), "the other applied it")
        answer = await client.ask("/report", method="GET")
        stuck.resume()

        assert (answer.status, answer.code) == (503, "UNKNOWN")
        await gateway.eventually("both applied it", lambda report: report["tag"] == "e:2")

    async def test_is_the_supervisors(self, gateway: RunningGateway) -> None:
        await gateway.start(processes=2)

        reports = [(await c.ask("/report", method="GET")).json for c in await gateway.connect_to_each(2)]

        assert [report["pid"] for report in reports] == [gateway.pid, gateway.pid]


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


def bells(worker: psutil.Process) -> int:
    fds = Path(f"/proc/{worker.pid}/fd").iterdir()
    return sum(fd.readlink().name.endswith("[eventfd]") for fd in fds)


async def metrics(client: Client) -> str:
    return (await client.ask("/metrics", method="GET")).body.decode()


def value(text: str, sample: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " "))


async def pid_holding(gateway: RunningGateway, what: str) -> int:
    """The process that has something of this kind now."""
    for client in await gateway.connect_to_each(2):
        state = (await client.ask("/debug/state", method="GET")).json
        found = [each for each in state["processes"] if each[what]]
        if found:
            return int(found[0]["pid"])
    raise AssertionError(what)


async def answer_or_none(client: Client) -> int | None:
    try:
        return (await client.ask()).status
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class TestKeys:
    """What a key may do it may do once, however many processes there are."""

    KEY = "mf_of-all-processes"

    def key(self, **settings: object) -> dict[str, ApiKey]:
        return {"k": ApiKey(hashlib.sha256(self.KEY.encode()).hexdigest(), **settings)}  # type: ignore[arg-type]

    async def ask(self, client: Client) -> int:
        return (await client.ask("/v2/models/m/infer", f"x-api-key: {self.KEY}")).status

    async def test_have_one_rate_in_all_processes(self, gateway: RunningGateway, replica: ScriptedReplica) -> None:
        gateway.route(self.key(rate_limit=RateLimit(0.01, 3)), m=model(replica))
        await gateway.start(processes=2, auth="required")
        clients = await in_two_processes(gateway)

        statuses = [await self.ask(clients[turn % 2]) for turn in range(6)]

        assert sorted(statuses) == [200, 200, 200, 429, 429, 429]

    async def test_have_one_concurrency_in_all_processes(
        self, gateway: RunningGateway, replica: ScriptedReplica
    ) -> None:
        gate = replica.script = Gate()
        gateway.route(self.key(concurrency=2), m=model(replica))
        await gateway.start(processes=2, auth="required")
        one, other = await in_two_processes(gateway)
        third = await gateway.connect()
        one.request("/v2/models/m/infer", f"x-api-key: {self.KEY}")
        other.request("/v2/models/m/infer", f"x-api-key: {self.KEY}")
        await until(lambda: len(gate.inside) == 2)

        refused = await self.ask(third)
        while gate.inside:
            gate.let_one_go()
        await one.answer()
        await other.answer()
        third.request("/v2/models/m/infer", f"x-api-key: {self.KEY}")
        await until(lambda: gate.inside)
        gate.let_one_go()

        assert (refused, (await third.answer()).status) == (429, 200)

    async def test_are_counted_over_all_processes(self, gateway: RunningGateway, replica: ScriptedReplica) -> None:
        gateway.route(self.key(), m=model(replica))
        await gateway.start(processes=2, auth="required")
        for client in await in_two_processes(gateway):
            assert await self.ask(client) == 200

        assert await gateway.metric('modelfleet_key_requests_total{key="k",code="2xx"}') == 2
