"""A companion as a program, without an engine; in a container: tests/integration/test_companions_docker.py."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from orchestrator.adapters.companions.companion import Companion
from orchestrator.adapters.companions.grafana import GRAFANA, GrafanaSettings
from orchestrator.adapters.companions.kinds import CompanionFailed, Kind
from orchestrator.adapters.companions.prometheus import PROMETHEUS, PrometheusSettings
from tests.fakes import grafana


@dataclass
class Lab:
    """A Grafana's stand-in on the PATH, and what keeps it in one directory."""

    root: Path
    settings: GrafanaSettings

    def companion(self, kind: Kind = GRAFANA) -> Companion:
        """As another control plane has it."""
        return Companion(kind, self.root / kind.name, self.root / f"{kind.name}.log")


@pytest.fixture
def lab(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Lab:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(grafana.install(programs)), prepend=":")
    return Lab(tmp_path, GrafanaSettings(free_port(), "http://127.0.0.1:9090"))


def never() -> None:
    raise AssertionError("no image is awaited without an engine")


class TestAProgram:
    def test_outlives_its_control_plane_is_adopted_and_ends_with_its_data_kept(self, lab: Lab) -> None:
        started = lab.companion().start(lab.settings, never)
        assert started is not None
        adopted = lab.companion()
        try:
            assert adopted.find(lab.settings) == started
            assert adopted.find(replace(lab.settings, prometheus="http://127.0.0.1:9191")) is None
        finally:
            assert adopted.stop() is True

        assert not psutil.pid_exists(started.pid or 0) or psutil.Process(started.pid).status() == "zombie"
        assert adopted.running() is None
        assert (lab.root / "grafana" / "data" / "grafana.db").exists()
        assert stat.S_IMODE((lab.root / "grafana" / "admin_password").stat().st_mode) == 0o600
        assert adopted.stop() is False

    def test_is_started_again_with_other_settings_and_keeps_its_secrets(self, lab: Lab) -> None:
        companion = lab.companion()
        first = companion.start(lab.settings, never)
        password = (lab.root / "grafana" / "admin_password").read_text()
        stale = lab.root / "grafana" / "dashboards" / "of-an-earlier-release.json"
        stale.parent.mkdir(exist_ok=True)
        stale.write_text("{}")
        try:
            other = replace(lab.settings, prometheus="http://127.0.0.1:9191")
            second = companion.start(other, never)

            assert first is not None
            assert second is not None
            assert first.pid != second.pid
            assert companion.find(other) == second
            assert (lab.root / "grafana" / "admin_password").read_text() == password
        finally:
            companion.stop()

    def test_knows_no_secret_of_the_control_plane(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        monkeypatch.setenv("GF_AUTH_ANONYMOUS_ORG_ROLE", "Admin")
        companion = lab.companion()
        running = companion.start(lab.settings, never)
        try:
            assert running is not None
            environ = psutil.Process(running.pid).environ()
        finally:
            companion.stop()

        assert environ.keys().isdisjoint({"AWS_SECRET_ACCESS_KEY", "GF_AUTH_ANONYMOUS_ORG_ROLE"})
        assert "hush" not in environ.values()


class TestOneThatCannotRun:
    def test_says_which_program_is_missing_and_what_to_do(self, tmp_path: Path) -> None:
        kind = replace(PROMETHEUS, programs=("no-such-prometheus",))
        companion = Companion(kind, tmp_path / "prometheus", tmp_path / "log")

        with pytest.raises(CompanionFailed) as caught:
            companion.start(PrometheusSettings(9090, 3600, 2**30, "127.0.0.1:7070"), never)

        assert str(caught.value) == (
            "observability.prometheus: managed: no program 'no-such-prometheus' on the PATH; install it (`apt-get "
            "install prometheus`), name the URL of a server that runs, or write off"
        )

    def test_says_its_last_words(self, lab: Lab) -> None:
        (lab.root / "bin" / "grafana").write_text("#!/bin/sh\necho the disk is full\nexit 3\n")

        with pytest.raises(
            CompanionFailed, match=r"grafana: ended at its start with code 3: the disk is full; see .*log"
        ):
            lab.companion().start(lab.settings, never)

        assert lab.companion().running() is None

    def test_says_what_it_cannot_write(self, lab: Lab) -> None:
        (lab.root / "grafana").write_text("in the way")

        with pytest.raises(
            CompanionFailed, match=r"grafana: .*/grafana.*: .*; make it writable, or name another state"
        ):
            lab.companion().start(lab.settings, never)

    def test_says_which_port_is_taken(self, lab: Lab, free_port: Callable[[], int]) -> None:
        first = lab.companion()
        first.start(lab.settings, never)
        try:
            other = Companion(GRAFANA, lab.root / "other", lab.root / "other.log")

            with pytest.raises(
                CompanionFailed, match=f"observability.grafana_port: {lab.settings.port}: address already"
            ):
                other.start(lab.settings, never)
        finally:
            first.stop()


def test_ending_one_that_never_was_makes_nothing(tmp_path: Path) -> None:
    assert Companion(PROMETHEUS, tmp_path / "prometheus", tmp_path / "log").stop() is False
    assert list(tmp_path.iterdir()) == []
