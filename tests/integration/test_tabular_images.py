"""The images of the tabular backends: each with what it needs and no more, serving a model that was really trained.

Models are trained here, with the same libraries. What is served is hardened as every replica is, and its answers are
those of the framework called directly.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from orchestrator.adapters.engine import RuntimeRequest
from orchestrator.adapters.images import ImageBuilder
from tests.fakes import models
from tests.integration.worker_containers import ask, served

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
ROWS, SPECIES = load_iris(return_X_y=True)
NAMES = load_iris().target_names[SPECIES]
# Modules that are of no use to a backend, and must not be in its image.
NOT_WANTED = {
    "sklearn": ["lightgbm", "xgboost", "catboost", "onnxruntime", "matplotlib", "torch"],
    "xgboost": ["sklearn", "pandas", "lightgbm", "catboost", "nvidia", "matplotlib"],
    "catboost": ["sklearn", "pandas", "lightgbm", "xgboost", "matplotlib", "plotly", "graphviz"],
    "lightgbm": ["sklearn", "pandas", "xgboost", "catboost"],
    "onnx": ["sklearn", "pandas", "scipy", "skl2onnx"],
}


@pytest.fixture(scope="module")
def image_of(image_builder: ImageBuilder) -> Callable[[str], str]:
    return lambda backend: image_builder.ensure(RuntimeRequest(backend=backend), print)


def directory_of(path: Path) -> Path:
    path.chmod(0o755)
    return path


def columns(frame: pd.DataFrame) -> list[dict[str, Any]]:
    kinds = {"O": "BYTES", "U": "BYTES", "f": "FP64", "i": "INT64", "b": "BOOL"}
    tensors = []
    for name in frame:
        values = frame[name].tolist()
        kind = kinds[np.array(values).dtype.kind]
        tensors.append({"name": name, "datatype": kind, "shape": [len(values)], "data": values})
    return tensors


def matrix(rows: np.ndarray[Any, Any], datatype: str = "FP64") -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": list(rows.shape), "data": rows.ravel().tolist()}


def shop(rows: int = 120) -> tuple[pd.DataFrame, Any]:
    chance = np.random.default_rng(0)
    city, age = chance.choice(["bonn", "oslo", "rome"], rows), chance.normal(size=rows)
    return pd.DataFrame({"city": city, "age": age}), np.where((city == "oslo") ^ (age > 0), "yes", "no")


@pytest.mark.parametrize("backend", sorted(NOT_WANTED))
def test_an_image_holds_no_other_framework(
    backend: str, image_of: Callable[[str], str], docker_client: docker.DockerClient
) -> None:
    code = f"import importlib.util as i; print([name for name in {NOT_WANTED[backend]} if i.find_spec(name)])"

    found = docker_client.containers.run(
        image_of(backend), ["-c", code], entrypoint=["/opt/venv/bin/python"], network_mode="none", remove=True
    )

    assert found.decode().strip() == "[]"


class TestSklearn:
    @pytest.mark.parametrize("name", ["model.joblib", "model.skops"])
    def test_serves_a_table_of_texts_and_numbers(
        self, name: str, image_of: Callable[[str], str], docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        import skops.io

        frame, target = shop()
        steps = ColumnTransformer([("hot", OneHotEncoder(), ["city"]), ("scale", StandardScaler(), ["age"])])
        trained = make_pipeline(steps, LogisticRegression()).fit(frame, target)
        save = skops.io.dump if name.endswith(".skops") else models.joblib.dump
        save(trained, tmp_path / name)
        wanted = [{"name": "predict"}, {"name": "predict_proba"}]

        with served(docker_client, image_of("sklearn"), directory_of(tmp_path)) as (_, url):
            answer = ask(url, *columns(frame), outputs=wanted)
            objects = {"instances": frame.head(3).to_dict(orient="records")}
            rows = httpx.post(f"{url}/v1/models/m:predict", json=objects).json()

        assert answer["predict"] == trained.predict(frame).tolist()
        np.testing.assert_allclose(np.reshape(answer["predict_proba"], (-1, 2)), trained.predict_proba(frame))
        assert rows["predictions"] == trained.predict(frame.head(3)).tolist()


class TestXgboost:
    def test_serves_classes_by_their_labels(
        self, image_of: Callable[[str], str], docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        import xgboost

        trained = xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(ROWS, SPECIES)
        trained.save_model(tmp_path / "model.ubj")
        (tmp_path / "labels.json").write_text('["setosa", "versicolor", "virginica"]')
        wanted = [{"name": "label"}, {"name": "predict_proba"}, {"name": "contributions"}]

        with served(docker_client, image_of("xgboost"), directory_of(tmp_path)) as (container, url):
            answer = ask(url, matrix(ROWS), outputs=wanted)
            with ThreadPoolExecutor(16) as pool:
                alone = list(pool.map(lambda row: ask(url, matrix(row[None])), ROWS[:40]))
            container.stop(timeout=20)
            ended = container.wait()

        np.testing.assert_allclose(np.reshape(answer["predict_proba"], (-1, 3)), trained.predict_proba(ROWS), rtol=1e-6)
        names = np.array(["setosa", "versicolor", "virginica"])
        assert answer["label"] == names[trained.predict(ROWS)].tolist()
        np.testing.assert_allclose([row["predict"] for row in alone], trained.predict_proba(ROWS[:40]), rtol=1e-6)
        assert ended["StatusCode"] == 0


class TestCatboost:
    def test_serves_categories_and_labels(
        self, image_of: Callable[[str], str], docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        import catboost

        frame, target = shop()
        quiet = {"iterations": 8, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
        trained = catboost.CatBoostClassifier(**quiet).fit(frame, target, cat_features=["city"])
        trained.save_model(str(tmp_path / "model.cbm"))
        wanted = [{"name": "predict"}, {"name": "predict_proba"}, {"name": "contributions"}]

        with served(docker_client, image_of("catboost"), directory_of(tmp_path)) as (_, url):
            answer = ask(url, *columns(frame), outputs=wanted)

        assert answer["predict"] == trained.predict(frame).tolist()
        np.testing.assert_allclose(np.reshape(answer["predict_proba"], (-1, 2)), trained.predict_proba(frame))
        assert len(answer["contributions"]) == 3 * len(frame)


class TestLightgbm:
    def test_serves_categories_of_a_dataframe(
        self, image_of: Callable[[str], str], docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        import lightgbm

        frame, target = shop(300)
        categorical = frame.astype({"city": "category"})
        settings = {"verbose": -1, "num_threads": 1, "objective": "binary", "min_data_per_group": 1}
        trained = lightgbm.train(settings, lightgbm.Dataset(categorical, target == "yes", params=settings), 10)
        trained.save_model(tmp_path / "model.txt")

        with served(docker_client, image_of("lightgbm"), directory_of(tmp_path)) as (_, url):
            answer = ask(url, *columns(frame), outputs=[{"name": "predict"}, {"name": "leaf"}])

        np.testing.assert_allclose(answer["predict"], trained.predict(categorical))
        np.testing.assert_array_equal(
            np.reshape(answer["leaf"], (300, -1)), trained.predict(categorical, pred_leaf=True)
        )


class TestOnnx:
    def test_serves_labels_that_are_texts(
        self, image_of: Callable[[str], str], docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        from skl2onnx import to_onnx

        trained = LogisticRegression(max_iter=500).fit(ROWS, NAMES)
        exported = to_onnx(trained, ROWS[:1].astype(np.float32), options={"zipmap": False}, target_opset=17)
        (tmp_path / "model.onnx").write_bytes(exported.SerializeToString())
        rows = matrix(ROWS, "FP32") | {"name": "X"}

        with served(docker_client, image_of("onnx"), directory_of(tmp_path)) as (_, url):
            answer = ask(url, rows)

        assert answer["label"] == trained.predict(ROWS).tolist()
        np.testing.assert_allclose(np.reshape(answer["probabilities"], (-1, 3)), trained.predict_proba(ROWS), atol=1e-5)
