"""What is particular to local processes: supervisors, limits, logs, environments, and what a killed control plane leaves."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.adapters import _launcher
from orchestrator.adapters._build_context import worker_package
from orchestrator.adapters.engine import EngineUnavailable, RuntimeBuildFailed, RuntimeRequest, StartFailed
from orchestrator.adapters.environments import Environments
from orchestrator.adapters.process_engine import PORTS, ProcessEngine
from orchestrator.core.entities import Resources
from tests.fakes.engine_lab import ProcessLab, until

pytestmark = pytest.mark.timeout(300)


def directory_of(lab: ProcessLab, replica_id: str) -> Path:
    return lab.state / "processes" / lab.cluster / replica_id


def pids_of(lab: ProcessLab, replica_id: str) -> dict[str, float]:
    return dict(json.loads((directory_of(lab, replica_id) / "pids.json").read_text()))


class TestSupervisor:
    def test_the_replica_is_in_a_session_of_its_own(self, process_lab: ProcessLab) -> None:
        """So that it outlives the control plane's terminal and process group."""
        replica = process_lab.ready(process_lab.start())

        assert os.getsid(int(replica.engine_id)) != os.getsid(0)

    def test_outlives_the_process_that_started_it(self, process_lab: ProcessLab) -> None:
        launch = process_lab.launch()
        starter = (
            "import pickle, sys, os\n"
            "from pathlib import Path\n"
            "from orchestrator.adapters.process_engine import ProcessEngine\n"
            "cluster, state, launch = pickle.load(sys.stdin.buffer)\n"
            "ProcessEngine(cluster, state).start(launch)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", starter],
            input=pickle.dumps((process_lab.cluster, process_lab.state, launch)),
            cwd=Path(__file__).parents[2],
            check=False,
        )

        assert done.returncode == -signal.SIGKILL
        assert process_lab.ready(launch.replica_id).running

    def test_when_it_is_killed_the_server_ends_with_it_and_that_is_seen(self, process_lab: ProcessLab) -> None:
        replica_id = process_lab.start()
        process_lab.ready(replica_id)
        pids = pids_of(process_lab, replica_id)

        os.kill(int(pids["launcher"]), signal.SIGKILL)

        end = process_lab.ended(replica_id).exit
        assert end is not None
        assert end.code is None
        assert "its supervisor was killed" in end.reason
        until("the server is gone", lambda: not psutil.pid_exists(int(pids["server"])), 5)

    def test_children_of_a_killed_server_do_not_stay(self, process_lab: ProcessLab) -> None:
        replica_id = process_lab.start("parent")
        server = int(process_lab.ready(replica_id).engine_id)
        assert len(members_of(server)) == 2

        process_lab.kill(replica_id)

        process_lab.ended(replica_id)
        until("the group is empty", lambda: not members_of(server), 5)

    def test_children_of_a_server_whose_supervisor_was_killed_are_ended_by_stop(self, process_lab: ProcessLab) -> None:
        replica_id = process_lab.start("parent")
        server = int(process_lab.ready(replica_id).engine_id)
        os.kill(int(pids_of(process_lab, replica_id)["launcher"]), signal.SIGKILL)
        process_lab.ended(replica_id)

        process_lab.engine.stop(replica_id, grace_s=1)

        until("the group is empty", lambda: not members_of(server), 5)

    def test_a_program_that_cannot_be_executed_fails_the_start_and_leaves_nothing(
        self, process_lab: ProcessLab, tmp_path: Path
    ) -> None:
        engine = ProcessEngine("broken", tmp_path / "other")
        runtime = engine.ensure_runtime(RuntimeRequest(backend="python"))
        (marker,) = (tmp_path / "other" / "environments").glob("*/environment.json")
        plain = tmp_path / "not-a-program"
        plain.write_text("")
        marker.write_text(json.dumps({"python": str(plain)}))

        with pytest.raises(StartFailed, match=r"act@1: cannot start: .*not-a-program cannot be executed"):
            engine.start(process_lab.launch(runtime=runtime, secrets={"K": "v"}))

        assert engine.replicas() == []
        assert list((tmp_path / "other" / "processes" / "broken").iterdir()) == []

    def test_an_environment_that_is_gone_fails_the_start_with_what_to_do(self, process_lab: ProcessLab) -> None:
        with pytest.raises(StartFailed, match=r"environment process/python:0000 is not there; apply again"):
            process_lab.start(runtime="process/python:0000")

        assert process_lab.engine.replicas() == []


class TestHalfStarted:
    def test_one_that_was_never_started_is_listed_as_ended_and_can_be_removed(self, process_lab: ProcessLab) -> None:
        """A control plane that was killed before it ran the supervisor leaves this."""
        replica_id = leave_half_started(process_lab)

        successor = process_lab.another_control_plane()
        (replica,) = successor.replicas()

        assert replica.exit is not None
        assert replica.exit.reason == "was never started: the control plane ended first"
        successor.stop(replica_id, grace_s=1)
        assert successor.replicas() == []

    def test_starting_it_again_runs_it(self, process_lab: ProcessLab) -> None:
        replica_id = leave_half_started(process_lab)

        process_lab.another_control_plane().start(process_lab.launch(replica_id=replica_id))

        assert process_lab.ready(replica_id).running


class TestReusedProcessId:
    def test_a_stranger_with_a_recorded_id_is_neither_seen_as_ours_nor_signalled(self, process_lab: ProcessLab) -> None:
        """After a reboot the ids on disk belong to others."""
        replica_id = process_lab.start()
        process_lab.ready(replica_id)
        process_lab.kill(replica_id)
        process_lab.ended(replica_id)
        stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
        try:
            pids = {"launcher": stranger.pid, "server": stranger.pid, "started_at": time.time() - 3600}
            (directory_of(process_lab, replica_id) / "pids.json").write_text(json.dumps(pids))

            (replica,) = process_lab.engine.replicas()
            process_lab.engine.stop(replica_id, grace_s=1)

            assert not replica.running
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


class TestStopping:
    def test_a_model_that_ignores_sigterm_is_killed_after_the_grace(self, process_lab: ProcessLab) -> None:
        replica_id = process_lab.start("stubborn")
        until(
            "the model has taken over the signals",
            lambda: any(line.text == "first words" for line in process_lab.engine.logs(replica_id)),
        )
        began = time.monotonic()

        process_lab.engine.stop(replica_id, grace_s=0.5)

        assert process_lab.engine.replicas() == []
        assert time.monotonic() - began < 5


class TestLogs:
    def test_followed_show_lines_as_they_are_printed(self, process_lab: ProcessLab) -> None:
        replica_id = process_lab.start("chatter")
        process_lab.ready(replica_id)
        ticks = []
        for line in process_lab.engine.logs(replica_id, tail=0, follow=True):
            ticks.append(line)
            if len(ticks) == 5:
                break

        assert [line.text.split()[0] for line in ticks] == ["tick"] * 5

    def test_keep_two_files_of_bounded_size(self, tmp_path: Path) -> None:
        log = _launcher.Log(tmp_path / "log")
        line = b"x" * 1023 + b"\n"

        for _ in range(3 * _launcher.LOG_MAX_BYTES // (1024 * 64)):
            log.feed("o", line * 64)
        log.close()

        sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        assert set(sizes) == {"log", "log.1"}
        assert max(sizes.values()) < _launcher.LOG_MAX_BYTES * 1.1

    def test_cut_a_line_that_never_ends(self, tmp_path: Path) -> None:
        log = _launcher.Log(tmp_path / "log")

        log.feed("o", b"x" * (_launcher.LINE_MAX_BYTES + 1))
        log.feed("o", b"tail")
        log.close()

        assert [len(line) for line in (tmp_path / "log").read_bytes().splitlines()][1] < 64


class TestConfinement:
    def test_gets_no_variables_of_the_control_plane(
        self, process_lab: ProcessLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CLOUD_TOKEN", "hunter2")
        replica_id = process_lab.start()
        process_lab.ready(replica_id)

        environ = psutil.Process(int(pids_of(process_lab, replica_id)["server"])).environ()

        assert "CLOUD_TOKEN" not in environ
        assert environ["MODELFLEET_MODEL"] == "act"

    def test_secrets_are_private_files_that_go_with_the_replica(self, process_lab: ProcessLab) -> None:
        replica_id = process_lab.start(secrets={"API_KEY": "hunter2"})
        directory = directory_of(process_lab, replica_id)

        assert (directory / "secrets" / "API_KEY").read_text() == "hunter2"
        assert directory.parent.stat().st_mode & 0o777 == 0o700
        assert "hunter2" not in (directory / "launch.json").read_text()
        process_lab.engine.stop(replica_id, grace_s=5)
        assert not directory.exists()

    def test_ports_are_below_those_of_outgoing_connections(self, process_lab: ProcessLab) -> None:
        replica = process_lab.ready(process_lab.start())

        assert replica.host == "127.0.0.1"
        assert replica.port in PORTS

    def test_memory_of_children_counts(self) -> None:
        with subprocess.Popen([sys.executable, "-c", "x = bytearray(50_000_000); input()"], stdin=subprocess.PIPE) as p:
            until("it has allocated", lambda: _launcher.resident_bytes(os.getpid()) > 0 and rss(p.pid) > 50_000_000, 10)

            total = _launcher.resident_bytes(os.getpid())

            assert total >= rss(os.getpid()) * 0.9 + 50_000_000
            p.kill()

    def test_limits_apply_to_the_server(self, process_lab: ProcessLab) -> None:
        resources = Resources(memory_bytes=300 * 1024**2)

        end = process_lab.ended(process_lab.start("hog", resources=resources)).exit

        assert end is not None
        assert end.reason.startswith("out of memory: it needs more than its limit of 300Mi")


class TestUnavailable:
    def test_a_directory_that_cannot_be_read_is_not_an_empty_cluster(self, tmp_path: Path) -> None:
        (tmp_path / "processes").mkdir()
        (tmp_path / "processes" / "c").write_text("not a directory")

        with pytest.raises(EngineUnavailable, match="process engine: could not list the replicas"):
            ProcessEngine("c", tmp_path).replicas()


class TestEnvironments:
    def test_an_image_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(
            RuntimeBuildFailed, match="image 'x:1': the process engine runs no images; give the version"
        ):
            Environments(tmp_path).id(RuntimeRequest(image="x:1"))

    def test_the_running_interpreter_serves_where_it_has_what_the_lock_pins(self, tmp_path: Path) -> None:
        environments = Environments(tmp_path)

        found = environments.find(environments.ensure(RuntimeRequest(backend="python")))

        assert found is not None
        assert found.python == sys.executable
        assert (found.code / "worker_image" / "server" / "__main__.py").is_file()

    def test_the_code_is_a_copy_of_the_server_alone(self, tmp_path: Path) -> None:
        environments = Environments(tmp_path)

        found = environments.find(environments.ensure(RuntimeRequest(backend="python")))

        assert found is not None
        assert not found.code.is_relative_to(worker_package())
        assert sorted(p.name for p in (found.code / "worker_image").iterdir()) == ["__init__.py", "server"]

    def test_a_half_made_one_is_made_again(self, tmp_path: Path) -> None:
        environments = Environments(tmp_path)
        runtime = environments.ensure(RuntimeRequest(backend="python"))
        (marker,) = tmp_path.glob("*/environment.json")
        marker.unlink()

        assert environments.find(runtime) is None
        assert environments.find(environments.ensure(RuntimeRequest(backend="python"))) is not None

    def test_requirements_are_installed_beside_the_lock(self, tmp_path: Path) -> None:
        """Slow: the fast tests use the running interpreter, and this alone shows that an installed one serves."""
        package = tmp_path / "greeter"
        package.mkdir()
        (package / "pyproject.toml").write_text('[project]\nname = "greeter"\nversion = "1.0"\n')
        (package / "greeter.py").write_text("HELLO = 'hello'\n")
        request = RuntimeRequest(backend="python", requirements=f"greeter @ file://{package}\n".encode())
        said: list[str] = []
        environments = Environments(tmp_path / "environments")

        runtime = environments.ensure(request, said.append)

        found = environments.find(runtime)
        assert found is not None
        assert said == [f"installing {runtime}"]
        code = "import greeter, msgspec, worker_image.server; print(greeter.HELLO)"
        environ = {"PYTHONPATH": str(found.code), "PATH": os.environ["PATH"]}
        done = subprocess.run([found.python, "-c", code], env=environ, capture_output=True, text=True, check=True)
        assert done.stdout == "hello\n"


def leave_half_started(lab: ProcessLab) -> str:
    launch = lab.launch(replica_id="half00000001")
    lab.engine.start(launch)
    kept = (directory_of(lab, launch.replica_id) / "launch.json").read_bytes()
    lab.engine.stop(launch.replica_id, grace_s=0)
    directory_of(lab, launch.replica_id).mkdir()
    (directory_of(lab, launch.replica_id) / "launch.json").write_bytes(kept)
    return launch.replica_id


def rss(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def members_of(group: int) -> list[int]:
    return [pid for pid in psutil.pids() if _group(pid) == group]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1
