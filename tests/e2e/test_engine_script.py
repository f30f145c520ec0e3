"""`scripts/engine.sh` starts, finds again and stops an engine: one of the test's own, beside whatever else runs here.

Slow, because it starts real engines: the stale files and dying children that a killed dockerd leaves cannot be faked.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_ENGINE = 3
# In a network of its own: a dockerd without a bridge removes the docker0 that it finds, which is another engine's.
ALONE = ("unshare", "--net") if os.geteuid() == 0 else ()


@dataclass(frozen=True)
class Script:
    """The script with its files below `directory`, so that it sees none of the machine's own engine."""

    directory: Path
    environment: dict[str, str]

    @property
    def pidfile(self) -> Path:
        return self.directory / "docker.pid"

    def __call__(self, verb: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ALONE, "bash", ROOT / "scripts/engine.sh", verb],
            env=os.environ | self.environment | environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture
def directory() -> Iterator[Path]:
    """Of a short name: the engine makes sockets three folders below it, and a socket's path has 107 characters."""
    path = Path(tempfile.mkdtemp(prefix="mf"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def script(directory: Path) -> Iterator[Script]:
    address = f"unix://{directory}/docker.sock"
    # Without a bridge and packet filter, which belong to the machine's own engine.
    options = f"--data-root {directory}/data --exec-root {directory}/exec -H {address}"
    script = Script(
        directory,
        {
            "DOCKER_HOST": address,
            "DOCKERD_PIDFILE": str(directory / "docker.pid"),
            "DOCKERD_LOG": str(directory / "log"),
            "DOCKERD_OPTIONS": f"{options} --bridge=none --iptables=false --ip-masq=false",
        },
    )
    yield script
    script("stop")
    subprocess.run(["umount", "--lazy", directory / "data"], capture_output=True, check=False)


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dockerd"), reason="only root can start a dockerd")
@pytest.mark.timeout(300)
class TestStarting:
    def test_starts_an_engine_and_leaves_one_that_answers_alone(self, script: Script) -> None:
        started = script("start")
        pid = script.pidfile.read_text()
        again = script("start")

        assert (started.returncode, again.returncode) == (0, 0), started.stderr + again.stderr
        assert "started" in started.stdout
        assert "answers" in again.stdout
        assert script.pidfile.read_text() == pid

    def test_starts_over_a_pid_file_whose_number_another_process_has_now(self, script: Script) -> None:
        script.pidfile.write_text(str(os.getpid()))

        started = script("start")

        assert started.returncode == 0, started.stderr

    def test_starts_after_the_engine_was_killed(self, script: Script) -> None:
        assert script("start").returncode == 0
        os.kill(int(script.pidfile.read_text()), signal.SIGKILL)

        again = script("start")

        assert again.returncode == 0, again.stderr

    def test_an_engine_that_cannot_start_is_reported_with_its_last_words(self, script: Script) -> None:
        result = script("start", DOCKERD_OPTIONS="--no-such-option")

        assert result.returncode == NO_ENGINE
        assert "unknown flag: --no-such-option" in result.stderr

    def test_stops_what_it_started_and_nothing_else(self, script: Script) -> None:
        assert script("start").returncode == 0
        pid = int(script.pidfile.read_text())

        stopped, again = script("stop"), script("stop")

        assert f"stopping dockerd (process {pid})" in stopped.stdout
        assert "no engine of ours runs" in again.stdout


class TestRefusing:
    def test_a_remote_engine_that_does_not_answer_is_not_ours_to_start(self, script: Script) -> None:
        result = script("start", DOCKER_HOST="tcp://127.0.0.1:1")

        assert result.returncode == NO_ENGINE
        assert "DOCKER_HOST is 'tcp://127.0.0.1:1' and no engine answers there" in result.stderr
        assert "unset DOCKER_HOST" in result.stderr

    def test_an_unknown_verb_is_named(self, script: Script) -> None:
        result = script("restart")

        assert result.returncode == 2
        assert result.stderr == "engine: restart: unknown command; use 'start' or 'stop'\n"
