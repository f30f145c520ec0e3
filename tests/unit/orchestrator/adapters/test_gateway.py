"""The gateway's process as the control plane keeps it: started once, found again, replaced without a gap, ended whole."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.adapters.gateway import GatewayFailed, GatewayProcess, Listener, bind_problem, make_table
from orchestrator.adapters.state_dir import StateDir
from orchestrator.config import Config
from orchestrator.loops.prepare import listener_of
from orchestrator.manifest import Manifest


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    found = StateDir(tmp_path / "state")
    found.open()
    return found


@pytest.fixture
def process(state: StateDir) -> Iterator[GatewayProcess]:
    found = _process(state)
    yield found
    found.stop()


@pytest.fixture
def listener(tmp_path: Path, free_port: Callable[[], int]) -> Listener:
    config = Config(tmp_path, gateway_port=free_port(), metrics_port=free_port())
    return listener_of(Manifest(models={}), config)


def _process(state: StateDir) -> GatewayProcess:
    return GatewayProcess(state.gateway, "http://127.0.0.1:9", state.token_file, state.logs / "gateway.log")


class TestLife:
    def test_it_is_found_again_by_a_new_control_plane(
        self, process: GatewayProcess, state: StateDir, listener: Listener
    ) -> None:
        pid = process.start(listener)

        assert _process(state).find(listener) == pid
        assert process.find(replace(listener, port=1)) is None

    def test_another_listener_gets_a_process_of_its_own_and_the_first_ends(
        self, process: GatewayProcess, listener: Listener, free_port: Callable[[], int]
    ) -> None:
        first = process.start(listener)
        moved = replace(listener, port=free_port(), metrics_port=free_port())

        second = process.start(moved)

        psutil.wait_procs([p for p in psutil.process_iter() if p.pid == first], 10)
        process.reap()
        assert process.find(moved) == second
        assert not psutil.pid_exists(first)

    def test_a_stop_ends_one_that_is_on_no_record(
        self, process: GatewayProcess, state: StateDir, listener: Listener
    ) -> None:
        pid = process.start(listener)
        (state.gateway / "process.json").unlink()

        process.stop()

        assert not psutil.pid_exists(pid)

    def test_a_stop_without_a_gateway_is_fine(self, process: GatewayProcess) -> None:
        process.stop()

    @pytest.mark.parametrize("field", ["port", "metrics_port"])
    def test_a_port_of_somebody_else_is_told_by_its_field(
        self, process: GatewayProcess, listener: Listener, field: str
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", getattr(listener, field)))
            taken.listen()

            with pytest.raises(GatewayFailed, match=f"gateway.{field}: .*address already in use"):
                process.start(listener)

    def test_a_record_of_a_process_id_that_is_somebody_elses_now_is_not_believed(
        self, process: GatewayProcess, state: StateDir, listener: Listener
    ) -> None:
        process.start(listener)
        record = (state.gateway / "process.json").read_text()
        process.stop()

        (state.gateway / "process.json").write_text(record)

        assert process.find(listener) is None


class TestBindProblem:
    def test_a_free_port_has_none(self, free_port: Callable[[], int]) -> None:
        assert bind_problem("127.0.0.1", free_port()) == ""

    def test_an_address_of_another_machine_is_told(self) -> None:
        assert "cannot assign" in bind_problem("192.0.2.1", 8080)


def test_a_table_of_nothing_has_its_number_and_cluster() -> None:
    table = make_table(epoch="e", revision=3, cluster="demo", routed={}, replicas={})

    assert (table.epoch, table.revision, table.cluster, dict(table.models)) == ("e", 3, "demo", {})
