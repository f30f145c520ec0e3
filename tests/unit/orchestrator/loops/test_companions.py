"""A companion is kept while it is wanted, and what went wrong is said once. Grafana's stand-in, and a scripted engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters.companions.companion import Companion
from orchestrator.adapters.companions.containers import Containers
from orchestrator.adapters.companions.grafana import GRAFANA, GrafanaSettings
from orchestrator.adapters.companions.prometheus import PROMETHEUS, PrometheusSettings
from orchestrator.adapters.engine import EngineUnavailable
from orchestrator.adapters.images import ImageBuilder
from orchestrator.adapters.store import Store
from orchestrator.loops.companions import PAUSE_S, WITHIN_S, CompanionKeeper, Ends
from orchestrator.loops.journal import Journal
from tests.fakes import grafana
from tests.fakes.docker_api import Answers, DockerApi


@dataclass
class Lab:
    root: Path
    store: Store
    threads: ThreadPoolExecutor
    opened: ExitStack

    def keeper(self, answers: Answers | None = None) -> CompanionKeeper:
        """Of a program, or with `answers` of a container on an engine that gives those."""
        if answers is None:
            companion = Companion(GRAFANA, self.root / "grafana", self.root / "grafana.log")
        else:
            api = self.opened.enter_context(DockerApi(answers))
            calls = DockerCalls(api.host, timeout_s=5)
            self.opened.callback(calls.close)
            builder = ImageBuilder(self.root, None, calls, {})
            (self.root / "prometheus").mkdir(exist_ok=True)
            companion = Companion(
                PROMETHEUS, self.root / "prometheus", self.root / "log", Containers("c", calls), builder
            )
        return CompanionKeeper(companion, Journal(self.store), self.threads)

    def told(self) -> list[str]:
        return [f"{event.kind}: {event.message}" for event in self.store.events(limit=100)]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(grafana.install(tmp_path / "bin")), prepend=":")
    store = Store(tmp_path / "state.sqlite")
    with ExitStack() as opened, ThreadPoolExecutor(4) as threads:
        yield Lab(tmp_path, store, threads, opened)
    store.close()


async def test_one_that_is_wanted_is_started_once_kept_started_again_and_ended(
    lab: Lab, free_port: Callable[[], int]
) -> None:
    keeper, settings = lab.keeper(), GrafanaSettings(free_port(), "http://127.0.0.1:9090")
    keeper.want(settings)
    try:
        await keeper.ensure()
        await keeper.ensure()
        assert keeper.running is not None
        first = keeper.running
        assert await keeper.answers()

        end(first.pid)
        await keeper.ensure()
        second = keeper.running
        assert second is not None
        assert second.pid != first.pid
    finally:
        keeper.want(None)
        await keeper.ensure()

    assert keeper.running is None
    assert lab.told() == [
        f"grafana_started: Grafana answers at {settings.url} (process {first.pid})",
        "grafana_ended: Grafana ended with code -9: no output",
        f"grafana_started: Grafana answers at {settings.url} (process {second.pid})",
        "grafana_stopped: Grafana ended; what it kept stays in the state directory",
    ]


async def test_what_is_wrong_is_said_once_and_tried_again(lab: Lab, free_port: Callable[[], int]) -> None:
    program = lab.root / "bin" / "grafana"
    works = program.read_text()
    program.write_text("#!/bin/sh\necho no licence\nexit 7\n")
    keeper = lab.keeper()
    keeper.want(GrafanaSettings(free_port(), "http://127.0.0.1:9090"))

    await keeper.ensure()
    await keeper.ensure()

    assert keeper.error.startswith("grafana: ended at its start with code 7: no licence; see ")
    assert lab.told() == [f"grafana_failed: {keeper.error}"]
    program.write_text(works)
    try:
        await keeper.ensure()
        assert (keeper.error, keeper.running is not None) == ("", True)
    finally:
        await keeper.stop()


async def test_what_an_engine_runs_that_does_not_answer_is_unknown(lab: Lab) -> None:
    keeper = lab.keeper({("GET", "/containers/json"): (500, {"message": "confused"})})
    keeper.want(PrometheusSettings(9090, 3600, 2**30, "127.0.0.1:7070"))

    await keeper.ensure()

    assert (keeper.error, lab.told()) == ("", [])
    with pytest.raises(EngineUnavailable, match="could not look for Prometheus: confused"):
        await keeper.stop()


async def test_a_container_is_adopted_by_its_settings_without_a_look_at_images(lab: Lab) -> None:
    settings = PrometheusSettings(9090, 3600, 2**30, "127.0.0.1:7070")
    recipe = settings.recipe(Path("/srv/modelfleet/prometheus"))
    (lab.root / "prometheus").mkdir()
    (lab.root / "prometheus" / "loaded").write_text(recipe.content())
    labels = {"modelfleet.settings": recipe.digest(PROMETHEUS)}
    listed = {"Id": "c0ffee", "Names": ["/mf-c-prometheus"], "State": "running", "Labels": labels}
    keeper = lab.keeper({("GET", "/containers/json"): (200, (listed,))})
    keeper.want(settings)

    await keeper.ensure()

    assert keeper.running is not None
    assert keeper.running.words == "container mf-c-prometheus"
    assert lab.told() == []


async def test_one_that_ends_again_and_again_has_a_pause_and_says_why(lab: Lab, free_port: Callable[[], int]) -> None:
    keeper, settings = lab.keeper(), GrafanaSettings(free_port(), "http://127.0.0.1:9090")
    keeper.want(settings)
    try:
        for _ in range(3):
            await keeper.ensure()
            assert keeper.running is not None
            end(keeper.running.pid)
        await keeper.ensure()
        await keeper.ensure()

        assert keeper.running is None
        assert keeper.error == (
            "grafana: ended 3 times within 10 minutes, last with code -9: no output; it is started again 2 minutes after "
            "that"
        )
        assert [told.partition(":")[0] for told in lab.told()] == [
            *["grafana_started", "grafana_ended"] * 3, "grafana_failed",
        ]  # fmt: skip
        # Whoever changes its settings means to mend it.
        keeper.want(GrafanaSettings(settings.port, "http://127.0.0.1:9191"))
        await keeper.ensure()
        assert keeper.running is not None
    finally:
        await keeper.stop()


class TestEnds:
    def test_that_are_few_or_long_ago_take_no_pause(self) -> None:
        ends = Ends()
        for at in (0.0, 1.0, 2.0 + WITHIN_S):
            ends.note("out of memory", at)

        assert not ends.has_pause(2.0 + WITHIN_S)

    def test_that_are_many_take_one_that_passes(self) -> None:
        ends = Ends()
        for at in (0.0, 1.0, 2.0):
            ends.note("out of memory", at)

        assert ends.has_pause(1.0 + PAUSE_S)
        assert not ends.has_pause(2.0 + PAUSE_S)


def end(pid: int | None) -> None:
    """Kills it, and returns when it has ended."""
    process = psutil.Process(pid)
    process.kill()
    deadline = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
