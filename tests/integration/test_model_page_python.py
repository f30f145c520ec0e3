"""The examples of docs/models/python.md: written, served and asked as the page says, with the answers that it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.fakes.replica import ready_replica

PAGE = (Path(__file__).parents[2] / "docs" / "models" / "python.md").read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CURL = re.compile(r"curl -sN? localhost:8080(\S+)(?: -d\s+'(.*?)')?$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+)\n")
SECTIONS = {text.partition("\n")[0]: _BLOCK.findall(text) for text in PAGE.split("\n## ")}


def write(root: Path, blocks: list[tuple[str, str]]) -> Path:
    """The directory of the one model that the blocks make. Trains what is to be trained."""
    files = {named[1]: code for _, code in blocks if (named := _FILE.match(code))}
    train = files.pop("train.py", "")
    for name, code in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(code)
    if train:
        subprocess.run([sys.executable, "-W", "ignore", "-c", train], cwd=root, check=True)
    return (root / next(iter(files))).parent


@pytest.mark.parametrize(
    "section",
    ["A class", "Batches", "Streams", "Explanations", "HTTP paths of your own", "async def", "Pipelines"],
)
def test_an_example_answers_what_the_page_shows(section: str, tmp_path: Path) -> None:
    blocks = SECTIONS[section]
    directory = write(tmp_path, blocks)
    if section == "A class":
        (directory / "weights.json").write_text(next(code for kind, code in blocks if kind == "json"))
    requests = [found for kind, code in blocks if kind == "bash" for found in _CURL.findall(code)]
    kind, shown = [block for block in blocks if block[0] in ("json", "text")][-1]
    backend = "python" if (directory / "model.py").exists() else "sklearn"

    with ready_replica(directory, backend=backend, model=directory.parent.name) as replica:
        answers = [
            httpx.post(replica.url + path, content=body) if body else httpx.get(replica.url + path)
            for path, body in requests
        ]

    assert requests
    said = [answer.text for answer in answers]
    if kind == "json":
        assert [json.loads(text) for text in said] == [json.loads(line) for line in shown.splitlines()]
    else:
        assert "".join(said).split() == shown.split()
