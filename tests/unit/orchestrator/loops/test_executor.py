"""The executor's end: what is under way in the engine when it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from orchestrator.adapters.engine import Launch
from orchestrator.adapters.store import Store
from orchestrator.core.entities import VersionKey
from orchestrator.core.plan import PauseReplica, RemoveReplica, StartReplica
from orchestrator.loops.executor import Executor
from orchestrator.loops.journal import Journal
from tests.fakes.fake_engine import FakeEngine
from tests.fakes.scripted_replica import Call, ScriptedReplica
from tests.unit.orchestrator.core.builders import version


class SlowEngine(FakeEngine):
    """A start that has reached the engine stays in it until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def start(self, launch: Launch) -> None:
        self.entered.set()
        assert self.let_go.wait(20)
        super().start(launch)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    store = Store(tmp_path / "state.sqlite")
    yield Journal(store)
    store.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def test_of_the_cluster_waits_for_a_start_that_cannot_be_taken_back(
    tmp_path: Path, journal: Journal, threads: ThreadPoolExecutor
) -> None:
    """Whoever ends all replicas must know of that one too: it was left behind, and held the network of the cluster."""
    engine = SlowEngine()
    async with httpx.AsyncClient() as client:
        executor = Executor(
            engine, journal, threads, client,
            locate=lambda digest: tmp_path, secret=lambda digest: "", done=lambda: None,
        )  # fmt: skip
        executor.execute((StartReplica(version("m@1"), 1, "new"),))
        await asyncio.to_thread(engine.entered.wait, 20)

        await executor.close()
        ending = asyncio.create_task(executor.settle())
        await asyncio.sleep(0)
        assert not ending.done()
        engine.let_go.set()
        await asyncio.wait_for(ending, 20)

    assert len(engine.launched) == 1


async def pause(
    journal: Journal, threads: ThreadPoolExecutor, tmp_path: Path, answer: bytes
) -> tuple[FakeEngine, ScriptedReplica]:
    """One replica that answers so when it is told of its pause, after it was to be paused."""

    async def say(call: Call) -> None:
        await call.completed.wait()
        call.answer(b'{"inside": 2}', answer)

    engine, done = FakeEngine(), asyncio.Event()
    spec = version("m@1").spec
    engine.start(Launch("r1", spec, spec.digest(), 1, None))
    async with ScriptedReplica(say) as replica, httpx.AsyncClient() as client:
        executor = Executor(
            engine, journal, threads, client, locate=lambda digest: tmp_path, secret=lambda digest: "", done=done.set
        )  # fmt: skip
        executor.execute((PauseReplica("r1", spec.key, "drained", "127.0.0.1", replica.port),))
        async with asyncio.timeout(20):
            await done.wait()
        await executor.close()
        return engine, replica


async def test_a_replica_is_told_before_it_is_paused(
    tmp_path: Path, journal: Journal, threads: ThreadPoolExecutor
) -> None:
    engine, replica = await pause(journal, threads, tmp_path, b"200 OK")

    assert [(c.method, c.target) for c in replica.calls] == [(b"POST", b"/v2/health/pause")]
    assert [r.paused for r in engine.replicas()] == [True]


async def test_an_image_that_does_not_know_the_call_is_paused_all_the_same(
    tmp_path: Path, journal: Journal, threads: ThreadPoolExecutor
) -> None:
    engine, _ = await pause(journal, threads, tmp_path, b"404 Not Found")

    assert [r.paused for r in engine.replicas()] == [True]


async def test_a_replica_with_a_request_inside_is_not_paused(
    tmp_path: Path, journal: Journal, threads: ThreadPoolExecutor
) -> None:
    """One that came around the gateway."""
    engine, _ = await pause(journal, threads, tmp_path, b"409 Conflict")

    assert [r.paused for r in engine.replicas()] == [False]


async def test_counts_an_end_for_memory_once_and_only_when_what_is_left_of_it_is_removed(
    journal: Journal, threads: ThreadPoolExecutor
) -> None:
    """What is left of a replica outlives a control plane, and the next one finds it: each end is counted by one."""
    engine = FakeEngine()
    spec = version("iris@1").spec
    engine.start(Launch("r1", spec, spec.digest(), 1, None))
    engine.crash("r1", oom_killed=True)
    killed: list[VersionKey] = []
    removal = RemoveReplica("r1", spec.key, "out of memory", is_loss=False, oom_killed=True)

    for is_away in (True, False):  # the first control plane cannot remove it, and ends
        if is_away:
            engine.go_away()
        else:
            engine.come_back()
        async with httpx.AsyncClient() as client:
            done = asyncio.Event()
            executor = Executor(
                engine, journal, threads, client, locate=Path, secret=lambda digest: "",
                done=done.set, oom_killed=killed.append,
            )  # fmt: skip
            executor.execute((removal,))
            async with asyncio.timeout(20):
                await done.wait()
            await executor.close()

    assert killed == [spec.key]
    assert engine.replicas() == []
