"""The gateway's process as the control plane keeps it: started once, found again, replaced without a gap, ended whole."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from orchestrator.adapters.gateway import GatewayFailed, GatewayProcess, Listener, bind_problem, make_table
from orchestrator.adapters.state_dir import StateDir
from orchestrator.config import Config
from orchestrator.core.entities import ModelSettings, RateLimit, RouteSettings, Shadow
from orchestrator.core.plan import RoutedModel, RoutedVersion
from orchestrator.loops.prepare import listener_of
from orchestrator.manifest import Manifest, load
from router import contract
from router.config import Config as GatewayConfig
from router.config import Tls


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
    config = Config(tmp_path, gateway_port=free_port(), grpc_port=free_port(), metrics_port=free_port())
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

    def test_its_ports_are_known_whatever_is_wanted_of_it_now(
        self, process: GatewayProcess, state: StateDir, listener: Listener
    ) -> None:
        before = process.ports()
        process.start(listener)

        assert before == {}
        assert _process(state).ports() == {name: port for name, _, port in listener.ports}

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

    def test_other_settings_are_taken_over_by_the_process_that_runs(
        self, process: GatewayProcess, state: StateDir, listener: Listener
    ) -> None:
        pid = process.start(listener)
        changed = replace(listener, limits={**listener.limits, "fields": 50}, processes=2)

        assert process.start(changed) == pid

        assert _process(state).find(changed) == pid
        assert process.find(listener) is None
        report = httpx.get(f"{listener.metrics_url}/report", trust_env=False).json()
        assert (report["pid"], report["generation"]) == (pid, 2)

    def test_settings_that_it_cannot_take_over_leave_it_as_it_was(
        self, process: GatewayProcess, state: StateDir, listener: Listener
    ) -> None:
        pid = process.start(listener)
        tls = {"certificate": str(state.gateway / "none.pem"), "key": str(state.gateway / "none.key")}

        with pytest.raises(GatewayFailed, match="it goes on with those before"):
            process.start(replace(listener, tls=tls))

        assert process.find(listener) == process.running(listener.metrics_port) == pid
        assert process.start(replace(listener, processes=2)) == pid

    def test_a_stop_ends_one_that_is_on_no_record(
        self, process: GatewayProcess, state: StateDir, listener: Listener
    ) -> None:
        pid = process.start(listener)
        (state.gateway / "process.json").unlink()

        process.stop()

        assert not psutil.pid_exists(pid)

    def test_a_stop_without_a_gateway_is_fine(self, process: GatewayProcess) -> None:
        process.stop()

    @pytest.mark.parametrize("field", ["port", "grpc_port", "metrics_port"])
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


MANIFEST = """
gateway:
  processes: auto
  auth: required
  tls: {certificate: tls/server.pem, key: /etc/tls/server.key}
  access_log: {share: 0.25}
  limits: {connections_per_address: 7, write_timeout_s: 3, held_bytes: 2Mi}
models: {}
"""


class TestListener:
    def test_of_a_manifest_is_what_a_gateway_reads(self, state: StateDir, tmp_path: Path) -> None:
        manifest = load(MANIFEST, file="models.yaml", base_dir=tmp_path)

        config = msgspec.convert(_process(state)._config(listener_of(manifest, Config(tmp_path))), GatewayConfig)

        assert (config.processes, config.auth, config.access_log_share) == (0, "required", 0.25)
        assert config.tls == Tls(f"{tmp_path}/tls/server.pem", "/etc/tls/server.key")
        assert config.access_log == str(state.logs / "access.log")
        assert (config.limits.connections_per_address, config.limits.write_timeout_s) == (7, 3.0)
        assert config.limits.held_bytes == 2 << 20

    def test_without_tls_and_access_log_has_neither(self, state: StateDir, listener: Listener) -> None:
        config = msgspec.convert(_process(state)._config(listener), GatewayConfig)

        assert (config.tls, config.access_log, config.auth, config.processes) == (None, "", "off", 1)

    def test_says_every_setting_by_its_name_in_the_manifest(self, tmp_path: Path) -> None:
        plain = listener_of(load("models: {}", file="models.yaml", base_dir=tmp_path), Config(tmp_path)).facts()

        facts = listener_of(load(MANIFEST, file="models.yaml", base_dir=tmp_path), Config(tmp_path)).facts()

        assert {name: value for name, value in facts.items() if plain[name] != value} == {
            "processes": "auto",
            "auth": "required",
            "tls.certificate": f"{tmp_path}/tls/server.pem",
            "tls.key": "/etc/tls/server.key",
            "access_log": "25% of the requests",
            "limits.connections_per_address": "7",
            "limits.write_timeout_s": "3",
            "limits.held_bytes": "2097152",
        }

    @pytest.mark.parametrize(
        ("host", "tls", "url"),
        [("0.0.0.0", {}, "http://127.0.0.1:8443"), ("::1", {}, "http://[::1]:8443"),
         ("models.example", {"certificate": "a", "key": "b"}, "https://models.example:8443")],
    )  # fmt: skip
    def test_has_a_url_that_clients_can_use(self, host: str, tls: dict[str, str], url: str) -> None:
        assert Listener(host, 8443, 8082, {}, tls=tls).url == url


def test_a_table_carries_every_setting_of_versions_and_models() -> None:
    settings = RouteSettings(
        retry_on=("503",), retry_max=1, retry_budget=0.5, eject=False, balance="least", websocket=True
    )
    of_model = ModelSettings("cookie:session", Shadow("2", 10.0, 5, 0.01, 3), RateLimit(50.0, 60))
    versions = {"1": RoutedVersion(settings), "2": RoutedVersion(RouteSettings())}
    routed = {"iris": RoutedModel(versions, {"1": 100}, {}, of_model)}

    table = make_table(epoch="e", revision=1, cluster="demo", routed=routed, replicas={})

    contract.check(table)
    model = contract.decode(contract.encode(table)).models["iris"]
    assert {name: getattr(model.versions["1"], name) for name in RouteSettings.__slots__} == asdict(settings)
    assert model.sticky == "cookie:session"
    assert model.shadow == contract.Shadow("2", 10.0, 5, 0.01, 3)
    assert model.rate_limit == contract.RateLimit(50.0, 60)


def test_a_table_of_nothing_has_its_number_and_cluster() -> None:
    table = make_table(epoch="e", revision=3, cluster="demo", routed={}, replicas={})

    assert (table.epoch, table.revision, table.cluster, dict(table.models)) == ("e", 3, "demo", {})
