"""What every test may rely on: markers for what it needs, no way out of the machine, and names and ports of one's own.

A test that needs a Docker Engine is marked `docker`. Without an engine it fails where one is required (CI, or
MODELFLEET_TEST_DOCKER=required) and is skipped elsewhere, with the reason. So are those that are marked `prometheus` or
`npm`, for the programs of that name, or `browser`, for Chromium and what the web console takes from npm: CI has them.
Tests under unit/ and protocol/ may connect to this machine alone. Nothing here starts anything.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import docker
import hypothesis
import pytest

from tests.fakes import ports

TESTS = Path(__file__).parent
CONSOLE = TESTS.parent / "orchestrator/console"
# The machine is shared and slow at times: how long one example takes says nothing of the code.
hypothesis.settings.register_profile("modelfleet", deadline=None)
hypothesis.settings.load_profile("modelfleet")
LOOPBACK = ["127.0.0.0/8", "::1"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    shared = {item.path for item in items if item.get_closest_marker("docker")}
    for item in items:
        # Of a run in several processes (`pytest -n 2`) one has all that uses the engine; the others take file by file.
        item.add_marker(pytest.mark.xdist_group("engine" if item.path in shared else str(item.path)))
        if item.path.is_relative_to(TESTS / "unit") or item.path.is_relative_to(TESTS / "protocol"):
            item.add_marker(pytest.mark.allow_hosts(LOOPBACK))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") and (complaint := engine_complaint()):
        sentence = f"no Docker Engine answers ({complaint}); start one with `make engine`"
        if os.environ.get("CI") or os.environ.get("MODELFLEET_TEST_DOCKER") == "required":
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)
    if item.get_closest_marker("prometheus") and not (shutil.which("prometheus") and shutil.which("promtool")):
        fail_or_skip("prometheus and promtool are not installed; `apt-get install prometheus`")
    if item.get_closest_marker("npm") and not (shutil.which("npm") and shutil.which("node")):
        fail_or_skip("npm and node are not installed; `apt-get install npm`")
    if item.get_closest_marker("browser") and (complaint := browser_complaint()):
        fail_or_skip(complaint)


def fail_or_skip(sentence: str) -> NoReturn:
    """CI has what tests need; elsewhere they say what they miss."""
    if os.environ.get("CI"):
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def browser_complaint() -> str:
    """What a test in the browser misses, "" if nothing."""
    if not shutil.which("chromium-headless-shell"):
        return "chromium-headless-shell is not installed; `apt-get install chromium-headless-shell`"
    if not (CONSOLE / "static/vendor/uPlot.esm.js").exists() or not (CONSOLE / "node_modules/axe-core").exists():
        return "what the console takes from npm is not here; `apt-get install npm && make setup`"
    return ""


@functools.cache
def engine_complaint() -> str:
    """Why no Docker Engine can be used, "" if one answers. Asked once a run."""
    try:
        client = docker.from_env(timeout=10)
        try:
            client.ping()
        finally:
            client.close()
    except docker.errors.DockerException as exc:
        return str(exc)
    return ""


@pytest.fixture
def cluster() -> str:
    """A cluster name that no other test or person uses on this engine."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """An empty state directory, private as the control plane would make it."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a port that nobody listens on; each call another one."""
    return ports.free_port
