"""What is remembered of sources: nothing of their addresses, nothing that is broken, nothing that was removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.sources.memory import Known, SourceMemory, key_of
from orchestrator.core.sources import Source

SOURCE = Source("https://user:s3cret@models.example.com/iris.onnx?sig=s3cret")
KNOWN = Known("state", "ab" * 32, "cd" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sources.json"


def test_another_process_remembers_too(path: Path) -> None:
    SourceMemory(path).learn(SOURCE, KNOWN)

    assert SourceMemory(path).of(SOURCE) == KNOWN


def test_nothing_of_an_address_is_written(path: Path) -> None:
    SourceMemory(path).learn(SOURCE, KNOWN)

    assert b"s3cret" not in path.read_bytes()
    assert b"example.com" not in path.read_bytes()


@pytest.mark.parametrize("broken", ["{half", "[]", '{"a": {"state": 1}}', '{"a": 5}'])
def test_what_is_broken_is_forgotten(path: Path, broken: str) -> None:
    path.write_text(broken)
    memory = SourceMemory(path)

    assert memory.of(SOURCE) is None
    memory.learn(SOURCE, KNOWN)
    assert SourceMemory(path).of(SOURCE) == KNOWN


def test_what_was_removed_is_forgotten(path: Path) -> None:
    memory = SourceMemory(path)
    memory.learn(SOURCE, KNOWN)
    memory.learn_unpacked("ef" * 32, ".zip", "01" * 32)

    memory.forget_all_but({"01" * 32})

    assert memory.of(SOURCE) is None
    assert memory.unpacked("ef" * 32, ".zip") == "01" * 32


def test_a_pin_does_not_make_another_source_and_unpacking_does() -> None:
    text = "https://models.example.com/iris.zip"

    assert key_of(Source(text)) == key_of(Source(text, sha256="ab" * 32))
    assert key_of(Source(text)) != key_of(Source(text, unpack=False))
