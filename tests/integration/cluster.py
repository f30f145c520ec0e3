"""A whole cluster as a user has it: a control plane in a process of its own, driven through its admin API.

`Cluster.close` ends all of it, whatever a test did to it, and fails when something had to be killed for that. `Load`
keeps connections busy with predictions and remembers every answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from tests.fakes.ports import free_port as pick_port

__all__ = ["BODY", "MODEL", "REPOSITORY", "Cluster", "Load", "fleet", "pick_port", "until"]

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
MODEL = """
import hashlib, os, sys, threading, time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
LOAD

    def predict(self, inputs):
PREDICT
"""
BODY = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]}


def until(what: str, ask: Callable[[], T | None], within_s: float = 20.0) -> T:
    """The first answer that is neither None nor false."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s:g} s: {what}")


class Cluster:
    """One state directory, its ports, and the control plane on it. `root` holds sources beside the state; `python` runs
    the code of `directory`, or what it has installed itself where that is another."""

    def __init__(self, root: Path, name: str, free_port: Callable[[], int], engine: str = "process") -> None:
        self.root = root
        self.name = name
        self.engine = engine
        self.state_dir = root / "state"
        self.api_port, self.gateway_port, self.metrics_port = free_port(), free_port(), free_port()
        self.grpc_port = free_port()
        self.python, self.directory = Path(sys.executable), REPOSITORY
        self.environ: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None

    # -- the control plane's process -------------------------------------------------------------------------

    def start(self) -> Cluster:
        """Starts a control plane and waits until its admin API answers."""
        (self.root / "state").mkdir(mode=0o700, exist_ok=True)
        self.process = self.spawn()
        until("the control plane answers", self._is_up)
        return self

    def spawn(self, **options: Any) -> subprocess.Popen[str]:
        """A control plane's process on this state directory, whether or not it can live."""
        ports = {
            "MODELFLEET_GATEWAY_PORT": self.gateway_port,
            "MODELFLEET_GRPC_PORT": self.grpc_port,
            "MODELFLEET_METRICS_PORT": self.metrics_port,
        }
        environ = {**os.environ, **self.environ, **{k: str(v) for k, v in ports.items()}}
        command = [str(self.python), "-m", "orchestrator", "--state-dir", str(self.state_dir)]
        command += ["--api-port", str(self.api_port), "--cluster", self.name, "--engine", self.engine]
        with open(self.root / "control.log", "a") as log:
            streams = {"stdout": log, "stderr": log, **options}
            return subprocess.Popen(
                command, cwd=self.directory, env=environ, text=True, start_new_session=True, **streams
            )

    def kill(self) -> None:
        """SIGKILL to the control plane alone."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(5)

    def down(self) -> None:
        """`POST /down`, and waits for the control plane to end."""
        assert self.process is not None
        assert self.api("POST", "/down", json={}).status_code == 202
        assert self.process.wait(30) == 0

    def close(self) -> None:
        """Ends everything; what `down` would have left is killed and reported."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                self.api("POST", "/down", json={})
                self.process.wait(30)
        elif self.processes() or self.containers():
            self.start().down()
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(5)
        assert not left, f"left behind: {left}"

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "control.log").read_text()[-4000:]
        with contextlib.suppress(OSError, ValueError, httpx.HTTPError):
            if json.loads((self.state_dir / "control.json").read_text())["pid"] != self.process.pid:
                return False
            return self.api("GET", "/status").status_code == 200
        return False

    # -- the admin API -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return str(json.loads((self.state_dir / "control.json").read_text())["url"])

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        token = (self.state_dir / "token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=40, headers=headers) as client:
            return client.request(method, f"/api/v1{path}", **options)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.api("GET", path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def request(self, manifest: dict[str, Any] | str) -> dict[str, str]:
        """The body of a plan or an apply."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return {"text": text, "file": "models.yaml", "base_dir": str(self.root)}

    def begin(self, manifest: dict[str, Any]) -> str:
        """Begins an apply; returns the operation's id."""
        answer = self.api("POST", "/apply", json=self.request(manifest))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def ended(self, operation: str, within_s: float = 40.0) -> dict[str, Any]:
        """The operation once it ended."""

        def ask() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/operations/{operation}", wait_s=2)
            return found if found["ended_at"] else None

        return until(f"operation {operation} ends", ask, within_s)

    def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Applies and expects success."""
        ended = self.ended(self.begin(manifest))
        assert ended["state"] == "succeeded", ended
        return ended

    def version(self, model: str, version: str = "1") -> dict[str, Any]:
        """A version's status."""
        models = {m["name"]: m for m in self.get("/status")["models"]}
        found: dict[str, Any] = next(v for v in models[model]["versions"] if v["version"] == version)
        return found

    def events(self, kind: str, after: int = 0) -> list[dict[str, Any]]:
        return [e for e in self.get("/events", after=after, limit=1000) if e["kind"] == kind]

    # -- models and predictions ----------------------------------------------------------------------------------

    def write_model(self, name: str, answer: float = 1.0, *, load: str = "pass", predict: str = "") -> str:
        """Writes (or changes) a source directory with a `model.py`; returns its path as a manifest names it."""
        directory = self.root / name
        directory.mkdir(exist_ok=True)
        code = MODEL.replace("LOAD", textwrap.indent(load, " " * 8))
        predict = f"{predict}\nreturn inputs['x'] * 0 + {answer}".strip()
        (directory / "model.py").write_text(code.replace("PREDICT", textwrap.indent(predict, " " * 8)))
        return name

    def send(self, model: str, path: str = "") -> httpx.Response:
        """One prediction through the gateway."""
        url = f"http://127.0.0.1:{self.gateway_port}/v2/models/{model}{path}/infer"
        return httpx.post(url, json=BODY, trust_env=False, timeout=30)

    def predict(self, model: str, path: str = "") -> float:
        answer = self.send(model, path)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["outputs"][0]["data"][0])

    @contextlib.contextmanager
    def load(self, model: str, connections: int = 8) -> Iterator[Load]:
        """Keeps `connections` busy with predictions while the block runs."""
        load = Load(self.gateway_port, model, connections)
        load.start()
        until("every connection predicted", lambda: len(load.answers) >= 2 * connections)
        try:
            yield load
        finally:
            load.stop()

    # -- what runs -------------------------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """Every live process that works in this state directory or was started with it in its arguments."""
        return [p for p in psutil.process_iter() if p.pid != os.getpid() and _mentions(p, str(self.state_dir))]

    def server(self, replica: str) -> psutil.Process:
        """The process of a replica's model server (process engine)."""
        record = self.state_dir / "processes" / self.name / replica / "pids.json"
        return psutil.Process(json.loads(record.read_text())["server"])

    def containers(self) -> list[str]:
        return self._labelled("ps", "-a") if self.engine == "docker" else []

    def networks(self) -> list[str]:
        return self._labelled("network", "ls")

    def _labelled(self, *command: str) -> list[str]:
        label = f"label=modelfleet.cluster={self.name}"
        done = subprocess.run(["docker", *command, "-q", "--filter", label], capture_output=True, text=True, check=True)
        return done.stdout.split()


class Load:
    """Predictions without a pause on connections that are kept. `answers` are values, `failures` anything else."""

    def __init__(self, port: int, model: str, connections: int) -> None:
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._port = port
        self._path = f"/v2/models/{model}/infer"
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(connections)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        body, fields = json.dumps(BODY), {"content-type": "application/json"}
        # The pause leaves the two cores of a small machine to what is tested.
        while not self._ended.wait(0.004):
            try:
                connection.request("POST", self._path, body, fields)
                answer = connection.getresponse()
                self._note(answer.status, answer.read())
            except (OSError, http.client.HTTPException) as exc:
                self.failures.append(repr(exc))
                connection.close()
        connection.close()

    def _note(self, status: int, body: bytes) -> None:
        if status == http.client.OK:
            self.answers.append(float(json.loads(body)["outputs"][0]["data"][0]))
        else:
            self.failures.append(f"{status}: {body[:300]!r}")


def fleet(**models: Any) -> dict[str, Any]:
    """A manifest of models with the python backend; a model is a source, {version: source}, or a section."""
    return {"defaults": {"backend": "python"}, "models": {name: _section(m) for name, m in models.items()}}


def _section(model: Any) -> dict[str, Any]:
    if isinstance(model, str):
        model = {"1": model}
    if "versions" in model:
        return dict(model)
    return {"versions": {v: {"source": s} if isinstance(s, str) else s for v, s in model.items()}}


def _mentions(process: psutil.Process, directory: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(directory in word for word in process.cmdline()) or process.cwd().startswith(directory)
    except psutil.Error:
        return False
