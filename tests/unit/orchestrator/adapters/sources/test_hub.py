"""Sources by `hf://` from a hub of the test's own: revisions, parts, tokens, large files elsewhere, damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.sources.remote import Patience
from orchestrator.core.errors import UnavailableError, UserError
from orchestrator.core.sources import Source
from tests.fakes.file_server import FileServer
from tests.fakes.model_hub import ModelHub

HERE = Path("/")
LARGE = bytes(range(256)) * 2048
FILES = {"config.json": b"{}", "onnx/model.onnx": LARGE, "a b/é.txt": b"odd", ".gitattributes": b"* lfs"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelHub]:
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with FileServer() as server, FileServer() as storage:
        monkeypatch.setenv("HF_ENDPOINT", server.url())
        yield ModelHub(server, storage, token="t0ken")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: ModelHub) -> ArtifactStore:
    monkeypatch.setenv("HF_TOKEN", "t0ken")
    return ArtifactStore(tmp_path / "store", Patience(0.01, 0.02, 4))


def fetched(store: ArtifactStore, source: str) -> dict[str, bytes]:
    root = store.fetch(Source(source), HERE).path
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_takes_a_revision_whole_but_for_the_hubs_own_files(store: ArtifactStore, hub: ModelHub) -> None:
    hub.commit("owner/iris", FILES, "main")

    assert fetched(store, "hf://owner/iris") == {n: c for n, c in FILES.items() if n != ".gitattributes"}


@pytest.mark.parametrize(
    ("path", "files"), [("onnx", {"model.onnx": LARGE}), ("onnx/model.onnx", {"model.onnx": LARGE})]
)
def test_takes_a_part(store: ArtifactStore, hub: ModelHub, path: str, files: dict[str, bytes]) -> None:
    hub.commit("owner/iris", FILES, "refs/pr/1")

    assert fetched(store, f"hf://owner/iris@refs%2Fpr%2F1/{path}") == files


def test_the_token_goes_to_the_hub_and_not_to_its_storage(store: ArtifactStore, hub: ModelHub) -> None:
    hub.commit("owner/iris", FILES, "main")

    fetched(store, "hf://owner/iris")

    assert {each.fields.get("authorization") for each in hub.server.requests} == {"Bearer t0ken"}
    assert {each.fields.get("authorization") for each in hub.storage.requests} == {None}


def test_a_stored_token_is_found(
    store: ArtifactStore, hub: ModelHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN")
    hub.commit("owner/iris", FILES, "main")

    assert "config.json" in fetched(store, "hf://owner/iris")


def test_an_unchanged_branch_is_not_fetched_again(store: ArtifactStore, hub: ModelHub) -> None:
    hub.commit("owner/iris", FILES, "main")
    first = store.fetch(Source("hf://owner/iris"), HERE)
    hub.server.requests.clear()

    assert ArtifactStore(store.root).look(Source("hf://owner/iris"), HERE).digest == first.digest
    assert [each.path for each in hub.server.requests] == ["/api/models/owner/iris/revision/main"]


def test_a_commit_that_leaves_a_part_alone_changes_nothing_of_it(store: ArtifactStore, hub: ModelHub) -> None:
    hub.commit("owner/iris", FILES, "main")
    first = store.fetch(Source("hf://owner/iris/onnx"), HERE)
    hub.commit("owner/iris", {**FILES, "README.md": b"words"}, "main")

    assert store.look(Source("hf://owner/iris/onnx"), HERE).digest == first.digest
    assert store.look(Source("hf://owner/iris"), HERE).digest == ""


def test_a_cut_download_goes_on_in_the_storage(store: ArtifactStore, hub: ModelHub) -> None:
    hub.commit("owner/iris", FILES, "main")
    (path,) = hub.storage.files
    hub.storage.files[path].cuts = [131072, 131072]

    assert fetched(store, "hf://owner/iris")["onnx/model.onnx"] == LARGE
    assert [each.fields.get("range") for each in hub.storage.requests] == [None, "bytes=131072-", "bytes=262144-"]


def test_damage_on_the_way_is_found(store: ArtifactStore, hub: ModelHub) -> None:
    hub.commit("owner/iris", FILES, "main")
    (path,) = hub.storage.files
    hub.storage.files[path].content = LARGE[::-1]

    with pytest.raises(UnavailableError, match=r"onnx/model.onnx arrived with SHA-256 .* was promised"):
        fetched(store, "hf://owner/iris")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf://owner/other", "knows no such repository or revision, or hides it; correct it, or set HF_TOKEN"),
        ("hf://owner/iris@v9", "knows no such repository or revision"),
        ("hf://owner/iris/torch", "the repository has no 'torch' in this revision"),
    ],
)
def test_what_is_not_there(store: ArtifactStore, hub: ModelHub, source: str, said: str) -> None:
    hub.commit("owner/iris", FILES, "main")

    with pytest.raises(UserError, match=said):
        store.look(Source(source), HERE)


def test_a_wrong_token(store: ArtifactStore, hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("owner/iris", FILES, "main")
    monkeypatch.setenv("HF_TOKEN", "other-t0ken")

    with pytest.raises(UserError, match="answered 401") as caught:
        store.look(Source("hf://owner/iris"), HERE)
    assert "t0ken" not in str(caught.value)
