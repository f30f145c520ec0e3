"""What can be said of a managed Prometheus without one; the rest is in tests/integration/test_observability.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.prometheus_server import PrometheusFailed, PrometheusProcess, Settings

SETTINGS = Settings(port=9090, retention_s=3600, max_disk_bytes=2**30)


def server(root: Path, program: str = "no-such-prometheus") -> PrometheusProcess:
    return PrometheusProcess(root / "prometheus", "http://127.0.0.1:7171", root / "log", program)


def test_a_program_that_is_missing_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PrometheusFailed) as caught:
        server(tmp_path).start(SETTINGS)

    assert str(caught.value) == (
        "observability.prometheus: no program 'no-such-prometheus' on the PATH; `managed` runs it; install it "
        "(`apt-get install prometheus`), name the URL of a server that runs, or write off"
    )


def test_one_that_ends_at_its_start_is_said_with_its_last_words(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with pytest.raises(PrometheusFailed, match=r"prometheus: ended at its start with code 1: no output; see .*log"):
        server(tmp_path, "false").start(replace(SETTINGS, port=free_port()))

    assert not (tmp_path / "prometheus" / "process.json").exists()


def test_the_configuration_asks_this_control_plane_and_brings_the_rules(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with pytest.raises(PrometheusFailed):
        server(tmp_path, "false").start(replace(SETTINGS, port=free_port()))

    made = tmp_path / "prometheus"
    text = (made / "prometheus.yml").read_text()
    assert text.count("http://127.0.0.1:7171/prometheus/targets?role=") == 3
    assert "7070" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
    assert sorted(path.name for path in (made / "rules").iterdir()) == ["alerts.yml", "requests.yml"]


def test_ending_one_that_never_was_makes_nothing(tmp_path: Path) -> None:
    assert server(tmp_path).stop() is False
    assert list(tmp_path.iterdir()) == []
