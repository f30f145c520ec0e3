"""A manifest's sources together: each asked once, every fault at its line, credentials read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.sources.remote import Patience
from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import UnavailableError
from orchestrator.loops.sources import Fetching, Watcher, access_of, fetch_all, look_at_all
from orchestrator.manifest import Manifest, ManifestError, check_world, load
from tests.fakes.file_server import FileServer


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", Patience(0.01, 0.02, 2))


def manifest(versions: dict[str, str], base_dir: Path = Path("/"), sources: str = "") -> Manifest:
    lines = [f'      "{name}": {{source: "{source}", backend: onnx}}' for name, source in versions.items()]
    text = "\n".join([sources, "models:", "  iris:", "    versions:", *lines]).lstrip()
    return load(text, file="models.yaml", base_dir=base_dir)


def test_one_source_of_many_versions_is_asked_once(store: ArtifactStore, server: FileServer) -> None:
    url = server.put("/model.onnx", b"weights")

    seen = look_at_all(store, manifest({"1": url, "2": url, "3": url}))

    assert len(seen) == 3
    assert len(server.requests) == 1


def test_every_fault_is_said_at_its_line_also_what_may_pass(
    store: ArtifactStore, server: FileServer, tmp_path: Path
) -> None:
    busy = server.put("/busy.onnx", b"weights", statuses=[503] * 9)

    with pytest.raises(ManifestError) as caught:
        look_at_all(store, manifest({"1": server.url("/gone.onnx"), "2": "nowhere", "3": busy}, tmp_path))

    said = [(each.line, each.field, each.message) for each in caught.value.diagnostics]
    assert [(line, field) for line, field, _ in said] == [
        (4, "models.iris.versions.1.source"),
        (5, "models.iris.versions.2.source"),
        (6, "models.iris.versions.3.source"),
    ]
    assert "answered 404" in said[0][2]
    assert "does not exist" in said[1][2]
    assert "answered 503" in said[2][2]


def test_what_the_manifest_cannot_mend_is_no_fault_of_it(store: ArtifactStore, server: FileServer) -> None:
    urls = {name: server.put(f"/{name}.onnx", b"weights", statuses=[503] * 9) for name in ("1", "2")}

    with pytest.raises(UnavailableError) as caught:
        look_at_all(store, manifest(urls))

    assert str(caught.value).count("answered 503") == 2


def test_a_fetch_tells_what_it_does(store: ArtifactStore, server: FileServer) -> None:
    server.put("/model.onnx", b"weights")
    source = f"{server.url(user='ci:s3cret@')}/model.onnx"
    steps: list[str] = []
    bytes_: list[Fetching] = []

    fetched = fetch_all(store, manifest({"1": source}), Watcher(steps.append, bytes_.append))

    shown = f"http://***@127.0.0.1:{server.port}/model.onnx"
    assert steps == [f"reading the source of iris@1: {shown}"]
    assert bytes_ == [Fetching(VersionKey("iris", "1"), shown, 7, 7)]
    assert fetched[VersionKey("iris", "1")].size_bytes == 7


def test_credentials_are_read_from_where_the_manifest_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t0ken")
    (tmp_path / "password").write_text("p@ss\n")
    written = """
sources:
  max_size: 1Gi
  credentials:
    a.example: {token: {env: TOKEN}}
    b.example:8443: {token: {env: TOKEN}, header: PRIVATE-TOKEN}
    c.example: {user: user, password: {file: password}}
"""

    access = access_of(manifest({"1": "m"}, tmp_path, written))

    assert access.max_bytes == 1024**3
    assert {host: (each.header, each.value) for host, each in access.credentials.items()} == {
        "a.example": ("authorization", "Bearer t0ken"),
        "b.example:8443": ("PRIVATE-TOKEN", "t0ken"),
        "c.example": ("authorization", "Basic dXNlcjpwQHNz"),
    }
    assert "t0ken" not in repr(access)


def test_credentials_without_a_value_are_missed_before_anything_is_asked(tmp_path: Path) -> None:
    written = "sources: {credentials: {a.example: {token: {env: NO_TOKEN}}, b.example: {token: {file: none}}}}\n"

    found = check_world(manifest({"1": "https://a.example/m"}, tmp_path, written), environ={})

    assert [each.field for each in found] == [
        'sources.credentials["a.example"].token.env',
        'sources.credentials["b.example"].token.file',
    ]
