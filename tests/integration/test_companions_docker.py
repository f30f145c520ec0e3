"""Prometheus and Grafana in containers of a real engine: confined, kept, adopted, replaced, and removed with data kept.

The image of Prometheus is that of Debian's package, made by the product's own code once for all runs (it is named by its
content). No Grafana can be had here: tests/fakes/grafana.py stands in for its image, with the variables of the real one.
"""

from __future__ import annotations

import dataclasses
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import psutil
import pytest
import yaml

from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters.companions.companion import Companion
from orchestrator.adapters.companions.containers import Containers
from orchestrator.adapters.companions.grafana import GRAFANA, GrafanaSettings
from orchestrator.adapters.companions.kinds import CompanionFailed, Kind, shipped
from orchestrator.adapters.companions.prometheus import PROMETHEUS, PrometheusSettings
from orchestrator.adapters.engine import EngineUnavailable
from orchestrator.adapters.images import ImageBuilder
from tests.fakes import grafana
from tests.integration.cluster import Cluster, fleet, pick_port, until
from tests.integration.test_observability import ask, pid_of_prometheus

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

GRAFANA_IMAGE = """
FROM {base}
ENV GF_PATHS_CONFIG=/etc/grafana/grafana.ini GF_PATHS_DATA=/var/lib/grafana GF_PATHS_HOME=/usr/share/grafana \\
    GF_PATHS_LOGS=/var/log/grafana GF_PATHS_PLUGINS=/var/lib/grafana/plugins GF_PATHS_PROVISIONING=/etc/provisioning
USER root
COPY yaml /opt/yaml
COPY grafana.py /opt/grafana.py
RUN printf '#!/bin/sh\\nPYTHONPATH=/opt exec python3 -B /opt/grafana.py "$@"\\n' > /usr/bin/grafana \\
    && chmod 755 /usr/bin/grafana
USER 472
"""


@pytest.fixture(scope="module")
def prometheus_image(image_builder: ImageBuilder) -> str:
    """Debian's, on the base of the worker images."""
    return image_builder.ensure_on_base("prometheus", shipped(PROMETHEUS.dockerfile).read_text(), print)


@pytest.fixture(scope="module")
def grafana_image(docker_client: docker.DockerClient, python_image: str) -> str:
    """The stand-in, on the worker image, which has a Python."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        dockerfile = GRAFANA_IMAGE.format(base=python_image).encode() + b"ENTRYPOINT []\nWORKDIR /\n"
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(dockerfile)
        tar.addfile(member, io.BytesIO(dockerfile))
        tar.add(Path(yaml.__file__).parent, "yaml", filter=lambda m: None if m.name.endswith((".so", ".pyc")) else m)
        tar.add(grafana.__file__, "grafana.py")
    context.seek(0)
    tag = "modelfleet-test/grafana:1"
    docker_client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True)
    return tag


@dataclasses.dataclass
class Lab:
    """The companions of a cluster that has nothing else."""

    root: Path
    cluster: str
    calls: DockerCalls
    builder: ImageBuilder
    client: docker.DockerClient
    port: int

    def companion(self, kind: Kind = PROMETHEUS) -> Companion:
        """As another control plane has it."""
        containers = Containers(self.cluster, self.calls)
        return Companion(kind, self.root / kind.name, self.root / f"{kind.name}.log", containers, self.builder)

    @property
    def settings(self) -> PrometheusSettings:
        return PrometheusSettings(self.port, 3600, 2**30, "127.0.0.1:9")

    def containers(self) -> list[Any]:
        label = f"modelfleet.cluster={self.cluster}"
        return list(self.client.containers.list(all=True, filters={"label": label}))


@pytest.fixture
def lab(
    tmp_path: Path,
    cluster: str,
    docker_client: docker.DockerClient,
    image_builder: ImageBuilder,
    free_port: Callable[[], int],
) -> Iterator[Lab]:
    calls = DockerCalls()
    found = Lab(tmp_path, cluster, calls, image_builder, docker_client, free_port())
    yield found
    for container in found.containers():
        container.remove(force=True)
    calls.close()


def never() -> None:
    raise AssertionError("the image is there")


class TestInACluster:
    """One story, for each start costs seconds."""

    def test_a_prometheus_scrapes_all_outlives_the_control_plane_and_is_adopted_replaced_and_removed(
        self, tmp_path: Path, cluster: str, docker_client: docker.DockerClient, prometheus_image: str, python_image: str
    ) -> None:
        shared = Cluster(tmp_path, cluster, pick_port, "docker")
        shared.start()
        try:
            shared.write_model("iris")
            port = pick_port()
            shared.apply(manifest(port))
            name = until("it runs", lambda: container_of(shared), 120)
            assert name == f"mf-{cluster}-prometheus"
            container = docker_client.containers.get(name)
            assert container.attrs["Config"]["Image"] == prometheus_image
            assert pid_of_prometheus(shared) is None

            roles = until("it scrapes all three", lambda: _roles_up(port, 3), 60)
            assert roles == {"control_plane", "gateway", "replica"}
            # No replica, though it has the cluster's label.
            assert len(shared.version("iris")["replicas"]) == 1
            assert shared.get("/status")["state"] == "converged"
            (check,) = [each for each in shared.get("/doctor") if each["name"] == "prometheus"]
            assert check["ok"], check
            assert check["detail"] == f"container {name} at http://127.0.0.1:{port}"

            shared.kill()
            shared.api_port = pick_port()
            assert ask(port, "up") != []
            shared.start()
            assert until("it is adopted", lambda: container_of(shared), 60) == name
            address = shared.url.removeprefix("http://")
            until("the new control plane is found", lambda: ask(port, f'up{{instance="{address}"}} == 1'), 60)
            assert docker_client.containers.get(name).id == container.id

            shared.apply(manifest(port, retention="48h"))
            until("it runs with other settings", lambda: id_of(docker_client, name) not in ("", container.id), 120)
            assert "--storage.tsdb.retention.time=172800s" in docker_client.containers.get(name).attrs["Args"]

            shared.apply(fleet(iris="iris"))
            until("it ended", lambda: not id_of(docker_client, name), 60)
            kept = shared.state_dir / "prometheus" / "data"
            assert (kept / "wal").is_dir()

            shared.apply(manifest(port))
            until("it runs again", lambda: container_of(shared), 120)
            old = until("it knows what was", lambda: ask(port, f'last_over_time(up{{instance="{address}"}}[30m])'), 60)
            assert old
            shared.down()
            assert shared.containers() == []
            assert (kept / "wal").is_dir()
        finally:
            shared.close()


def manifest(port: int, **settings: Any) -> dict[str, Any]:
    observability = {"prometheus": "managed", "prometheus_port": port, **settings}
    return {**fleet(iris="iris"), "observability": observability}


def container_of(cluster: Cluster) -> str:
    return str(cluster.get("/status")["prometheus"]["container"])


def id_of(client: docker.DockerClient, name: str) -> str:
    """ "" for one that is not there."""
    try:
        return str(client.containers.get(name).id)
    except docker.errors.NotFound:
        return ""


def _roles_up(port: int, count: int) -> set[str] | None:
    found = {sample["metric"]["role"] for sample in ask(port, "up == 1")}
    return found if len(found) == count else None


@pytest.mark.usefixtures("prometheus_image")
class TestAContainer:
    def test_may_do_nothing_but_what_it_is_for(self, lab: Lab) -> None:
        lab.companion().start(lab.settings, never)

        (container,) = lab.containers()
        pid = container.attrs["State"]["Pid"]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
        listening = [c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        limits = container.attrs["HostConfig"]
        assert (limits["Memory"], limits["MemorySwap"]) == (PROMETHEUS.memory_bytes, PROMETHEUS.memory_bytes)
        assert limits["PidsLimit"] == 512
        for place in ("/root-is-read-only", "/srv/modelfleet/prometheus/configuration-is-read-only"):
            code, said = container.exec_run(["touch", place])
            assert code != 0
            assert b"Read-only file system" in said or b"Permission denied" in said, said
        # Nobody else of this machine gets at what it keeps: the state directory above is its owner's alone.
        assert (lab.root / "prometheus").stat().st_mode & 0o077 == 0

    def test_that_the_engine_shows_is_found_by_its_settings(self, lab: Lab) -> None:
        started = lab.companion().start(lab.settings, never)
        adopting = lab.companion()

        assert adopting.find(lab.settings) == started
        assert adopting.find(dataclasses.replace(lab.settings, retention_s=7200)) is None
        # Another address of the control plane takes no other start: it reads its files again.
        moved = dataclasses.replace(lab.settings, control="127.0.0.1:10")
        assert adopting.find(moved) is None
        assert adopting.start(moved, never) == started
        assert adopting.find(moved) == started
        until("it read them", lambda: "127.0.0.1:10/" in _configuration(lab.port))

        assert adopting.stop() is True
        assert lab.containers() == []
        assert adopting.stop() is False

    def test_that_was_killed_is_started_anew(self, lab: Lab) -> None:
        companion = lab.companion()
        companion.start(lab.settings, never)
        (killed,) = lab.containers()
        killed.kill()
        killed.wait()

        assert companion.find(lab.settings) is None
        assert companion.how_it_ended().startswith("with code 137: ")
        again = companion.start(lab.settings, never)

        assert again is not None
        assert [c.id for c in lab.containers()] == [again.id] != [killed.id]

    def test_leaves_a_stranger_its_name(self, lab: Lab, prometheus_image: str) -> None:
        name = f"mf-{lab.cluster}-prometheus"
        stranger = lab.client.containers.create(prometheus_image, name=name)
        try:
            running = lab.companion().start(lab.settings, never)
            assert running is not None
            assert running.container.startswith(f"{name}-")

            lab.companion().stop()

            assert lab.containers() == []
            assert lab.client.containers.get(name).id == stranger.id
        finally:
            stranger.remove()

    def test_whose_port_is_taken_says_so(self, lab: Lab) -> None:
        with (
            socket.create_server(("127.0.0.1", lab.port)),
            pytest.raises(CompanionFailed, match=f"observability.prometheus_port: {lab.port}: address already in use"),
        ):
            lab.companion().start(lab.settings, never)

        assert lab.containers() == []

    def test_that_cannot_write_its_data_says_its_last_words_and_is_removed(self, lab: Lab) -> None:
        data = lab.root / "prometheus" / "data"
        data.mkdir(parents=True)
        (data / "wal").write_text("no directory")

        said = r"prometheus: ended at its start with code 1: .*not a directory.*; see .*/prometheus.log"
        with pytest.raises(CompanionFailed, match=said):
            lab.companion().start(lab.settings, never)

        assert "not a directory" in (lab.root / "prometheus.log").read_text()
        assert lab.containers() == []


def _configuration(port: int) -> str:
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/status/config", trust_env=False)
    return str(answer.json()["data"]["yaml"])


class TestAnImageThatCannotBeHad:
    def test_is_tried_once_in_a_thread_of_its_own_and_then_said_with_every_reason(self, lab: Lab) -> None:
        kind = dataclasses.replace(
            PROMETHEUS, image="127.0.0.1:9/prometheus:1", dockerfile="", programs=("no-such-prometheus",)
        )
        companion, came = lab.companion(kind), threading.Event()

        assert companion.start(lab.settings, came.set) is None
        assert came.wait(60)
        with pytest.raises(CompanionFailed) as caught:
            companion.start(lab.settings, never)

        said = str(caught.value)
        assert said.startswith(
            "observability.prometheus: managed: image 127.0.0.1:9/prometheus:1: not here and pull failed: "
        )
        assert said.endswith(
            "; no program 'no-such-prometheus' on the PATH; install it (`apt-get install prometheus`), name the URL of "
            "a server that runs, or write off"
        )
        assert companion.doing == ""

    def test_gives_way_to_the_program_of_the_path(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        (lab.root / "bin").mkdir()
        monkeypatch.setenv("PATH", str(grafana.install(lab.root / "bin")), prepend=":")
        companion = lab.companion(dataclasses.replace(GRAFANA, image="127.0.0.1:9/grafana:1"))
        settings, came = GrafanaSettings(lab.port, "http://127.0.0.1:9090"), threading.Event()

        assert companion.start(settings, came.set) is None
        assert came.wait(60)
        running = companion.start(settings, never)
        try:
            assert running is not None
            assert running.pid is not None
            assert companion.problem.startswith("image 127.0.0.1:9/grafana:1: not here and pull failed: ")
            assert companion.find(settings) == running
        finally:
            assert companion.stop() is True

    def test_holds_up_neither_a_start_nor_an_end(self, lab: Lab) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            image = f"127.0.0.1:{silent.getsockname()[1]}/prometheus:1"
            companion = lab.companion(dataclasses.replace(PROMETHEUS, image=image, dockerfile=""))
            began = time.monotonic()

            assert companion.start(lab.settings, lambda: None) is None
            until("it is being pulled", lambda: companion.doing == f"pulling {image}", 5)
            assert companion.start(lab.settings, never) is None
            assert companion.stop() is False

        assert time.monotonic() - began < 20

    def test_of_a_registry_that_is_silent_is_given_up_in_time(self, lab: Lab) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            image = f"127.0.0.1:{silent.getsockname()[1]}/prometheus:1"
            began = time.monotonic()

            with pytest.raises(EngineUnavailable, match="no answer"), lab.calls.during("pull"):
                lab.calls.pull(image, silence_s=1.0)

        assert time.monotonic() - began < 20


class TestAGrafana:
    def test_in_a_container_reads_what_was_made_for_it_and_no_setting_of_its_image(
        self, lab: Lab, grafana_image: str
    ) -> None:
        kind = dataclasses.replace(
            GRAFANA, image=grafana_image, entrypoint=("grafana", "server", "--homepath=/usr/share/grafana")
        )
        settings = GrafanaSettings(lab.port, "http://127.0.0.1:9090")

        running = lab.companion(kind).start(settings, never)

        seen = httpx.get(f"{settings.url}/seen", trust_env=False).json()
        assert running is not None
        assert seen["settings"]["paths"]["data"] == "/srv/modelfleet/grafana/data"
        assert [source["url"] for source in seen["datasources"]] == ["http://127.0.0.1:9090"]
        password = (lab.root / "grafana" / "admin_password").read_text()
        assert seen["settings"]["security"]["admin_password"] == password
        assert (lab.root / "grafana" / "data" / "grafana.db").read_text() == password
        assert seen["modes"]["admin_password"] == 0o600
        told = [*seen["arguments"], *seen["environment"].values()]
        assert [word for word in told if password in word] == []
        inspected = lab.client.containers.get(running.id).attrs
        assert password not in str(inspected)
