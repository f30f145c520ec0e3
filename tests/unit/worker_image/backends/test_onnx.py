"""ONNX files exported from a really trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.fakes import models
from worker_image.server.backends.onnx import load
from worker_image.server.bfloat16 import BF16, widen
from worker_image.server.errors import ModelFailed
from worker_image.server.tensors import NUMPY_TYPES

OPSET = helper.make_opsetid("", 17)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.digits_onnx(tmp_path_factory.mktemp("digits"))


def graph(
    directory: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], *, opset: int = 17, ir: int = 9
) -> Path:
    made = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("somebodys", 1)],
    )
    made.ir_version = ir
    directory.mkdir(exist_ok=True)
    (directory / "model.onnx").write_bytes(made.SerializeToString())
    return directory


def value(name: str, datatype: int, *shape: int | str | None) -> Any:
    return helper.make_tensor_value_info(name, datatype, list(shape))


def refused(directory: Path, code: str) -> str:
    with pytest.raises(ModelFailed) as failed:
        load(directory, 1)
    assert failed.value.code == code
    assert "onnxruntime_src" not in failed.value.reason
    return failed.value.reason


class TestTypes:
    @pytest.mark.parametrize("datatype", sorted(set(NUMPY_TYPES) - {"BF16"}))
    def test_go_in_and_come_out_as_they_are(self, tmp_path: Path, datatype: str) -> None:
        kind = helper.np_dtype_to_tensor_dtype(NUMPY_TYPES[datatype])
        if datatype == "BYTES":
            kind = TensorProto.STRING
        same = helper.make_node("Identity", ["x"], ["y"])
        model = load(graph(tmp_path, [same], [value("x", kind, "rows", 2)], [value("y", kind, "rows", 2)]), 1)
        sent = np.array([["a", "b"]], object) if datatype == "BYTES" else np.array([[0, 1]], NUMPY_TYPES[datatype])

        answer = model.predict({"x": sent}, ("y",))["y"]

        assert model.signature.inputs[0].datatype == datatype
        assert (answer.dtype, answer.tolist()) == (sent.dtype, sent.tolist())

    def test_bfloat16_is_carried_as_such(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["wide", "scale"], ["product"]),
            helper.make_node("Cast", ["product"], ["y"], to=TensorProto.BFLOAT16),
        ]
        inputs = [value("x", TensorProto.BFLOAT16, "rows", 3), value("scale", TensorProto.FLOAT, "rows", 1)]
        outputs = [value("y", TensorProto.BFLOAT16, "rows", 3), value("product", TensorProto.FLOAT, "rows", 3)]
        model = load(graph(tmp_path, nodes, inputs, outputs), 1)
        sent = {"x": np.array([[1, 2.5, -3]], np.float32), "scale": np.array([[2]], np.float32)}

        answer = model.predict(sent, ("y", "product"))

        assert [spec.datatype for spec in (*model.signature.inputs, *model.signature.outputs)] == [
            "BF16",
            "FP32",
            "BF16",
            "FP32",
        ]
        assert answer["y"].dtype == BF16
        assert widen(answer["y"]).tolist() == answer["product"].tolist() == [[2, 5, -6]]
        assert model.predict(model.warmup() or {}, ("y",))["y"].shape == (1, 3)

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            (helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])), "seq(tensor"),
            (
                helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])),
                "optional(tensor",
            ),
        ],
    )
    def test_that_no_protocol_carries_are_refused(self, tmp_path: Path, kind: Any, words: str) -> None:
        node = (
            helper.make_node("SequenceAt", ["x", "place"], ["y"])
            if words.startswith("seq")
            else helper.make_node("OptionalGetElement", ["x"], ["y"])
        )
        inputs = [helper.make_value_info("x", kind), value("place", TensorProto.INT64)]
        directory = graph(tmp_path, [node], inputs, [value("y", TensorProto.FLOAT, "n")])

        reason = refused(directory, "ARTIFACT_UNREADABLE")

        assert f"'x' is a {words}" in reason
        assert "export it with tensors alone" in reason


class TestRows:
    def pair(self, directory: Path, first: Any, second: Any, out: Any) -> bool:
        node = helper.make_node("Add", ["a", "b"], ["y"])
        inputs = [value("a", TensorProto.FLOAT, first, 2), value("b", TensorProto.FLOAT, second, 2)]
        return load(graph(directory, [node], inputs, [value("y", TensorProto.FLOAT, out, 2)]), 1).signature.can_batch

    @pytest.mark.parametrize(
        ("first", "second", "out", "joined"),
        [
            ("batch", "batch", "batch", True),
            ("batch", "sequence", "batch", False),
            (None, None, None, True),
            ("unk__6", "unk__7", "unk__8", True),
            ("batch", "batch", 1, False),
            (1, 1, 1, False),
        ],
    )
    def test_are_joined_if_all_inputs_call_them_the_same(
        self, tmp_path: Path, first: Any, second: Any, out: Any, joined: bool
    ) -> None:
        assert self.pair(tmp_path, first, second, out) == joined

    def test_are_called_by_their_names_in_the_metadata(self, tmp_path: Path) -> None:
        node = helper.make_node("Relu", ["x"], ["y"])
        shape = ("batch", None, 3)
        inputs, outputs = [value("x", TensorProto.FLOAT, *shape)], [value("y", TensorProto.FLOAT, *shape)]

        facts = load(graph(tmp_path, [node], inputs, outputs), 1).signature.facts

        assert dict(facts) == {"axes.x": "[batch, ?, 3]", "axes.y": "[batch, ?, 3]"}


class TestFiles:
    def test_may_have_their_weights_beside_them(self, digits: Path, tmp_path: Path) -> None:
        whole = onnx.load(digits / "model.onnx")
        image = np.ones((2, 64), np.float32)
        direct = load(digits, 1).predict({"X": image}, ("probabilities",))
        # Those of this model are attributes of its nodes, which stay where they are.
        weights = np.arange(4096, dtype=np.float32)
        whole.graph.initializer.append(onnx.numpy_helper.from_array(weights, "extra"))
        onnx.save(
            whole, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=1
        )

        answer = load(tmp_path, 1).predict({"X": image}, ("probabilities",))

        assert (tmp_path / "model.onnx.data").stat().st_size >= weights.nbytes
        np.testing.assert_array_equal(answer["probabilities"], direct["probabilities"])

    @pytest.mark.parametrize("content", [None, b"short"])
    def test_without_their_weights_say_where_they_belong(self, tmp_path: Path, content: bytes | None) -> None:
        matrix = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "W")
        node = helper.make_node("MatMul", ["x", "W"], ["y"])
        inputs, outputs = [value("x", TensorProto.FLOAT, "n", 64)], [value("y", TensorProto.FLOAT, "n", 64)]
        made = helper.make_model(helper.make_graph([node], "g", inputs, outputs, [matrix]), opset_imports=[OPSET])
        made.ir_version = 9
        onnx.save(made, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=1)
        assert load(tmp_path, 1).predict({"x": np.ones((1, 64), np.float32)}, ("y",))["y"].shape == (1, 64)
        (tmp_path / "w.bin").unlink()
        if content is not None:
            (tmp_path / "w.bin").write_bytes(content)

        reason = refused(tmp_path, "ARTIFACT_UNREADABLE")

        assert "has weights in a file of their own, which cannot be read" in reason
        assert "name the folder as `source`" in reason

    def test_in_onnxruntimes_own_format_are_served(self, digits: Path, tmp_path: Path) -> None:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "model.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        ort.InferenceSession(digits / "model.onnx", options)
        image = np.ones((2, 64), np.float32)

        answer = load(tmp_path, 1).predict({"X": image}, ("label", "probabilities"))

        np.testing.assert_array_equal(answer["label"], load(digits, 1).predict({"X": image}, ("label",))["label"])

    def test_are_chosen_by_name_when_there_are_several(self, digits: Path, tmp_path: Path) -> None:
        for name in ("a.onnx", "b.onnx"):
            (tmp_path / name).write_bytes((digits / "model.onnx").read_bytes())

        assert "keep one, or name it model.onnx" in refused(tmp_path, "ARTIFACT_MISSING")
        (tmp_path / "model.onnx").write_bytes((digits / "model.onnx").read_bytes())
        assert load(tmp_path, 1)

    @pytest.mark.parametrize(("opset", "ir"), [(99, 9), (17, 99)])
    def test_that_are_newer_than_onnxruntime_name_its_release(self, tmp_path: Path, opset: int, ir: int) -> None:
        node = helper.make_node("Relu", ["x"], ["y"])
        inputs, outputs = [value("x", TensorProto.FLOAT, "n")], [value("y", TensorProto.FLOAT, "n")]

        reason = refused(graph(tmp_path, [node], inputs, outputs, opset=opset, ir=ir), "VERSION_SKEW")

        assert f"onnxruntime here is {ort.__version__}; export it again with an older opset" in reason

    def test_with_somebodys_own_operator_are_refused(self, tmp_path: Path) -> None:
        node = helper.make_node("Twist", ["x"], ["y"], domain="somebodys")
        inputs, outputs = [value("x", TensorProto.FLOAT, "n")], [value("y", TensorProto.FLOAT, "n")]

        assert "uses an operator that onnxruntime has not" in refused(
            graph(tmp_path, [node], inputs, outputs), "ARTIFACT_UNREADABLE"
        )


class TestOnnx:
    def test_answers_labels_that_are_texts(self, tmp_path: Path) -> None:
        rows, species = load_iris(return_X_y=True)
        names = load_iris().target_names[species]
        trained = LogisticRegression(max_iter=500).fit(rows, names)
        exported = to_onnx(trained, rows[:1].astype(np.float32), options={"zipmap": False}, target_opset=17)
        (tmp_path / "model.onnx").write_bytes(exported.SerializeToString())

        answer = load(tmp_path, 1).predict({"X": rows.astype(np.float32)}, ("label",))["label"]

        assert answer.tolist() == trained.predict(rows).tolist()

    def test_lengths_that_onnxruntime_refuses_are_the_callers_mistake(self, tmp_path: Path) -> None:
        node = helper.make_node("Relu", ["x"], ["y"])
        inputs, outputs = [value("x", TensorProto.FLOAT, "n", 2)], [value("y", TensorProto.FLOAT, "n", 2)]
        model = load(graph(tmp_path, [node], inputs, outputs), 1)

        with pytest.raises(ValueError, match="Got invalid dimensions for input: x"):
            model.predict({"x": np.ones((1, 3), np.float32)}, ("y",))

    def test_shows_the_files_own_names_datatypes_and_shapes(self, digits: Path) -> None:
        signature = load(digits, 1).signature

        assert [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs] == [("X", "FP32", (-1, 64))]
        assert [spec.name for spec in signature.outputs] == ["label", "probabilities"]
        assert signature.default_outputs == ("label", "probabilities")

    def test_answers_as_onnxruntime_does(self, digits: Path) -> None:
        image = np.random.default_rng(0).uniform(0, 1, (3, 64)).astype(np.float32)

        answer = load(digits, 1).predict({"X": image}, ("probabilities",))

        direct = ort.InferenceSession(digits / "model.onnx").run(["probabilities"], {"X": image})[0]
        np.testing.assert_array_equal(answer["probabilities"], direct)

    def test_warms_up_with_a_blank_row(self, digits: Path) -> None:
        inputs = load(digits, 1).warmup()

        assert inputs is not None
        assert inputs["X"].shape == (1, 64)

    def test_refuses_outputs_that_are_no_tensors(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFailed, match="zipmap") as failed:
            load(models.digits_onnx(tmp_path, zipmap=True), 1)

        assert failed.value.exit_code == 65

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 40])
    def test_refuses_what_is_no_whole_onnx_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.onnx").write_bytes(content)

        with pytest.raises(ModelFailed) as failed:
            load(tmp_path, 1)

        assert failed.value.exit_code == 65

    def test_refuses_a_truncated_file(self, digits: Path, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes((digits / "model.onnx").read_bytes()[:-100])

        with pytest.raises(ModelFailed, match="cannot be read as ONNX"):
            load(tmp_path, 1)
