"""up and down. What `up` prints is shown against a fake control plane; that it starts and ends, with the real one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cli import control
from tests.fakes.admin_api import FakeAdminApi, FakeGateway, World, iris, plan, write_control
from tests.unit.orchestrator.cli.conftest import REPOSITORY, Run, Spawn, eventually
from tests.unit.orchestrator.cli.terminal import Terminal

METADATA = {"name": "iris", "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 4]}]}


class TestUpWhenOneIsUp:
    def test_says_so_and_redoes_nothing(self, api: FakeAdminApi, world: World, run: Run, manifest: Path) -> None:
        world.plans = [plan()]

        result = run("up")

        assert result.exit_code == 0
        assert "Control plane is up already" in result.stdout
        assert "Nothing to change" in result.stdout
        assert api.asked("POST", "/apply") == []

    def test_applies_the_manifest_without_asking(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        assert run("up").exit_code == 0

        assert len(api.asked("POST", "/apply")) == 1

    def test_applies_nothing_when_told_so(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        assert run("up", "--no-apply").exit_code == 0

        assert api.asked("POST", "/plan") == []

    def test_refuses_another_engine_than_the_one_that_runs(self, api: FakeAdminApi, run: Run) -> None:
        result = run("up", "--engine", "docker")

        assert result.exit_code == 2
        assert "--engine docker: the control plane that is up has process" in result.stderr

    def test_refuses_an_engine_that_there_is_not(self, run: Run) -> None:
        assert run("up", "--engine", "dokcer").exit_code == 2

    def test_ends_as_apply_does_when_it_does_not_converge(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.steps = [world.steps[0].model_copy(update={"state": "failed", "error": "no such image"})]

        assert run("up").exit_code == 1


class TestSamplePredictions:
    def test_uses_the_example_beside_the_manifest(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        (manifest.parent / "examples").mkdir()
        (manifest.parent / "examples" / "iris.json").write_text('{"instances": [[1, 2]]}')

        with FakeGateway(lambda *_: (200, {}, b'{"predictions": [7]}')) as gateway:
            world.gateway_url = gateway.url
            output = run("up").stdout

        assert f"$ curl {gateway.url}/v1/models/iris:predict -d @examples/iris.json\n" in output
        assert '\n{"predictions": [7]}\n' in output
        assert output.endswith(f"Console: {api.url}/console/; `modelfleet console` opens it signed in.\n")

    def test_ends_on_a_terminal_with_a_link_that_signs_in(
        self, api: FakeAdminApi, world: World, manifest: Path
    ) -> None:
        with FakeGateway(lambda *_: (200, {}, b"{}")) as gateway, Terminal(["up", str(manifest)]) as terminal:
            world.gateway_url = gateway.url

            assert terminal.end() == 0
            assert terminal.text.endswith("\nhttp://127.0.0.1:7070/console/#code=once\n")

    def test_else_asks_with_zeros_of_the_shape_in_the_metadata(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        with FakeGateway(
            lambda method, *_: (200, {}, json.dumps(METADATA).encode() if method == "GET" else b'{"outputs": []}')
        ) as gateway:
            world.gateway_url = gateway.url
            run("up")

        (tensor,) = json.loads(gateway.requests[-1][3])["inputs"]
        assert tensor == {"name": "x", "datatype": "FP64", "shape": [1, 4], "data": [0.0, 0.0, 0.0, 0.0]}

    def test_says_how_to_make_a_key_where_the_gateway_wants_one(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.models = [iris(), iris(name="other")]

        with FakeGateway(lambda *_: (401, {}, b'{"error": "no key", "code": "UNAUTHENTICATED"}')) as gateway:
            world.gateway_url = gateway.url
            result = run("up")

        assert result.exit_code == 0
        assert "export MODELFLEET_API_KEY=$(modelfleet keys create NAME -q)" in result.stdout
        assert api.asked("POST", "/keys") == []
        assert len(gateway.requests) == 1

    def test_that_fails_is_told_and_stops_nothing(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.models = [iris(), iris(name="other")]

        with FakeGateway(lambda *_: (503, {}, b'{"error": "not ready", "code": "NOT_READY"}')) as gateway:
            world.gateway_url = gateway.url
            result = run("up")

        assert result.exit_code == 0
        assert "iris: no sample prediction: not ready (NOT_READY, status 503)" in result.stdout
        assert "other: no sample prediction" in result.stdout


class TestDown:
    def test_waits_until_the_control_plane_is_gone(self, run: Run, state_dir: Path) -> None:
        process = _fake_process(state_dir)

        result = run("down")

        assert result.exit_code == 0
        assert result.stdout.endswith("Down.\n")
        assert process.wait(5) == 0

    def test_again_is_no_error(self, run: Run) -> None:
        result = run("down", "-o", "json")

        assert result.exit_code == 0
        assert json.loads(result.stdout) == {"state": "down", "was_running": False, "kept_replicas": False}

    def test_passes_on_that_replicas_stay(self, api: FakeAdminApi, run: Run) -> None:
        # The fake lives in this process, which does not end: the wait is cut short and says whom it waits for.
        result = run("down", "--keep-replicas", "--timeout", "1")

        assert api.asked("POST", "/down")[0].body == {"keep_replicas": True}
        assert result.exit_code == 1
        assert f"(process {os.getpid()}) has not ended within 1 s" in result.stderr

    def test_asks_on_a_terminal_while_models_serve(self, api: FakeAdminApi) -> None:
        with Terminal(["down"]) as terminal:
            terminal.wait_for("End 1 serving model? [Y/n]")
            terminal.type("n\n")

            assert terminal.end() == 1

        assert api.asked("POST", "/down") == []


class TestTheRealControlPlane:
    """Only a real one shows that it is detached, that its log is kept, and that what it leaves is ended."""

    @pytest.fixture(autouse=True)
    def _own_ports(self, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int], run: Run) -> Iterator[None]:
        monkeypatch.setenv("MODELFLEET_GATEWAY_PORT", str(free_port()))
        monkeypatch.setenv("MODELFLEET_GRPC_PORT", str(free_port()))
        monkeypatch.setenv("MODELFLEET_METRICS_PORT", str(free_port()))
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        yield
        run("down")

    def test_starts_detached_and_ends_with_down(self, run: Run, state_dir: Path) -> None:
        up = run("up", "--engine", "process", "--api-port", "0")
        pid = control.find(state_dir).pid

        assert up.exit_code == 0, up.output
        assert os.getsid(pid) == pid
        assert (state_dir / "logs" / "control.log").exists()
        assert run("up", "--no-apply").stdout.startswith("Control plane is up already")
        assert run("down").exit_code == 0
        assert not control.is_alive(pid)
        assert run("status").exit_code == 3

    def test_that_was_killed_is_started_again_to_end_what_it_left(self, run: Run, state_dir: Path) -> None:
        run("up", "--engine", "process", "--api-port", "0")
        pid = control.find(state_dir).pid
        os.kill(pid, 9)
        eventually(lambda: not control.is_alive(pid))

        result = run("down")

        assert result.exit_code == 0, result.output
        assert "had died" in result.stdout
        assert not (state_dir / "control.json").exists()

    def test_replaces_a_control_file_whose_process_id_is_another_programs(self, run: Run, state_dir: Path) -> None:
        write_control(state_dir, pid=os.getpid(), url="http://127.0.0.1:9")

        result = run("up", "--engine", "process", "--api-port", "0")

        assert result.exit_code == 0, result.output
        assert control.find(state_dir).pid != os.getpid()
        assert run("down").exit_code == 0

    def test_that_refuses_to_start_says_why(self, run: Run) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]

            result = run("up", "--engine", "process", "--api-port", str(port))

        assert result.exit_code == 2
        assert f"port {port}" in result.stderr
        assert "Traceback" not in result.stderr

    def test_two_at_once_end_with_one_control_plane(self, spawn: Spawn, run: Run, state_dir: Path) -> None:
        both = [spawn("up", "--engine", "process", "--api-port", "0", "-o", "json") for _ in range(2)]

        answers = [process.communicate(timeout=60) for process in both]

        assert [process.returncode for process in both] == [0, 0], answers
        assert len({json.loads(out)["pid"] for out, _ in answers}) == 1
        assert run("down").exit_code == 0


def _fake_process(state_dir: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    fake = REPOSITORY / "tests" / "fakes" / "admin_api.py"
    process = subprocess.Popen([sys.executable, str(fake), str(state_dir)], env=environment)
    eventually(lambda: (state_dir / "control.json").exists() and (state_dir / "token").exists())
    return process
