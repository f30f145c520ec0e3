"""The README's own commands, in a fresh clone, on a real engine: what a stranger would type, and what they must see.

The commands are not repeated here: they are read from README.md, between its two `e2e` comments. Only names and ports
are changed, so that the run meets nobody else's cluster. Slow (it installs, builds and trains): nothing else shows that
a clone works.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import psutil
import pytest

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"<!-- e2e: begin -->(.*?)<!-- e2e: end -->", re.DOTALL)
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
EXAMPLES = ("iris", "digits", "diabetes", "text")
# An answer of the Open Inference Protocol; `up` cuts a long one short.
ANSWER = re.compile(r'"model_name": ?"(\w+)"[^\n]*"outputs": ?\[')


def readme_commands() -> list[str]:
    """The README's commands, one string a fenced block, in order."""
    sections = SECTION.findall((ROOT / "README.md").read_text())
    return [block for section in sections for block in BLOCK.findall(section)]


@dataclass(frozen=True)
class Stranger:
    """Somebody with a clone, a home and ports of their own."""

    clone: Path
    environment: dict[str, str]
    port: int

    def types(self, commands: str) -> str:
        """Runs one block of the README as it stands; returns all that it printed. Fails with it, too."""
        script = commands.replace("localhost:8080", f"localhost:{self.port}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"[ ! -f .venv/bin/activate ] || source .venv/bin/activate\n{script}"],
            cwd=self.clone, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
        )  # fmt: skip
        print(f"$ {script}{done.stdout}")
        assert done.returncode == 0, f"exit code {done.returncode}\n$ {script}{done.stdout}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """The last words of control plane and gateway."""
        logs = sorted((Path(self.environment["MODELFLEET_STATE_DIR"]) / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def left_processes(self) -> list[str]:
        """Every process that was started for this state directory and still runs."""
        mark = self.environment["MODELFLEET_STATE_DIR"]
        return [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if mark in _environment_of(p).values()]


def _environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh clone. Whoever comes second finds its `.venv` made, as anybody's second run would."""
    path = tmp_path_factory.mktemp("e2e") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, path], check=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def stranger(clone: Path, tmp_path: Path, cluster: str, free_port: Callable[[], int]) -> Iterator[Stranger]:
    subprocess.run(["git", "checkout", "--quiet", "configs"], cwd=clone, check=True)
    manifest = clone / "configs/models.yaml"
    manifest.write_text(re.sub(r"^cluster: .*$", f"cluster: {cluster}", manifest.read_text(), flags=re.MULTILINE))
    port = free_port()
    stranger = Stranger(clone, _environment(tmp_path, port, free_port), port)
    yield stranger
    # When a test failed half-way its cluster still runs.
    if (clone / ".venv/bin/modelfleet").exists():
        subprocess.run(["make", "down"], cwd=clone, env=stranger.environment, capture_output=True, check=False)


def _environment(tmp_path: Path, port: int, free_port: Callable[[], int]) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    # A clone of one's own has no virtual environment active, and pip's downloads are shared to spare the network.
    inherited = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True)
    return inherited | {
        "HOME": str(tmp_path / "home"),
        "PIP_CACHE_DIR": cache.stdout.strip(),
        "MODELFLEET_STATE_DIR": str(tmp_path / "state"),
        "MODELFLEET_GATEWAY_PORT": str(port),
        "MODELFLEET_GRPC_PORT": str(free_port()),
        "MODELFLEET_METRICS_PORT": str(free_port()),
        "MODELFLEET_API_PORT": str(free_port()),
        "NO_COLOR": "1",
    }


class TestReadme:
    def test_has_commands_from_up_to_down(self) -> None:
        commands = readme_commands()

        assert commands[0].strip() == "make up"
        assert commands[-1].strip() == "make down"

    @pytest.mark.docker
    @pytest.mark.timeout(900)
    def test_commands_work_in_a_fresh_clone(self, stranger: Stranger, cluster: str) -> None:
        up, *middle, down = readme_commands()

        first = stranger.types(up)
        outputs = [stranger.types(block) for block in middle]
        stranger.types(down)

        for model in EXAMPLES:
            assert f"/v2/models/{model}/infer" in first, f"no curl line for {model}"
            assert model in ANSWER.findall(first), f"no prediction of {model}"
        assert "~" in "".join(outputs), "the plan names no change"
        assert '"predictions"' in "".join(outputs)
        assert stranger.left_processes() == []
        assert left_on_engine(cluster) == []


@pytest.mark.timeout(600)
def test_the_same_works_without_docker(stranger: Stranger) -> None:
    first = stranger.types("make up ENGINE=process")
    status = json.loads(stranger.types("modelfleet status --output json"))
    stranger.types("make down")

    assert set(ANSWER.findall(first)) >= set(EXAMPLES)
    assert (status["engine"], status["state"]) == ("process", "converged")
    assert stranger.left_processes() == []


def left_on_engine(cluster: str) -> list[str]:
    """Containers and networks that carry the cluster's label."""
    client = docker.from_env()
    try:
        label = f"modelfleet.cluster={cluster}"
        containers = client.containers.list(all=True, filters={"label": label})
        return [str(found.id) for found in (*containers, *client.networks.list(filters={"label": label}))]
    finally:
        client.close()
