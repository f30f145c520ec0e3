"""Sources by MLflow from a real tracking server: registered models, aliases, runs, logged models, and a bucket behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.sources.remote import Patience
from orchestrator.core.errors import UserError
from orchestrator.core.sources import Source
from tests.integration import source_servers
from tests.integration.source_servers import Place

# The server imports for a minute on a busy machine.
pytestmark = pytest.mark.timeout(300)
HERE = Path("/")

# Run by MLflow's own client: what lies on the server is what its users have there.
LOG = """
import json, pathlib, sys, boto3, mlflow
from sklearn.linear_model import LinearRegression
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
s3 = boto3.client("s3")
s3.create_bucket(Bucket="models")
s3.put_object(Bucket="models", Key="iris/1/model.bin", Body=b"weights")
with mlflow.start_run() as run:
    pathlib.Path("plain.txt").write_text("plain")
    mlflow.log_artifact("plain.txt", "files/deep")
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    logged = mlflow.sklearn.log_model(
        model, name="model", registered_model_name="iris", pip_requirements=["scikit-learn"], serialization_format="skops"
    )
    running = client.create_run(run.info.experiment_id)
    client.log_artifact(running.info.run_id, "plain.txt")
client.set_registered_model_alias("iris", "champion", "1")
client.create_registered_model("elsewhere")
client.create_model_version("elsewhere", source=sys.argv[2])
client.create_registered_model("moving")
client.create_model_version("moving", source=f"{run.info.artifact_uri}/files", run_id=run.info.run_id)
client.create_model_version("moving", source=sys.argv[2])
client.set_registered_model_alias("moving", "best", "1")
print(json.dumps({"run": run.info.run_id, "running": running.info.run_id, "model": logged.model_id}))
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    source_servers.install()
    root = tmp_path_factory.mktemp("mlflow")
    with ExitStack() as stack:
        bucket = stack.enter_context(source_servers.s3(root))
        place = stack.enter_context(source_servers.mlflow(root, str(root / "artifacts")))
        (root / "work").mkdir()
        environ = {**os.environ, **bucket.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
        done = subprocess.run(
            [source_servers.PYTHON, "-c", LOG, place.bucket, f"{bucket.bucket}/iris/1"], cwd=root / "work", env=environ,
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        yield {"place": place, "bucket": bucket, **json.loads(done.stdout.strip().splitlines()[-1])}


@pytest.fixture
def place(servers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    found: Place = servers["place"]
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**found.environ, **servers["bucket"].environ}.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield found
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", Patience(0.01, 0.02, 4))


def names(store: ArtifactStore, source: str) -> set[str]:
    root = store.fetch(Source(source), HERE).path
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


class TestWhatThereIs:
    @pytest.mark.parametrize(
        "source", ["models:/iris/1", "models:/iris@champion", "mlflow:models/iris/1", "runs:/{run}/model", "models:/{model}"]
    )  # fmt: skip
    def test_one_model_by_every_name(
        self, store: ArtifactStore, place: Place, servers: dict[str, Any], source: str
    ) -> None:
        found = names(store, source.format(**servers))

        assert {"MLmodel", "requirements.txt"} <= found
        assert len(found) >= 5

    def test_the_server_in_the_source(
        self, store: ArtifactStore, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI")

        assert "MLmodel" in names(store, f"mlflow+{place.bucket}/models/iris@champion")

    def test_files_of_a_run(self, store: ArtifactStore, place: Place, servers: dict[str, Any]) -> None:
        assert names(store, f"runs:/{servers['run']}/files") == {"deep/plain.txt"}
        assert names(store, f"runs:/{servers['run']}/files/deep/plain.txt") == {"plain.txt"}

    def test_files_that_the_server_keeps_in_a_bucket(self, store: ArtifactStore, place: Place) -> None:
        assert names(store, "models:/elsewhere/1") == {"model.bin"}


class TestLooking:
    def test_a_version_is_known_again_and_a_run_that_goes_on_is_read_again(
        self, store: ArtifactStore, place: Place, servers: dict[str, Any]
    ) -> None:
        version, running = Source("models:/iris/1"), Source(f"runs:/{servers['running']}/plain.txt")

        assert store.look(version, HERE).digest == ""
        fetched = store.fetch(version, HERE)
        assert ArtifactStore(store.root).look(version, HERE).digest == fetched.digest
        assert store.look(running, HERE).digest != ""

    def test_an_alias_that_moves_is_a_change(self, store: ArtifactStore, place: Place, servers: dict[str, Any]) -> None:
        source = Source("models:/moving@best")
        first = store.fetch(source, HERE)
        assert store.look(source, HERE).digest == first.digest

        alias = {"name": "moving", "alias": "best", "version": "2"}
        url = f"{place.bucket}/api/2.0/mlflow/registered-models/alias"
        httpx.post(url, json=alias, trust_env=False, timeout=30).raise_for_status()

        assert store.look(source, HERE).digest == ""
        assert store.fetch(source, HERE).digest != first.digest


class TestRefusals:
    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("models:/iris/9", "knows no version 9 of a model 'iris'"),
            ("models:/none/1", "knows no version 1 of a model 'none'"),
            ("models:/iris@best", "knows no alias 'best' of a model 'iris'"),
            ("runs:/0a1b2c3d4e5f0a1b2c3d4e5f0a1b2c3d/model", "knows no run '0a1b2c3d4e5f0a1b2c3d4e5f0a1b2c3d'"),
            ("models:/m-0123456789abcdef0123456789abcdef", "knows no logged model"),
            ("runs:/{run}/nothing", "nothing is there; it must hold the model's files"),
        ],
    )
    def test_what_is_not_there(
        self, store: ArtifactStore, place: Place, servers: dict[str, Any], source: str, said: str
    ) -> None:
        with pytest.raises(UserError, match=said):
            store.look(Source(source.format(**servers)), HERE)

    @pytest.mark.parametrize("server", ["", "sqlite:///mlflow.db"])
    def test_no_server_that_can_be_asked(
        self, store: ArtifactStore, place: Place, monkeypatch: pytest.MonkeyPatch, server: str
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)

        with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI is .*write the server into the source"):
            store.look(Source("models:/iris/1"), HERE)
