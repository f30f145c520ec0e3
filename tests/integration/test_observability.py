"""What there is to scrape, and the Prometheus that does: real control plane, gateway and model servers (processes)."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes import grafana
from tests.integration.cluster import Cluster, fleet, pick_port, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module: a model that is awake, and one that sleeps with a replica in standby."""
    found = Cluster(tmp_path_factory.mktemp("observed"), f"test-{secrets.token_hex(4)}", pick_port)
    try:
        programs = found.root / "programs"
        programs.mkdir()
        found.environ["PATH"] = f"{grafana.install(programs)}:{os.environ['PATH']}"
        found.start()
        found.write_model("iris")
        found.write_model("sleepy")
        found.apply(manifest())
        until("one is in standby", lambda: [r["state"] for r in found.version("sleepy")["replicas"]] == ["standby"], 40)
        yield found
    finally:
        found.close()


def manifest(**sections: Any) -> dict[str, Any]:
    scaling = {"min": 0, "max": 1, "standby": 1, "idle_after": "1s"}
    iris = {"versions": {"1": {"source": "iris"}}, "slo": {"latency_ms": 250, "percentile": 99}}
    sleepy = {"versions": {"1": {"source": "sleepy"}}, "scaling": scaling, "queue": {"timeout_ms": 30_000}}
    return {**fleet(iris=iris, sleepy=sleepy), **sections}


MET = "instance_model_version:modelfleet_slo_met:total > 0"


def targets(cluster: Cluster, role: str = "") -> list[dict[str, Any]]:
    """As Prometheus asks: without a token."""
    answer = httpx.get(f"{cluster.url}/prometheus/targets", params={"role": role} if role else {}, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: list[dict[str, Any]] = answer.json()
    return found


class TestTargets:
    def test_are_the_control_plane_the_gateway_and_the_replicas_that_are_awake(self, shared: Cluster) -> None:
        (replica,) = shared.version("iris")["replicas"]
        labels = {"cluster": shared.name}

        found = targets(shared)

        assert [group["labels"] for group in found] == [
            {**labels, "role": "control_plane"},
            {**labels, "role": "gateway"},
            {**labels, "role": "replica", "model": "iris", "version": "1", "replica": replica["id"]},
        ]
        assert [r["state"] for r in shared.version("sleepy")["replicas"]] == ["standby"]

    def test_each_answer_with_metrics(self, shared: Cluster) -> None:
        says = {
            "control_plane": 'modelfleet_slo_bucket{le="0.25",model="iris",version="1"} 1.0',
            "gateway": "modelfleet_gateway_info",
            "replica": "modelfleet_server_inflight",
        }
        for role, line in says.items():
            (group,) = targets(shared, role)
            (address,) = group["targets"]

            page = httpx.get(f"http://{address}/metrics", trust_env=False).text

            assert line in page

    def test_of_a_role_that_there_is_not_are_refused_with_the_roles(self, shared: Cluster) -> None:
        answer = httpx.get(f"{shared.url}/prometheus/targets", params={"role": "worker"}, trust_env=False)

        assert answer.status_code == 422
        assert "'gateway', 'replica' or 'control_plane'" in answer.json()["error"]


def managed(port: int, **settings: Any) -> dict[str, Any]:
    return manifest(observability={"prometheus": "managed", "prometheus_port": port, **settings})


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """[] while nobody answers."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, trust_env=False)
    except httpx.HTTPError:
        return []
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def pid_of_prometheus(cluster: Cluster) -> int | None:
    found: int | None = cluster.get("/status")["prometheus"]["pid"]
    return found


@pytest.mark.prometheus
class TestAManagedPrometheus:
    """One story, for each start costs seconds."""

    def test_finds_all_by_itself_feeds_the_autoscaler_outlives_the_control_plane_and_ends_with_the_manifest(
        self, shared: Cluster
    ) -> None:
        port = pick_port()
        shared.apply(managed(port))
        pid = until("it runs", lambda: pid_of_prometheus(shared), 40)

        roles = until("it scrapes all three", lambda: _roles_up(port, 3), 40)
        assert roles == {"control_plane", "gateway", "replica"}
        assert shared.get("/status")["prometheus"] == {
            "mode": "managed", "url": f"http://127.0.0.1:{port}", "pid": pid, "container": "", "note": "", "error": "",
        }  # fmt: skip
        until("the autoscaler reads it", lambda: _reads_prometheus(shared), 20)
        assert ask(port, '{__name__=~".+", exported_cluster!=""} or {__name__=~".+", exported_model!=""}') == []
        # The gateway's bucket and the control plane's objective meet: this is what every burn rate rests on.
        shared.predict("iris")
        met = until("a rule counts what met the objective", lambda: ask(port, MET), 40)
        assert [sample["metric"]["model"] for sample in met] == ["iris"]
        assert ask(port, 'ALERTS{alertstate="firing"}') == []
        (check,) = [each for each in shared.get("/doctor") if each["name"] == "prometheus"]
        assert check["ok"], check

        shared.kill()
        assert psutil.pid_exists(pid)
        shared.api_port = pick_port()
        shared.start()
        assert until("it is adopted", lambda: pid_of_prometheus(shared), 20) == pid
        address = shared.url.removeprefix("http://")
        until("the new control plane is found", lambda: ask(port, f'up{{instance="{address}"}} == 1'), 40)

        shared.apply(managed(port, retention="48h"))
        other = until("it runs with other settings", lambda: _another(shared, pid), 40)
        (command,) = [psutil.Process(other).cmdline()]
        assert "--storage.tsdb.retention.time=172800s" in command
        assert f"--web.listen-address=127.0.0.1:{port}" in command

        shared.apply(manifest())
        until("it ended", lambda: not psutil.pid_exists(other), 20)
        assert shared.get("/status")["prometheus"]["mode"] == "off"
        kinds = [event["kind"] for event in shared.get("/events", limit=1000) if "prometheus" in event["kind"]]
        assert kinds == ["prometheus_started", "prometheus_started", "prometheus_stopped"]

    def test_that_finds_its_port_taken_says_so_and_stops_nothing(self, shared: Cluster) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            shared.apply(managed(port))

            error = until("it is said", lambda: shared.get("/status")["prometheus"]["error"], 20)
            assert error.startswith(f"observability.prometheus_port: {port}: address already in use; it must be free")
            assert shared.predict("iris") == 1.0
        until("it is tried again", lambda: pid_of_prometheus(shared), 40)
        # `Cluster.close` of the fixture fails if `down` leaves it behind.


class TestAManagedGrafana:
    """The program is a stand-in, tests/fakes/grafana.py: there is none to be had here."""

    def test_shows_a_prometheus_of_ones_own_is_adopted_and_ends_with_the_manifest(self, shared: Cluster) -> None:
        port = pick_port()
        asked = {"prometheus": "http://anna:hush@127.0.0.1:9", "grafana": "managed", "grafana_port": port}

        shared.apply(manifest(observability=asked))

        pid = until("it runs", lambda: shared.get("/status")["grafana"]["pid"], 40)
        status = shared.get("/status")
        assert status["grafana"]["url"] == f"http://127.0.0.1:{port}"
        assert "hush" not in str(status)
        seen = httpx.get(f"http://127.0.0.1:{port}/seen", trust_env=False).json()
        (source,) = seen["datasources"]
        assert (source["url"], source["basicAuthUser"]) == ("http://127.0.0.1:9", "anna")
        assert {(each["folder"], each["uid"]) for each in seen["dashboards"]} == {
            ("Modelfleet", f"modelfleet-{name}") for name in ("fleet", "model", "gateway", "control-plane")
        }
        assert seen["settings"]["dashboards"]["default_home_dashboard_path"].endswith("/dashboards/fleet.json")
        (check,) = [each for each in shared.get("/doctor") if each["name"] == "grafana"]
        assert check["ok"], check

        shared.kill()
        shared.api_port = pick_port()
        shared.start()
        assert until("it is adopted", lambda: shared.get("/status")["grafana"]["pid"], 40) == pid

        shared.apply(manifest())
        until("it ended", lambda: not psutil.pid_exists(pid), 40)
        assert shared.get("/status")["grafana"]["mode"] == "off"
        kinds = [event["kind"] for event in shared.get("/events", limit=1000) if "grafana" in event["kind"]]
        assert kinds == ["grafana_started", "grafana_stopped"]

    def test_without_numbers_to_show_is_refused_with_what_to_write(self, shared: Cluster) -> None:
        answer = shared.api("POST", "/plan", json=shared.request(manifest(observability={"grafana": "managed"})))

        assert answer.status_code == 422
        assert "needs numbers to show; write `prometheus: managed` beside it" in answer.text


def _roles_up(port: int, count: int) -> set[str] | None:
    found = {sample["metric"]["role"] for sample in ask(port, "up == 1")}
    return found if len(found) == count else None


def _reads_prometheus(cluster: Cluster) -> bool:
    sources = cluster.get("/status")["signals"]["sources"]
    return any(source["name"] == "prometheus" and not source["trouble"] for source in sources)


def _another(cluster: Cluster, pid: int) -> int | None:
    found = pid_of_prometheus(cluster)
    return found if found != pid else None
