"""One model server in a process of its own, for benchmarks of it alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def server(directory: Path, max_size: int | str, backend: str = "python") -> Iterator[int]:
    """A model server in a process of its own, and the port where it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    environ = {
        "MODELFLEET_MODEL": "bench",
        "MODELFLEET_VERSION": "1",
        "MODELFLEET_BACKEND": backend,
        "MODELFLEET_MODEL_DIR": str(directory),
        "MODELFLEET_PORT": str(port),
        "MODELFLEET_CPUS": "1",
        "MODELFLEET_SETTINGS": json.dumps({"concurrency": 128, "batching": {"max_size": max_size}}),
    }
    process = subprocess.Popen([sys.executable, "-m", "worker_image.server"], env={**os.environ, **environ})
    try:
        _wait_until_ready(process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"the model server on port {port} did not become ready; its log is above")
