"""KServe's own client through the real gateway, in an environment of its own: it wants other releases than we do.

The environment is made once for each lock, under build/. Where it cannot be made (no package index), the test is
skipped; CI has one.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import models
from tests.fakes.replica import free_port, ready_replica
from tests.fakes.serving import gateway

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "kserve.lock"
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
ECHO = """
class Model:
    def load(self, path): ...
    def predict(self, inputs): return inputs
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with the client."""
    place = ROOT / "build" / f"kserve-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}-{sys.version_info.minor}"
    interpreter, made = place / "bin" / "python", place / "made"
    if not made.exists():
        uv = [sys.executable, "-m", "uv"]
        install = ["pip", "install", "--quiet", "--python", str(interpreter), "--require-hashes", "-r", str(LOCK)]
        for command in (["venv", "--quiet", "--clear", "--python", sys.executable, str(place)], install):
            done = subprocess.run([*uv, *command], capture_output=True, text=True, check=False)
            if done.returncode:
                said = f"the kserve client cannot be installed here: {done.stderr.strip()[-500:]}"
                (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
        made.touch()
    return interpreter


@pytest.mark.timeout(600)
def test_predicts_and_reads_health_with_json_and_binary_tensors(python: Path, tmp_path: Path) -> None:
    with (
        ready_replica(models.iris(tmp_path / "iris", named_classes=True)) as iris,
        ready_replica(models.python(tmp_path / "echo", ECHO), backend="python", model="echo") as echo,
        gateway(tmp_path, iris, echo, grpc_port=(port := free_port())) as url,
    ):
        said = asked(python, url, f"127.0.0.1:{port}")

    direct = models.iris_estimator(named_classes=True)
    labels, scores = direct.predict(ROWS).tolist(), direct.predict_proba(ROWS).tolist()
    refused = said.pop("refused")
    assert "each row has 4 numbers" in refused
    assert "'400 Bad Request'" in refused
    assert said == {
        "live": True,
        "ready": True,
        "model ready": True,
        "no model ready": False,
        "json": ["7", labels, scores],
        "binary": ["7", labels, scores],
        "echoed": [
            "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
        ],
        "strings": ["", "é", "text"],
        "grpc": {
            "typed": ["7", labels],
            "raw": ["7", labels],
            "refused": "NOT_FOUND: model 'nobody' is not served here; models: echo, iris",
            "ready": [True, True, True],
        },
        "v1": {"predictions": labels},
    }  # fmt: skip


def asked(python: Path, *addresses: str) -> dict[str, Any]:
    script = Path(__file__).parents[1] / "fakes" / "kserve_client.py"
    done = subprocess.run(
        [str(python), str(script), *addresses], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
