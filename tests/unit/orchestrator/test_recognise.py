"""`modelfleet init`: what is recognised by name and first bytes, under which names, and what is said of the rest."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import UserError
from orchestrator.manifest import check_world, load
from orchestrator.recognise import Found, legal_name, recognise, render_manifest

SKLEARN = b"\x80\x05\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x1asklearn.linear_model._base\x94"
ONNX = b"\x08\x0a\x12\x08skl2onnx"
LIGHTGBM = b"tree\nversion=v4\nnum_class=1\n"
XGBOOST = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L"
XGBOOST_JSON = b'{"learner":{"attributes":{'
CATBOOST = b"CBM1\xa0,\x00\x00"
SKOPS = b"PK\x03\x04\x14\x00"
PYTHON = b"class Model: ..."


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return content.getvalue()


SCRIPT = zipped("net/data.pkl", "net/constants.pkl", "net/code/net.py")
EXPORTED = zipped("net/archive_format", "net/models/model.json")
WEIGHTS = zipped("net/data.pkl", "net/data/0")


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def models(root: Path) -> dict[str, tuple[str, str]]:
    """`model@version` -> (backend, source)."""
    return {f"{each.model}@{each.version}": (each.backend, each.source) for each in recognise(root) if each.backend}


def reasons(root: Path) -> dict[str, str]:
    return {each.path: each.reason for each in recognise(root) if not each.backend}


class TestLayouts:
    @pytest.mark.parametrize(
        ("files", "found"),
        [
            ({"iris.joblib": SKLEARN}, {"iris@1": ("sklearn", "iris.joblib")}),
            ({"iris-v2.onnx": ONNX}, {"iris@2": ("onnx", "iris-v2.onnx")}),
            ({"resnet-50.onnx": ONNX}, {"resnet-50@1": ("onnx", "resnet-50.onnx")}),
            ({"iris/1/model.joblib": SKLEARN}, {"iris@1": ("sklearn", "iris/1")}),
            ({"iris/v2/model.onnx": ONNX}, {"iris@2": ("onnx", "iris/v2")}),
            ({"team/iris/1.2/m.txt": LIGHTGBM}, {"iris@1.2": ("lightgbm", "team/iris/1.2")}),
            ({"iris/3.pkl": SKLEARN}, {"iris@3": ("sklearn", "iris/3.pkl")}),
            ({"iris/model.pickle": SKLEARN}, {"iris@1": ("sklearn", "iris/model.pickle")}),
            ({"iris/model-v7.onnx": ONNX}, {"iris@7": ("onnx", "iris/model-v7.onnx")}),
            ({"all/a.onnx": ONNX, "all/b.onnx": ONNX}, {"a@1": ("onnx", "all/a.onnx"), "b@1": ("onnx", "all/b.onnx")}),
            (
                {"cats.pt": SCRIPT, "dogs.pt2": EXPORTED},
                {"cats@1": ("pytorch", "cats.pt"), "dogs@1": ("pytorch", "dogs.pt2")},
            ),
            ({"cats/2/model.pt2": EXPORTED, "cats/2/signature.json": b"{}"}, {"cats@2": ("pytorch", "cats/2")}),
            ({"text/model.py": PYTHON, "text/weights.bin": b"x"}, {"text@1": ("python", "text")}),
            ({"text/2/model.py": PYTHON, "text/2/more/a.pkl": b"x"}, {"text@2": ("python", "text/2")}),
            ({"iris/1/model.skops": SKOPS}, {"iris@1": ("sklearn", "iris/1")}),
            ({"iris/1/model.cbm": CATBOOST}, {"iris@1": ("catboost", "iris/1")}),
            (
                {"iris.ubj": XGBOOST, "b.json": XGBOOST_JSON},
                {"b@1": ("xgboost", "b.json"), "iris@1": ("xgboost", "iris.ubj")},
            ),
            ({"iris/1/model.json": XGBOOST_JSON, "iris/1/labels.json": b"[]"}, {"iris@1": ("xgboost", "iris/1")}),
            ({"iris/model.ubj": XGBOOST, "iris/labels.json": b"[]"}, {"iris@1": ("xgboost", "iris")}),
            ({"big/net.onnx": ONNX, "big/net.onnx.data": b"weights"}, {"net@1": ("onnx", "big")}),
            ({"iris/model.joblib": SKLEARN, "iris/pipeline.py": PYTHON}, {"iris@1": ("sklearn", "iris")}),
            ({"iris/2/model.onnx": ONNX, "iris/2/pipeline.py": PYTHON}, {"iris@2": ("onnx", "iris/2")}),
            ({"iris/model.py": PYTHON, "iris/pipeline.py": PYTHON}, {"iris@1": ("python", "iris")}),
            ({"iris/4/MLmodel": b"flavors:", "iris/4/model.pkl": SKLEARN}, {"iris@4": ("mlflow", "iris/4")}),
            ({"bert/config.json": b"{}", "bert/model.safetensors": b"x"}, {"bert@1": ("transformers", "bert")}),
            ({"bert/config.json": b"{}", "bert/pytorch_model.bin": b"x"}, {"bert@1": ("transformers", "bert")}),
            ({"app/config.json": b"{}", "app/m.onnx": ONNX}, {"m@1": ("onnx", "app/m.onnx")}),
            ({"My Model (final).onnx": ONNX}, {"my-model-final@1": ("onnx", "My Model (final).onnx")}),
            ({".cache/a.onnx": ONNX, "venv/pyvenv.cfg": b"", "venv/lib/b.onnx": ONNX}, {}),
        ],
    )
    def test_give_models_and_versions(
        self, tmp_path: Path, files: dict[str, bytes], found: dict[str, tuple[str, str]]
    ) -> None:
        assert models(folder_of(tmp_path, files)) == found

    def test_keep_external_data_beside_an_onnx_model(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path, {"big/1/model.onnx": ONNX, "big/1/model.onnx.data": b"weights"})

        assert models(root) == {"big@1": ("onnx", "big/1")}

    def test_name_a_model_by_its_folder_when_that_is_what_is_searched(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path / "churn", {"model.py": PYTHON})

        assert models(root) == {"churn@1": ("python", ".")}

    def test_give_sources_relative_to_the_manifest(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path / "models", {"iris.onnx": ONNX})

        assert [each.source for each in recognise(root, relative_to=tmp_path / "configs")] == ["../models/iris.onnx"]


class TestFormats:
    @pytest.mark.parametrize("packed", [zlib.compress, gzip.compress, lambda raw: raw], ids=["zlib", "gzip", "plain"])
    def test_a_pickle_of_scikit_learn_may_be_compressed(self, tmp_path: Path, packed: object) -> None:
        root = folder_of(tmp_path, {"iris.joblib": packed(SKLEARN)})  # type: ignore[operator]

        assert models(root) == {"iris@1": ("sklearn", "iris.joblib")}

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("a.pkl", b"not a pickle", "does not begin like a pickle"),
            ("a.joblib", b"\x78\x9cbroken", "does not begin like a pickle"),
            (
                "a.pkl",
                pickle.dumps({"weights": [1, 2]}),
                "a pickle, but not of scikit-learn; load it in a model.py of your own (backend python)",
            ),
            ("a.onnx", b"<html>", "ends in .onnx, but does not begin like an ONNX file"),
            ("a.txt", b"trees are green", "a text, but not a LightGBM model: its first line is not `tree`"),
            (
                "a.pt",
                WEIGHTS,
                "weights or a pickled module without its code; export it (docs/models/pytorch.md says how)",
            ),
            ("a.pth", b"PK\x03\x04", "not a file that PyTorch wrote, or not a whole one"),
            ("a.pt2", zipped("a/b"), "a zip archive, but not of PyTorch"),
            ("a.onnx", b"", "empty"),
            ("a.cbm", b"x", "ends in .cbm, but does not begin like a CatBoost model"),
            ("a.skops", b"x", "ends in .skops, but does not begin like a skops file"),
            ("a.ubj", b"{}", "ends in .ubj, but does not begin like an XGBoost model"),
            ("package.json", b'{"name": "x"}', "ends in .json, but does not begin like an XGBoost model"),
            (
                "a.pkl",
                SKLEARN.replace(b"_base", b"xgboost"),
                "a pickle of xgboost; save it with save_model(), or serve it as sklearn with a requirements.txt",
            ),
            ("README.md", b"# Models", ".md: not a format of a model that is known here"),
        ],
    )
    def test_what_is_not_recognised_is_listed_with_its_reason(
        self, tmp_path: Path, name: str, content: bytes, reason: str
    ) -> None:
        assert reasons(folder_of(tmp_path, {name: content})) == {name: reason}

    @pytest.mark.parametrize("name", ["labels.json", "warmup.json", "signature.json"])
    def test_what_belongs_to_a_model_is_not_listed(self, tmp_path: Path, name: str) -> None:
        root = folder_of(tmp_path, {"iris/model.ubj": XGBOOST, f"iris/{name}": b"[]"})

        assert reasons(root) == {}

    def test_a_second_file_of_one_version_is_listed(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path, {"iris.joblib": SKLEARN, "iris.onnx": ONNX})

        assert reasons(root) == {"iris.onnx": "would be a second version 1 of iris, beside iris.joblib; rename one"}

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "sklearn-was-here"),)

        recognise(folder_of(tmp_path, {"trap.pkl": pickle.dumps(Trap())}))

        assert not (tmp_path / "sklearn-was-here").exists()

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.onnx")

        assert reasons(tmp_path) == {"a.onnx": "not a regular file"}

    def test_a_name_that_is_not_text_is_listed(self, tmp_path: Path) -> None:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.onnx")).write_bytes(ONNX)

        assert list(reasons(tmp_path).values()) == ["its name has characters that a manifest cannot hold; rename it"]

    def test_a_name_that_a_manifest_would_read_as_a_home_folder_is_listed(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path, {"~root.onnx": ONNX})

        assert list(reasons(root)) == ["'~root.onnx'"]

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()

        with pytest.raises(
            UserError, match="not a folder; models are looked for in a folder; name one that holds them"
        ):
            recognise(tmp_path / "a")


class TestRenderManifest:
    def test_writes_a_manifest_that_loads_and_whose_sources_exist(self, tmp_path: Path) -> None:
        root = folder_of(
            tmp_path,
            {
                "iris/1/model.joblib": SKLEARN,
                "iris/2/model.joblib": SKLEARN,
                "text/model.py": PYTHON,
                "on.onnx": ONNX,
                "odd: #name's.onnx": ONNX,
                "notes.txt": b"hello",
            },
        )

        text = render_manifest(recognise(root), "My Fleet")
        manifest = load(text, file="models.yaml", base_dir=root)

        assert manifest.cluster == "my-fleet"
        assert {name: list(model.versions) for name, model in manifest.models.items()} == {
            "iris": ["1", "2"], "odd-name-s": ["1"], "on": ["1"], "text": ["1"],
        }  # fmt: skip
        assert check_world(manifest, environ={}) == ()
        assert "#   notes.txt: a text, but not a LightGBM model: its first line is not `tree`\n" in text

    def test_of_nothing_has_no_models(self) -> None:
        assert load(render_manifest([], "x"), file="models.yaml", base_dir=Path("/")).models == {}

    @given(st.text(min_size=1), st.text(min_size=1))
    def test_loads_whatever_the_names_were(self, name: str, cluster: str) -> None:
        found = [Found(f"{name}.onnx", "m.onnx", legal_name(name), "1", "onnx")]

        manifest = load(render_manifest(found, cluster), file="models.yaml", base_dir=Path("/"))

        assert list(manifest.models) == [legal_name(name)]
