"""Real servers of the places that sources lie in, each a process on a port of its own that ends with its `with` block.

They come from `scripts/source_servers.sh`, which installs them once into a folder of the clone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.integration.cluster import REPOSITORY, pick_port, until

HOME = REPOSITORY / ".source-servers"
PYTHON = HOME / "venv" / "bin" / "python"
AZURITE = HOME / "npm" / "node_modules" / ".bin" / "azurite-blob"
# Azurite's one account, whose key is public: it stands in Microsoft's documentation of the emulator.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Place:
    """A server with the environment that leads clients to it. `bucket` is the start of an address there."""

    scheme: str
    environ: dict[str, str]
    bucket: str
    port: int


def install() -> None:
    subprocess.run(["bash", "scripts/source_servers.sh"], cwd=REPOSITORY, check=True, timeout=600)


def has_azurite() -> bool:
    return AZURITE.exists() and shutil.which("node") is not None


@contextlib.contextmanager
def s3(root: Path) -> Iterator[Place]:
    port = pick_port()
    command = [PYTHON.with_name("moto_server"), "-H", "127.0.0.1", "-p", port]
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "s3cret-id",
        "AWS_SECRET_ACCESS_KEY": "s3cret-key",
        "AWS_REGION": "us-east-1",
    }
    with _running(command, root / "s3.log", lambda: _answers(f"http://127.0.0.1:{port}/moto-api/")):
        yield Place("s3", environ, "s3://models", port)


@contextlib.contextmanager
def gs(root: Path) -> Iterator[Place]:
    port = pick_port()
    command = [PYTHON.with_name("gcp-storage-emulator"), "start", "--host", "127.0.0.1", "--port", port, "--in-memory"]
    environ = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
    with _running(command, root / "gs.log", lambda: _listens(port)):
        yield Place("gs", environ, "gs://models", port)


@contextlib.contextmanager
def az(root: Path) -> Iterator[Place]:
    port = pick_port()
    command = [AZURITE, "--blobHost", "127.0.0.1", "--blobPort", port, "--inMemoryPersistence", "--silent"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    endpoint = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={endpoint}"
    )
    with _running(command, root / "az.log", lambda: _listens(port)):
        yield Place("az", {"AZURE_STORAGE_CONNECTION_STRING": connection}, "az://models", port)


@contextlib.contextmanager
def mlflow(root: Path, artifacts: str) -> Iterator[Place]:
    """A tracking server that keeps files under `artifacts`, which it serves itself."""
    port = pick_port()
    command = [PYTHON.with_name("mlflow"), "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", artifacts]
    environ = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    url = f"http://127.0.0.1:{port}"
    with _running(command, root / "mlflow.log", lambda: _answers(f"{url}/health"), environ):
        yield Place("mlflow", {"MLFLOW_TRACKING_URI": url}, url, port)


@contextlib.contextmanager
def _running(
    command: list[object], log: Path, is_up: Callable[[], bool], environ: dict[str, str] | None = None
) -> Iterator[None]:
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=stream, stderr=stream, cwd=log.parent, start_new_session=True,
            env={**os.environ, **(environ or {})},
        )  # fmt: skip
    try:

        def ask() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            return is_up()

        until(f"{Path(str(command[0])).name} answers", ask, within_s=110)
        yield
    finally:
        # Its children too: mlflow starts workers.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
