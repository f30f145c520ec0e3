"""What the engine's own errors become: unknown is not absent, and each sentence says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters.docker_engine import DockerEngine
from orchestrator.adapters.engine import EngineUnavailable, RuntimeBuildFailed, RuntimeRequest
from orchestrator.adapters.images import ImageBuilder
from tests.fakes.docker_api import Answers, DockerApi

BASE = {"Id": "sha256:ba5e"}
NO_REGISTRY = {("POST", "/images/create"): (500, {"message": "dial tcp: lookup registry: no such host"})}


@pytest.fixture
def calls_to() -> Iterator[Callable[[Answers], DockerCalls]]:
    with ExitStack() as opened:

        def connect(answers: Answers) -> DockerCalls:
            api = opened.enter_context(DockerApi(answers))
            calls = DockerCalls(api.host, timeout_s=5)
            opened.callback(calls.close)
            return calls

        yield connect


class TestListing:
    @pytest.mark.parametrize("status", [500, 503, 400, 403])
    def test_that_failed_is_never_an_empty_cluster(self, tmp_path: Path, status: int) -> None:
        listing = {("GET", "/containers/json"): (status, {"message": "the daemon is confused"})}
        with DockerApi({("GET", "/info"): (200, {"OSType": "linux"}), **listing}) as api:
            engine = DockerEngine("c", tmp_path, host=api.host)

            with pytest.raises(
                EngineUnavailable, match="could not list the replicas: the daemon is confused; see its log"
            ):
                engine.replicas()

            engine.close()

    def test_that_is_no_json_is_never_an_empty_cluster(self, tmp_path: Path) -> None:
        with DockerApi({("GET", "/info"): (200, {}), ("GET", "/containers/json"): (200, [])}) as api:
            engine = DockerEngine("c", tmp_path, host=api.host)

            with pytest.raises(EngineUnavailable, match="could not list the replicas"):
                engine.replicas()

            engine.close()


class TestReplicaThatIsBeingRemoved:
    """Between the list and a look at its end the engine says 409 to all questions about a container."""

    def answers(self, inspect: int, logs: int) -> Answers:
        facts = {
            "cluster": "c",
            "role": "replica",
            "replica": "iris-1-0",
            "model": "iris",
            "version": "1",
            "spec": "5b",
        }
        labels = {f"modelfleet.{name}": value for name, value in facts.items()}
        listed = {
            "Id": "c0ffee",
            "State": "exited",
            "Labels": labels,
            "Created": 1,
            "NetworkSettings": {"Networks": {}},
        }
        conflict = {"message": "can not get logs from container which is dead or marked for removal"}
        ended = {"State": {"ExitCode": 0}, "HostConfig": {}}
        return {
            ("GET", "/info"): (200, {"OSType": "linux"}),
            ("GET", "/containers/c0ffee/json"): (inspect, ended if inspect == 200 else conflict),
            ("GET", "/containers/c0ffee/logs"): (logs, conflict),
            ("GET", "/containers/json"): (200, [[listed]]),  # one line, which is the array
        }

    @pytest.mark.parametrize(("inspect", "logs"), [(409, 409), (200, 409), (404, 404), (200, 404)])
    def test_has_ended_and_the_engine_answers(self, tmp_path: Path, inspect: int, logs: int) -> None:
        with DockerApi(self.answers(inspect, logs)) as api:
            engine = DockerEngine("c", tmp_path, host=api.host)

            (replica,) = engine.replicas()

            assert (replica.id, replica.running) == ("iris-1-0", False)
            engine.close()


class TestBuilds:
    def build(self, calls: DockerCalls, tmp_path: Path, environ: dict[str, str] | None = None) -> str:
        builder = ImageBuilder(tmp_path, "base:1", calls, environ or {})
        return builder.ensure(RuntimeRequest(backend="python"))

    def answering(self, *told: dict[str, Any]) -> Answers:
        return {
            ("GET", "/images/base:1/json"): (200, BASE),
            ("GET", "/images/sha256"): (200, BASE),
            ("POST", "/build"): (200, list(told)),
        }

    def test_a_full_disk_is_said_first(self, calls_to: Callable[[Answers], DockerCalls], tmp_path: Path) -> None:
        calls = calls_to(
            self.answering({"stream": "Step 1/9 : FROM x\n"}, {"error": "write /opt: no space left on device"})
        )

        with pytest.raises(
            RuntimeBuildFailed, match=r"worker-python:\w+: cannot be built: the disk is full; free space"
        ):
            self.build(calls, tmp_path)

    def test_a_failed_step_shows_the_last_twenty_lines(
        self, calls_to: Callable[[Answers], DockerCalls], tmp_path: Path
    ) -> None:
        output = [{"stream": f"line {n}\n"} for n in range(50)]
        calls = calls_to(self.answering(*output, {"error": "The command returned a non-zero code: 1"}))

        with pytest.raises(RuntimeBuildFailed) as caught:
            self.build(calls, tmp_path)

        first, *rest = str(caught.value).splitlines()
        assert first.endswith(
            "cannot be built: The command returned a non-zero code: 1; the last lines of the build say why"
        )
        assert rest == [f"  line {n}" for n in range(30, 50)]


class TestBase:
    def test_without_registry_and_mmdebstrap_says_what_to_install_or_name(
        self, calls_to: Callable[[Answers], DockerCalls], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = calls_to(NO_REGISTRY)
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(RuntimeBuildFailed) as caught:
            ImageBuilder(tmp_path, None, calls, {}).ensure(RuntimeRequest(backend="python"))

        sentence = str(caught.value)
        assert "python:3.12-slim is not here and pull failed: dial tcp: lookup registry: no such host" in sentence
        assert "apt-get install mmdebstrap" in sentence
        assert "MODELFLEET_BASE_IMAGE" in sentence

    def test_a_pull_that_fails_after_it_began_is_said(
        self, calls_to: Callable[[Answers], DockerCalls], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun = [{"status": "Pulling from library/python"}, {"error": "unexpected EOF"}]
        calls = calls_to({("POST", "/images/create"): (200, begun)})
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(RuntimeBuildFailed, match=r"python:3.12-slim is not here and pull failed: unexpected EOF"):
            ImageBuilder(tmp_path, None, calls, {}).ensure(RuntimeRequest(backend="python"))

    def test_a_name_is_stable_while_there_is_no_base_yet(
        self, calls_to: Callable[[Answers], DockerCalls], tmp_path: Path
    ) -> None:
        builder = ImageBuilder(tmp_path, None, calls_to(NO_REGISTRY), {})

        assert builder.worker_name("python") == builder.worker_name("python")
