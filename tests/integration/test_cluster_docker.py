"""A whole cluster on a real Docker Engine: what local processes cannot show (containers, their network, their end)."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until
from tests.integration.scaled import SLOW, decisions, newest, ready, scaled_model, used_to
from tests.integration.streams import streaming

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, python_image: str) -> Iterator[Cluster]:
    """One cluster for the module; the worker image is there before, so that no test waits for its build."""
    assert python_image
    found = Cluster(tmp_path_factory.mktemp("docker"), f"test-{secrets.token_hex(4)}", pick_port, "docker")
    found.start()
    try:
        yield found
    finally:
        found.close()


class TestDocker:
    def test_a_changed_source_is_replaced_without_a_failed_request(self, shared: Cluster) -> None:
        shared.write_model("m", 1.0)
        shared.apply(fleet(m="m"))
        assert shared.predict("m") == 1.0

        with shared.load("m") as load:
            shared.write_model("m", 2.0)
            shared.apply(fleet(m="m"))
            until("the new source answers", lambda: load.answers[-1] == 2.0)

        assert load.failures == []
        assert len(shared.containers()) == 1

    def test_a_killed_container_is_replaced_within_three_seconds_and_its_load(self, shared: Cluster) -> None:
        shared.write_model("m", 2.0)
        shared.apply(fleet(m="m"))
        (victim,) = [r["id"] for r in shared.version("m")["replicas"]]
        (container,) = shared.containers()

        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
        failed = until(
            "its end is told", lambda: [e for e in shared.events("replica_failed") if e["replica"] == victim]
        )
        until("another is ready", lambda: shared.version("m")["state"] == "ready")

        (replica,) = [r["id"] for r in shared.version("m")["replicas"]]
        started = next(e for e in shared.events("replica_started") if e["replica"] == replica)
        assert started["at"] - failed[0]["at"] < 3
        assert shared.predict("m") == 2.0

    def test_a_killed_control_plane_adopts_the_containers_it_left(self, shared: Cluster) -> None:
        shared.write_model("m", 2.0)
        shared.apply(fleet(m="m"))
        before = shared.containers()

        with shared.load("m") as load:
            shared.kill()
            shared.start()
            until("it observed", lambda: shared.get("/status")["state"] == "converged")

        assert load.failures == []
        assert shared.containers() == before

    def test_a_secret_is_in_no_container_configuration(self, shared: Cluster) -> None:
        value = secrets.token_hex(16)
        (shared.root / "key.txt").write_text(value)
        shared.write_model("keyed", 3.0, load=f"assert os.environ['KEY'][:8] == '{value[:8]}'")

        shared.apply(fleet(keyed={"1": {"source": "keyed", "secrets": {"KEY": {"file": "key.txt"}}}}))

        inspected = subprocess.run(
            ["docker", "inspect", *shared.containers()], capture_output=True, text=True, check=True
        )
        assert shared.predict("keyed") == 3.0
        assert json.loads(inspected.stdout)
        assert value not in inspected.stdout

    def test_a_step_in_load_is_answered_by_more_containers(self, shared: Cluster) -> None:
        shared.write_model("m", 3.0, predict=SLOW)
        shared.apply(fleet(m=scaled_model("m", scaling={"max": 3})))
        after = newest(shared)

        with streaming(shared.gateway_port, "m", 5) as stream:
            used_to(stream)
            stepped_at = stream.step(50)
            first = until("it scales", lambda: decisions(shared, "m", after), 20)[0]
            until("more are ready", lambda: ready(shared, "m") == 3, 60)

        assert first["at"] - stepped_at < 3
        assert stream.failures == []
        assert len(shared.containers()) == 3

    def test_down_leaves_no_process_no_container_and_no_network(self, shared: Cluster) -> None:
        assert shared.containers()
        assert shared.networks()

        shared.down()

        assert shared.processes() == []
        assert shared.containers() == []
        assert shared.networks() == []


class TestDown:
    def test_in_the_middle_of_starts_leaves_no_container(
        self, tmp_path: Path, cluster: str, free_port: Callable[[], int], python_image: str
    ) -> None:
        """A start that is under way in the engine cannot be taken back: what it makes must be ended too."""
        assert python_image
        found = Cluster(tmp_path, cluster, free_port, "docker").start()
        source = found.write_model("m")
        try:
            found.begin(fleet(m={"versions": {"1": {"source": source}}, "scaling": {"min": 8}}))
            until("the first container is there", found.containers, 60)

            found.down()

            assert found.containers() == []
            assert found.networks() == []
        finally:
            found.close()
