"""What is particular to Docker: names, conflicts, failed starts, networks, and an engine that does not answer."""

from __future__ import annotations

import contextlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.docker_engine import DockerEngine
from orchestrator.adapters.engine import Engine, EngineUnavailable, StartFailed
from orchestrator.core.entities import Resources
from tests.fakes.engine_lab import DockerLab, until

pytestmark = pytest.mark.timeout(300)


@pytest.mark.docker
class TestNames:
    def test_say_cluster_model_and_version(self, docker_lab: DockerLab) -> None:
        replica_id = docker_lab.start(replica_id="0123456789ab")

        assert docker_lab.container(replica_id).name == f"mf-{docker_lab.cluster}-act-1-456789ab"

    def test_a_foreign_container_with_our_name_is_left_untouched(self, docker_lab: DockerLab) -> None:
        name = f"mf-{docker_lab.cluster}-act-1-456789ab"
        foreign = docker_lab.docker.containers.create(docker_lab.runtime, name=name)
        try:
            replica_id = docker_lab.start(replica_id="0123456789ab")

            foreign.reload()
            assert (foreign.name, foreign.status) == (name, "created")
            assert docker_lab.ready(replica_id).running
            assert docker_lab.container(replica_id).name.startswith(f"mf-{docker_lab.cluster}-act-1-")
            docker_lab.engine.teardown()
            foreign.reload()
        finally:
            foreign.remove(force=True)

    def test_a_foreign_network_with_our_name_is_left_untouched(self, docker_lab: DockerLab) -> None:
        cluster = f"{docker_lab.cluster}-x"
        foreign = docker_lab.docker.networks.create(f"modelfleet-{cluster}")
        try:
            engine = DockerEngine(cluster, docker_lab.state)

            with pytest.raises(EngineUnavailable, match="exists and is not ours"):
                engine.prepare()

            engine.teardown()
            foreign.reload()
        finally:
            foreign.remove()


@pytest.mark.docker
class TestFailedStart:
    def test_without_its_image_says_so_and_leaves_nothing(self, docker_lab: DockerLab) -> None:
        launch = docker_lab.launch(runtime="modelfleet/worker-python:000000000000", secrets={"KEY": "v"})

        with pytest.raises(StartFailed, match=r"act@1: cannot start: No such image.*apply again to build or pull it"):
            docker_lab.engine.start(launch)

        assert_nothing_is_left(docker_lab)

    def test_with_more_cpus_than_there_are_says_what_to_change(self, docker_lab: DockerLab) -> None:
        launch = docker_lab.launch(resources=Resources(cpus=512), secrets={"KEY": "v"})

        with pytest.raises(StartFailed, match=r"act@1: cannot start: .*CPUs.*change `resources` of this version"):
            docker_lab.engine.start(launch)

        assert_nothing_is_left(docker_lab)

    def test_after_the_container_was_made_leaves_nothing(self, docker_lab: DockerLab) -> None:
        """In this image /model is a file: the engine makes the container, and cannot mount a directory there."""
        maker = docker_lab.docker.containers.create(docker_lab.runtime)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("model"))
        maker.put_archive("/", archive.getvalue())
        image = maker.commit()
        maker.remove()
        try:
            with pytest.raises(StartFailed, match=r"act@1: cannot start: .*not a directory"):
                docker_lab.engine.start(docker_lab.launch(runtime=image.id, secrets={"KEY": "v"}))

            assert_nothing_is_left(docker_lab)
        finally:
            docker_lab.docker.images.remove(image.id, force=True)

    def test_of_a_command_that_is_not_there_ends_with_that_reason(self, docker_lab: DockerLab) -> None:
        """Either the start fails, or (with docker-init) the container ends at once."""
        maker = docker_lab.docker.containers.create(docker_lab.runtime)
        image = maker.commit(changes='ENTRYPOINT ["/no/such/program"]')
        maker.remove()
        try:
            with contextlib.suppress(StartFailed):
                end = docker_lab.ended(docker_lab.start(runtime=image.id)).exit
                assert end is not None
                assert end.reason == "the command of the image was not found (exit code 127)"
        finally:
            docker_lab.engine.teardown()
            docker_lab.docker.images.remove(image.id, force=True)

    def test_does_not_come_of_a_network_that_somebody_pruned(self, docker_lab: DockerLab) -> None:
        docker_lab.docker.networks.get(f"modelfleet-{docker_lab.cluster}").remove()

        assert docker_lab.ready(docker_lab.start()).running


@pytest.mark.docker
class TestHalfStarted:
    def test_one_that_was_created_but_never_started_is_listed_as_ended(self, docker_lab: DockerLab) -> None:
        """A control plane that was killed between the two calls leaves this."""
        replica_id = leave_half_started(docker_lab)

        (replica,) = docker_lab.another_control_plane().replicas()

        assert replica.id == replica_id
        assert replica.exit is not None
        assert replica.exit.reason == "was created but never started: the control plane ended first"

    def test_starting_it_again_runs_it(self, docker_lab: DockerLab) -> None:
        replica_id = leave_half_started(docker_lab)

        docker_lab.another_control_plane().start(docker_lab.launch(replica_id=replica_id))

        assert docker_lab.ready(replica_id).running


@pytest.mark.docker
class TestStopping:
    def test_a_model_that_ignores_sigterm_is_killed_after_the_grace(self, docker_lab: DockerLab) -> None:
        replica_id = docker_lab.start("stubborn")
        until(
            "the model has taken over the signals",
            lambda: any(line.text == "first words" for line in docker_lab.engine.logs(replica_id)),
        )
        began = time.monotonic()

        docker_lab.engine.stop(replica_id, grace_s=1)

        assert docker_lab.engine.replicas() == []
        assert time.monotonic() - began < 15

    def test_followed_logs_show_lines_as_they_are_printed(self, docker_lab: DockerLab) -> None:
        replica_id = docker_lab.start("chatter")
        docker_lab.ready(replica_id)
        ticks = []
        for line in docker_lab.engine.logs(replica_id, tail=0, follow=True):
            ticks.append(line)
            if len(ticks) == 5:
                break

        assert [line.text.split()[0] for line in ticks] == ["tick"] * 5
        assert [line.at for line in ticks] == sorted(line.at for line in ticks)


@pytest.mark.docker
class TestStatus:
    def test_names_version_and_limits(self, docker_lab: DockerLab) -> None:
        status = docker_lab.engine.status()

        info = docker_lab.docker.info()
        assert (status.name, status.version) == ("docker", info["ServerVersion"])
        assert (status.cpus, status.memory_bytes) == (info["NCPU"], info["MemTotal"])


class TestUnavailable:
    @pytest.fixture
    def silent(self, tmp_path: Path) -> Iterator[str]:
        """A socket that accepts, and then says nothing: an engine that hangs."""
        path = tmp_path / "silent.sock"
        held: list[socket.socket] = []
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen(64)
            server.settimeout(0.1)
            done = threading.Event()

            def accept() -> None:
                while not done.is_set():
                    try:
                        held.append(server.accept()[0])
                    except TimeoutError:
                        continue

            thread = threading.Thread(target=accept, daemon=True)
            thread.start()
            yield f"unix://{path}"
            done.set()
            thread.join(5)
            for connection in held:
                connection.close()

    @pytest.mark.parametrize("call", ["status", "prepare", "replicas", "start", "stop", "logs", "teardown"])
    def test_an_engine_that_hangs_is_unavailable_in_bounded_time(self, silent: str, tmp_path: Path, call: str) -> None:
        engine = DockerEngine("hang", tmp_path, host=silent, timeout_s=0.3)
        began = time.monotonic()

        with pytest.raises(EngineUnavailable, match=r"no answer within 0\.3 s"):
            call_by_name(engine, call)

        assert time.monotonic() - began < 5
        engine.close()

    def test_an_engine_that_is_not_there_says_how_to_start_it(self, tmp_path: Path) -> None:
        engine = DockerEngine("away", tmp_path, host=f"unix://{tmp_path}/no.sock")

        with pytest.raises(EngineUnavailable, match="nothing listens there; start the engine"):
            engine.replicas()

    def test_a_subscription_to_an_absent_engine_waits_and_ends_when_stopped(self, tmp_path: Path) -> None:
        engine = DockerEngine("away", tmp_path, host=f"unix://{tmp_path}/no.sock")
        stopped = threading.Event()
        told: list[object] = []
        thread = threading.Thread(target=lambda: told.extend(engine.events(stopped)), daemon=True)
        thread.start()

        stopped.set()
        thread.join(5)

        assert not thread.is_alive()
        assert told == []


@pytest.mark.docker
class TestReconnect:
    def test_events_resync_after_the_connection_broke(self, docker_lab: DockerLab, tmp_path: Path) -> None:
        with Relay(tmp_path / "relay.sock", Path("/var/run/docker.sock")) as relay:
            docker_lab.engine = DockerEngine(docker_lab.cluster, docker_lab.state, host=f"unix://{relay.path}")
            with docker_lab.listening() as told:
                relay.cut()
                until("a second resync", lambda: [e.kind for e in told].count("resync") >= 2, 10)
                replica_id = docker_lab.start()
                until("events flow again", lambda: any(e.replica_id == replica_id for e in told), 10)
            docker_lab.engine.close()
            docker_lab.engine = docker_lab.another_control_plane()


class Relay:
    """Stands between the client and the real engine, so that a connection can be cut without hurting the engine."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.path = path
        self._engine = engine
        self._pairs: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._lock = threading.Lock()

    def __enter__(self) -> Relay:
        self._server.bind(str(self.path))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for connection in pairs:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _accept(self) -> None:
        while True:
            try:
                client = self._server.accept()[0]
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(str(self._engine))
            with self._lock:
                self._pairs += [client, upstream]
            for source, target in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while content := source.recv(65536):
                target.sendall(content)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def assert_nothing_is_left(lab: DockerLab) -> None:
    label = f"modelfleet.cluster={lab.cluster}"
    assert lab.docker.containers.list(all=True, filters={"label": label}) == []
    assert list((lab.state / "containers" / lab.cluster).iterdir()) == []


def leave_half_started(lab: DockerLab) -> str:
    launch = lab.launch(replica_id="half00000001")
    lab.engine.start(launch)
    labels = lab.container(launch.replica_id).labels
    lab.engine.stop(launch.replica_id, grace_s=0)
    lab.docker.containers.create(lab.runtime, labels=labels)
    return launch.replica_id


def call_by_name(engine: Engine, call: str) -> None:
    from tests.fakes.engine_lab import EngineLab

    launch = EngineLab(engine, Path("/nonexistent")).launch(runtime="x", artifact=False)
    calls = {
        "start": lambda: engine.start(launch),
        "stop": lambda: engine.stop("x", 1),
        "logs": lambda: list(engine.logs("x")),
    }
    calls.get(call, getattr(engine, call))()
