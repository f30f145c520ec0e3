"""A fake control plane for each test, the command in this process (`run`), and the command as a process (`spawn`)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.main import app
from tests.fakes.admin_api import FakeAdminApi, World

REPOSITORY = Path(__file__).parents[4]
Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, state_dir: Path, tmp_path: Path) -> None:
    """The state directory of the test, and a working directory without a manifest."""
    monkeypatch.setenv("MODELFLEET_STATE_DIR", str(state_dir))
    monkeypatch.delenv("NO_COLOR", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def api(state_dir: Path, world: World) -> Iterator[FakeAdminApi]:
    with FakeAdminApi(state_dir, world) as running:
        yield running


@pytest.fixture
def run() -> Run:
    """Runs the command in this process: piped output, no terminal."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, arguments, input=stdin, catch_exceptions=False, prog_name="modelfleet")
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts the command as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", "from orchestrator.cli.main import main; main()", *arguments]
        started.append(subprocess.Popen(command, text=True, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest in the working directory, found without being named."""
    path = tmp_path / "work" / "models.yaml"
    (path.parent / "model").mkdir()
    (path.parent / "model" / "model.joblib").write_bytes(b"x")
    path.write_text('cluster: demo\nmodels:\n  iris:\n    versions:\n      "1": {source: model, backend: sklearn}\n')
    return path


def eventually(holds: Callable[[], Any], timeout_s: float = 20) -> Any:
    """The first true value of `holds`. Fails when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := holds():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come true in time")
