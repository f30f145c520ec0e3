"""What a real tracking server is not made to say in `tests/integration/test_sources_mlflow.py`: logins, other places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.sources.remote import Patience
from orchestrator.core.errors import UserError
from orchestrator.core.sources import Source
from tests.fakes.file_server import FileServer

HERE = Path("/")
API = "/api/2.0/mlflow"
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    with FileServer() as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.url())
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", Patience(0.01, 0.02, 2))


def say(server: FileServer, path: str, answer: object, **how: object) -> None:
    server.put(path, json.dumps(answer).encode(), kind="application/json", **how)


def register(server: FileServer, uri: str, **how: object) -> None:
    """One version of `iris`, whose files lie at `uri`; with the server, one file."""
    version = {"name": "iris", "version": "3", "source": uri, "creation_timestamp": 1}
    say(server, f"{API}/model-versions/get", {"model_version": version}, **how)
    say(server, f"{API}/model-versions/get-download-uri", {"artifact_uri": uri}, **how)
    listing = {"files": [{"path": "model.bin", "is_dir": False, "file_size": "7"}]}
    say(server, "/api/2.0/mlflow-artifacts/artifacts", listing, **how)
    server.put("/api/2.0/mlflow-artifacts/artifacts/1/iris/model.bin", b"weights", **how)


@pytest.mark.parametrize(
    ("environ", "field"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "t0ken"}, "Bearer t0ken"),
        ({"MLFLOW_TRACKING_USERNAME": "user", "MLFLOW_TRACKING_PASSWORD": "p@ss"}, "Basic dXNlcjpwQHNz"),
    ],
)
def test_logs_in_as_mlflow_does(
    store: ArtifactStore, server: FileServer, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], field: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    register(server, "mlflow-artifacts:/1/iris", wants=field)

    artifact = store.fetch(Source("models:/iris/3"), HERE)

    assert (artifact.path / "model.bin").read_bytes() == b"weights"


def test_a_missing_login_is_said(store: ArtifactStore, server: FileServer) -> None:
    register(server, "mlflow-artifacts:/1/iris", wants="Bearer t0ken")

    with pytest.raises(UserError, match=r"source models:/iris/3: 127.0.0.1 answered 401"):
        store.look(Source("models:/iris/3"), HERE)


@pytest.mark.parametrize("uri", ["file:///etc", "/etc", "./mlruns/1", "dbfs:/models", "memory://x::file:///etc"])
def test_a_server_cannot_name_files_of_this_machine(store: ArtifactStore, server: FileServer, uri: str) -> None:
    register(server, uri)

    with pytest.raises(UserError, match="which only the tracking server reads; start it with --serve-artifacts"):
        store.look(Source("models:/iris/3"), HERE)


def test_a_server_cannot_send_its_login_elsewhere(store: ArtifactStore, server: FileServer) -> None:
    register(server, "mlflow-artifacts://other.example/1/iris")

    with pytest.raises(UserError, match=r"its files lie with another server, other.example; name that one"):
        store.look(Source("models:/iris/3"), HERE)


def test_a_file_of_another_web_server_is_fetched_without_our_login(
    store: ArtifactStore, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    with FileServer() as other:
        register(server, other.put("/iris.bin", b"weights"))

        store.fetch(Source("models:/iris/3"), HERE)

        assert {each.fields.get("authorization") for each in other.requests} == {None}


def test_what_is_no_mlflow_is_said(store: ArtifactStore, server: FileServer) -> None:
    server.put(f"{API}/model-versions/get", b"<html>hello</html>", kind="text/html")

    with pytest.raises(UserError, match="did not answer with JSON; correct the address"):
        store.look(Source("models:/iris/3"), HERE)
