"""The complete examples of docs/models: trained, served and asked as the page says, with the answers that it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.manifest import VersionConfig, load
from tests.fakes.replica import ready_replica

PAGES = Path(__file__).parents[2] / "docs" / "models"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CURL = re.compile(r"curl -s localhost:8080(\S+) -d\s+'(.*?)'", re.DOTALL)


class Page:
    """One page's blocks of code, each as it stands there."""

    def __init__(self, name: str) -> None:
        text = (PAGES / f"{name}.md").read_text()
        example = text[text.index("## Complete example") : text.index("\n## What ") if "\n## What " in text else None]
        blocks = _BLOCK.findall(example)
        self.python = next(code for kind, code in blocks if kind == "python")
        self.manifest = load(next(code for kind, code in blocks if kind == "yaml"), base_dir=Path("/"), file=name)
        self.model, config = next(iter(self.manifest.models.items()))
        self.version: VersionConfig = config.versions["1"]
        json_blocks = [code for kind, code in blocks if kind == "json"]
        self.answers = [json.loads(line) for line in json_blocks[-1].splitlines()]
        self.signature = json_blocks[0] if len(json_blocks) > 1 else ""
        bash = next(code for kind, code in blocks if kind == "bash")
        self.requests = _CURL.findall(bash)

    def train(self, root: Path) -> Path:
        directory = root / str(self.version.source)
        directory.mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", self.python], cwd=root, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        if self.signature:
            (directory / "signature.json").write_text(self.signature)
        return directory


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["sklearn", "xgboost", "lightgbm", "catboost", "onnx"])
def test_an_example_answers_what_its_page_shows(name: str, tmp_path: Path) -> None:
    page = Page(name)
    directory = page.train(tmp_path)
    settings = json.dumps({"outputs": page.version.outputs})

    with ready_replica(
        directory, backend=str(page.version.backend), model=page.model, MODELFLEET_SETTINGS=settings
    ) as replica:
        answers = [httpx.post(replica.url + path, content=body).json() for path, body in page.requests]

    assert len(page.requests) == len(page.answers) > 0
    for answer, shown in zip(answers, page.answers, strict=True):
        assert _rounded(answer) == _rounded(shown)


def _rounded(value: Any) -> Any:
    """Other releases of a framework differ in the last digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 1) if isinstance(value, float) else value
