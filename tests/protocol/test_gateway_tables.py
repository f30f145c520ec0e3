"""Tables: swapped under load, kept on disk, polled from a control plane, refused when they are wrong."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.calls import backoff_s
from router.config import Config
from router.contract import ApiKey, Endpoint, ModelRoute, Table, TableDelta, VersionRoute, decode, encode
from router.core.table import FORGOTTEN_AFTER_S
from router.kept import load_cache
from router.log import EventLog
from router.server import Gateway
from router.sync import follow_control_plane, follow_file
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.scripted_replica import Call, ScriptedReplica


def table(revision: int, *models: str, replica: ScriptedReplica | None = None) -> Table:
    endpoints = (Endpoint("r", "127.0.0.1", replica.port),) if replica else ()
    routes = {model: ModelRoute({"1": VersionRoute(endpoints)}, {"1": 1}) for model in models}
    return Table("epoch", revision, "c", routes)


class ControlPlane:
    """Answers the long poll with the table that the test publishes, as docs/CONTRACTS.md says."""

    def __init__(self) -> None:
        self.tag = ""
        self.body = b""
        self.asked: list[bytes] = []
        self.news = asyncio.Event()
        self.status = b"200 OK"
        self.delta: tuple[str, bytes] | None = None

    def publish(self, new: Table, delta: TableDelta | bytes = b"") -> None:
        """`delta` is what a gateway gets that says it takes one; any other gets the whole table."""
        self.tag, self.body = new.tag, encode(new)
        self.delta = None
        if delta:
            self.delta = self.tag, delta if isinstance(delta, bytes) else encode(delta)
        self.news.set()

    async def __call__(self, call: Call) -> None:
        self.asked.append(call.target)
        if call.field("authorization") != ["Bearer secret"]:
            call.answer(b"{}", b"401 Unauthorized")
        elif self.status != b"200 OK":
            call.answer(b"{}", self.status)
        else:
            while f"after={self.tag}&".encode() in call.target:
                self.news.clear()
                await self.news.wait()
            if self.delta and b"delta=1" in call.target:
                call.answer(self.delta[1], b"226 IM Used")
            else:
                call.answer(self.body)


@pytest.fixture
def control() -> ControlPlane:
    return ControlPlane()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    made = EventLog(str(tmp_path / "log"))
    yield made
    made.close()


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class TestSwap:
    async def test_lets_requests_finish_on_replicas_that_left_and_reports_them(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        go_on = asyncio.Event()

        async def wait(call: Call) -> None:
            await go_on.wait()
            call.answer(b"finished")

        replica.script = wait
        await gateway.route(replica)
        client = await gateway.connect()
        client.request()
        await until(lambda: replica.calls)

        async with ScriptedReplica() as successor:
            await gateway.table(
                m=ModelRoute({"1": VersionRoute((Endpoint("new", "127.0.0.1", successor.port),))}, {"1": 1})
            )
            assert (await gateway.admin("/report")).json["in_flight"] == {"r0": 1}
            assert (await gateway.ask()).status == 200
            assert len(successor.calls) == 1

            go_on.set()
            assert (await client.answer()).body == b"finished"
            assert (await gateway.admin("/report")).json["in_flight"] == {}
            await until(lambda: not replica.connections, "connections to the old replica closed")

    async def test_are_shown_with_the_time_from_which_they_are_in_force(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def applied_at() -> float | None:
            families = text_string_to_metric_families((await gateway.admin("/metrics")).body.decode())
            of = [f for f in families if f.name == "modelfleet_gateway_table_applied_at_seconds"]
            return of[0].samples[0].value if of else None

        before = await applied_at()
        began = time.time()
        await gateway.route(replica)
        first = await applied_at()
        await gateway.route(replica)
        second = await applied_at()

        assert before is None
        assert first is not None
        assert second is not None
        assert began - 0.001 <= first < second <= time.time()

    async def test_every_few_milliseconds_loses_no_request(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as one, ScriptedReplica() as two:
            stop = False

            async def swap() -> None:
                while not stop:
                    for chosen in ((one,), (two,), (one, two)):
                        await gateway.route(*chosen)
                        await asyncio.sleep(0.003)

            await gateway.route(one)
            swapping = asyncio.create_task(swap())
            clients = [await gateway.connect() for _ in range(8)]

            async def ask(client: object) -> set[int]:
                return {(await client.ask(body=b"x")).status for _ in range(50)}  # type: ignore[attr-defined]

            statuses = await asyncio.gather(*(ask(client) for client in clients))
            stop = True
            await swapping

        assert set().union(*statuses) == {200}

    async def test_to_ten_thousand_models_stalls_nobody(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        """Nor does the report on them, which the control plane reads each second. Counted in turns of the loop, not
        milliseconds, so that a busy machine does not decide."""
        await gateway.route(replica)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        models = {
            f"model-{i}": ModelRoute({"1": VersionRoute((Endpoint(f"e{i}", "127.0.0.1", 9),))}, {"1": 1})
            for i in range(10_000)
        }
        await gateway.table(**models)
        while_applied = turns
        await gateway.gateway.answers.answer(b"/report")
        while_reported = turns - while_applied
        await cancel(counting)

        assert while_applied >= 10
        assert while_reported >= 3


class TestFile:
    async def test_is_read_again_when_it_changes_and_refused_whole_when_it_is_wrong(
        self, tmp_path: Path, log: EventLog
    ) -> None:
        path = tmp_path / "table.json"
        path.write_bytes(encode(table(1, "a")))
        gateway = Gateway(Config(table_file=str(path)), log)
        following = asyncio.create_task(follow_file(gateway))
        await until(lambda: gateway.fleet.tag == "epoch:1")

        path.write_text('{"epoch": "epoch", "revision": 2, "models": {"b": 7}}')
        await until(lambda: "refused" in (tmp_path / "log").read_text())
        assert (gateway.fleet.tag, set(gateway.fleet.models)) == ("epoch:1", {"a"})

        path.write_bytes(encode(table(3, "c")))
        await until(lambda: gateway.fleet.tag == "epoch:3")
        assert set(gateway.fleet.models) == {"c"}
        await cancel(following)


class TestLongPoll:
    async def test_applies_each_table_once_and_asks_with_its_tag(
        self, tmp_path: Path, log: EventLog, control: ControlPlane
    ) -> None:
        (tmp_path / "token").write_text("secret\n")
        control.publish(table(1, "a"))
        async with ScriptedReplica(control) as plane:
            gateway = Gateway(config(tmp_path, plane.port), log)
            following = asyncio.create_task(follow_control_plane(gateway))
            await until(lambda: gateway.fleet.tag == "epoch:1")
            await until(lambda: len(control.asked) == 2)
            control.publish(table(2, "a", "b"))
            await until(lambda: gateway.fleet.tag == "epoch:2")
            await cancel(following)

        assert control.asked[:2] == [
            b"/internal/v1/table?after=&wait_s=25&delta=1",
            b"/internal/v1/table?after=epoch:1&wait_s=25&delta=1",
        ]

    async def test_keeps_the_last_good_table_for_a_start_without_a_control_plane(
        self, tmp_path: Path, log: EventLog, control: ControlPlane
    ) -> None:
        (tmp_path / "token").write_text("secret")
        control.publish(table(7, "a"))
        kept = tmp_path / "table.json"
        async with ScriptedReplica(control) as plane:
            following = asyncio.create_task(follow_control_plane(Gateway(config(tmp_path, plane.port), log)))
            await until(kept.exists)
            await cancel(following)

        restarted = Gateway(config(tmp_path, 1), log)
        await load_cache(restarted)

        assert (restarted.fleet.tag, set(restarted.fleet.models)) == ("epoch:7", {"a"})
        assert os.stat(kept).st_mode & 0o777 == 0o600

    async def test_takes_in_what_changed_and_leaves_the_rest_as_it_is(
        self, tmp_path: Path, log: EventLog, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        (tmp_path / "token").write_text("secret")
        control.publish(table(1, "m", "other", "gone", replica=None))
        async with ScriptedReplica(control) as plane:
            gateway = Gateway(config(tmp_path, plane.port), log)
            await gateway.listen()
            under_test = GatewayUnderTest(gateway)
            following = asyncio.create_task(follow_control_plane(gateway))
            await until(lambda: gateway.fleet.tag == "epoch:1")
            untouched = gateway.fleet.models["other"]
            changed = table(2, "m", replica=replica).models
            whole = Table("epoch", 2, "c", changed | {"other": untouched.route})

            control.publish(whole, TableDelta("epoch:1", "epoch", 2, models=changed, removed=("gone",)))
            await until(lambda: gateway.fleet.tag == "epoch:2")

            assert (await under_test.ask()).status == 200
            assert (await under_test.ask("/v2/models/gone/infer")).status == 404
            assert gateway.fleet.models["other"] is untouched
            assert gateway.held.table == whole
            state = (await under_test.admin("/debug/state")).json["table"]
            assert {name: state[name] for name in ("tag", "models", "keys", "came_as", "refused")} == {
                "tag": "epoch:2", "models": 2, "keys": 0, "came_as": "delta", "refused": None,
            }  # fmt: skip
            await cancel(following)
            await under_test.close()

    async def test_knows_a_key_by_a_delta_and_forgets_it_by_the_next(self, log: EventLog) -> None:
        gateway = Gateway(Config(table_file="none"), log)
        await gateway.apply(table(1, "m"))
        keys = {"k": ApiKey("0" * 64)}
        known = []
        for delta in (
            TableDelta("epoch:1", "epoch", 2, keys=keys),
            TableDelta("epoch:2", "epoch", 3, removed_keys=("k",)),
        ):
            await gateway.load_delta(encode(delta))
            known.append(list(gateway.keyring.callers))

        assert known == [["k"], []]

    @pytest.mark.parametrize(
        "delta",
        [
            pytest.param(b"no delta", id="garbage"),
            pytest.param(TableDelta("epoch:77", "epoch", 2), id="of another base"),
            pytest.param(TableDelta("epoch:1", "epoch", 2, models={"b": ModelRoute({}, {"1": 1})}), id="contradictory"),
        ],
    )
    async def test_asks_for_the_whole_table_after_a_delta_that_it_refused(
        self, tmp_path: Path, log: EventLog, control: ControlPlane, delta: TableDelta | bytes
    ) -> None:
        (tmp_path / "token").write_text("secret")
        control.publish(table(1, "a"))
        async with ScriptedReplica(control) as plane:
            gateway = Gateway(config(tmp_path, plane.port), log)
            following = asyncio.create_task(follow_control_plane(gateway))
            await until(lambda: gateway.fleet.tag == "epoch:1")
            control.publish(table(2, "a", "b"), delta)
            await until(lambda: gateway.fleet.tag == "epoch:2")
            await cancel(following)

        assert set(gateway.fleet.models) == {"a", "b"}
        assert control.asked[1:3] == [
            b"/internal/v1/table?after=epoch:1&wait_s=25&delta=1",
            b"/internal/v1/table?after=epoch:1&wait_s=25",
        ]
        assert "no new table; the one in force stays" in (tmp_path / "log").read_text()
        assert gateway.held.came_as == "snapshot"
        assert gateway.held.refused.startswith("routing table")

    @pytest.mark.parametrize("ends_at_once", [True, False])
    async def test_keeps_the_whole_table_after_a_delta(
        self, tmp_path: Path, log: EventLog, control: ControlPlane, ends_at_once: bool
    ) -> None:
        (tmp_path / "token").write_text("secret")
        control.publish(table(1, "a", "b", "c", "d"))
        kept = tmp_path / "table.json"
        whole = table(2, "a", "b", "c", "e")
        async with ScriptedReplica(control) as plane:
            gateway = Gateway(config(tmp_path, plane.port), log)
            following = asyncio.create_task(follow_control_plane(gateway))
            await until(kept.exists)
            control.publish(whole, TableDelta("epoch:1", "epoch", 2, models=table(2, "e").models, removed=("d",)))
            await until(lambda: gateway.fleet.tag == "epoch:2")
            if not ends_at_once:
                await until(lambda: decode(kept.read_bytes()).tag == "epoch:2")
            await cancel(following)

        assert decode(kept.read_bytes()) == whole
        assert os.listdir(tmp_path).count("table.json") == 1
        assert not [name for name in os.listdir(tmp_path) if name.startswith("table.json.")]

    async def test_starts_empty_when_the_kept_table_is_broken(self, tmp_path: Path, log: EventLog) -> None:
        (tmp_path / "table.json").write_bytes(b'{"epoch": ')
        gateway = Gateway(config(tmp_path, 1), log)

        await load_cache(gateway)

        assert gateway.fleet.tag == ""
        assert "kept table refused" in (tmp_path / "log").read_text()

    @pytest.mark.parametrize("trouble", ["status", "garbage", "down", "token"])
    async def test_serves_on_with_the_last_table_and_recovers(
        self, tmp_path: Path, log: EventLog, control: ControlPlane, replica: ScriptedReplica, trouble: str
    ) -> None:
        (tmp_path / "token").write_text("wrong" if trouble == "token" else "secret")
        async with ScriptedReplica(control) as plane:
            gateway = Gateway(config(tmp_path, plane.port), log)
            await gateway.apply(table(1, "m", replica=replica))
            await gateway.listen()
            under_test = GatewayUnderTest(gateway)
            if trouble == "status":
                control.status = b"500 Broken"
            elif trouble == "garbage":
                control.tag, control.body = "other", b"not a table"
            elif trouble == "down":
                await plane.stop()
            following = asyncio.create_task(follow_control_plane(gateway))
            await until(lambda: "no new table" in (tmp_path / "log").read_text())

            assert (await under_test.ask()).status == 200

            (tmp_path / "token").write_text("secret")
            control.status = b"200 OK"
            control.publish(table(2, "m", replica=replica))
            if trouble == "down":
                await plane.listen()
            await until(lambda: gateway.fleet.tag == "epoch:2")
            await cancel(following)
            await under_test.close()

    def test_backs_off_to_two_seconds_and_never_in_step(self) -> None:
        assert backoff_s(50, 1.0) == 2.0
        assert backoff_s(1, 0.0) == pytest.approx(0.1)
        assert backoff_s(50, 0.0) == 1.0


def config(tmp_path: Path, control_port: int) -> Config:
    return Config(
        port=0,
        metrics_port=0,
        control_url=f"http://127.0.0.1:{control_port}",
        token_file=str(tmp_path / "token"),
        table_cache=str(tmp_path / "table.json"),
    )


async def test_series_of_hundreds_of_versions_that_are_gone_do_not_stay(
    gateway: GatewayUnderTest, replica: ScriptedReplica
) -> None:
    endpoints = (Endpoint("r", "127.0.0.1", replica.port),)
    for version in map(str, range(500)):
        await gateway.table(m=ModelRoute({version: VersionRoute(endpoints)}, {version: 1}))
        assert (await gateway.ask()).status == 200
    fleet = gateway.gateway.fleet
    assert len(_versions_shown((await gateway.admin("/metrics")).body)) == 500

    fleet.removed.update({key: at - FORGOTTEN_AFTER_S for key, at in fleet.removed.items() if key != ("m", "498")})

    # The last counts of one that left just now can still be scraped.
    assert _versions_shown((await gateway.admin("/metrics")).body) == {"498", "499"}


def _versions_shown(page: bytes) -> set[str]:
    families = text_string_to_metric_families(page.decode())
    return {sample.labels["version"] for family in families for sample in family.samples if "version" in sample.labels}
