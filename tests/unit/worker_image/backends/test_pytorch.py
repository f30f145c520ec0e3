"""Really trained PyTorch models, saved in every way that people save them.

Needs PyTorch: skipped where it is not installed, and run in the pytorch image by tests/integration/test_deep_learning.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from worker_image.server.backends import pytorch  # noqa: E402 - below the skip
from worker_image.server.bfloat16 import widen  # noqa: E402
from worker_image.server.errors import ModelFailed  # noqa: E402
from worker_image.server.loading import Loaded, load  # noqa: E402
from worker_image.server.settings import read  # noqa: E402

Dim = torch.export.Dim
POINTS = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]], np.float32)
SIGNATURE = {"inputs": [{"name": "point", "datatype": "FP32", "shape": [-1, 2]}]}


class Xor(torch.nn.Module):  # type: ignore[misc]
    """Says on which diagonal a point lies."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(2, 16)
        self.out = torch.nn.Linear(16, 2)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.out(torch.tanh(self.hidden(x)))


class Answering(torch.nn.Module):  # type: ignore[misc]
    """`Xor`, with its answer in another form."""

    def __init__(self, net: torch.nn.Module, form: str) -> None:
        super().__init__()
        self.net = net
        self.form = form

    def forward(self, x):  # type: ignore[no-untyped-def]
        logits = self.net(x)
        if self.form == "dict":
            return {"logits": logits, "label": logits.argmax(-1)}
        if self.form == "tuple":
            return logits, logits.argmax(-1)
        return logits.mean(0)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    model = Xor()
    points = torch.rand(256, 2)
    labels = ((points[:, 0] > 0.5) ^ (points[:, 1] > 0.5)).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(points), labels).backward()
        optimizer.step()
    return model.eval()


def exported(directory: Path, model: torch.nn.Module, rows: Any = None, example: Any = None) -> Path:
    """`rows`: what `torch.export` is told of the first dimension."""
    example = torch.zeros(2, 2) if example is None else example
    shapes = None if rows is None else ({0: rows},)
    torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=shapes), directory / "model.pt2")
    return directory


def scripted(directory: Path, model: torch.nn.Module, *, signature: Any = None, warmup: Any = None) -> Path:
    torch.jit.script(model.eval()).save(str(directory / "model.pt"))
    for name, content in (("signature.json", signature), ("warmup.json", warmup)):
        if content is not None:
            (directory / name).write_text(json.dumps(content))
    return directory


def ready(directory: Path) -> Loaded:
    """Loaded as a replica would, with its warm-up."""
    environ = {
        "MODELFLEET_MODEL": "m",
        "MODELFLEET_VERSION": "1",
        "MODELFLEET_BACKEND": "pytorch",
        "MODELFLEET_MODEL_DIR": str(directory),
        "MODELFLEET_CPUS": "1",
    }
    return load(read(environ), lambda _: None)


def direct(model: torch.nn.Module, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = model(torch.from_numpy(points)).numpy()
    return found


def shown(specs: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.datatype, spec.shape) for spec in specs]


class TestExported:
    @pytest.mark.parametrize("rows", [Dim("batch", min=1), Dim.DYNAMIC])
    def test_answers_as_pytorch_does_for_any_count_of_rows(self, net: Any, tmp_path: Path, rows: Any) -> None:
        model = ready(exported(tmp_path, net, rows))

        assert shown(model.signature.inputs) == [("x", "FP32", (-1, 2))]
        assert shown(model.signature.outputs) == [("output", "FP32", (-1, 2))]
        assert model.signature.can_batch
        assert model.signature.facts == (("device", pytorch.choose_device()),)
        for count in (4, 1, 3, 4):
            answer = model.predict({"x": POINTS[:count]}, ("output",))
            np.testing.assert_allclose(answer["output"], direct(net, POINTS[:count]), rtol=1e-5)
        assert answer["output"].argmax(-1).tolist() == [0, 1, 1, 0]

    def test_one_made_for_one_row_is_served_one_by_one(self, net: Any, tmp_path: Path) -> None:
        model = ready(exported(tmp_path, net, example=torch.zeros(1, 2)))

        assert shown(model.signature.inputs) == [("x", "FP32", (1, 2))]
        assert not model.signature.can_batch

    def test_more_rows_than_it_was_exported_for_are_computed_in_parts(self, net: Any, tmp_path: Path) -> None:
        model = ready(exported(tmp_path, net, Dim("batch", min=1, max=3)))
        points = np.tile(POINTS, (4, 1))

        answer = model.predict({"x": points}, ("output",))

        np.testing.assert_allclose(answer["output"], direct(net, points), rtol=1e-5)

    def test_names_several_outputs(self, net: Any, tmp_path: Path) -> None:
        model = ready(exported(tmp_path, Answering(net, "dict"), Dim("batch", min=1)))

        answer = model.predict({"x": POINTS}, ("label",))

        assert model.signature.default_outputs == ("logits", "label")
        assert {name: tensor.tolist() for name, tensor in answer.items()} == {"label": [0, 1, 1, 0]}

    def test_calls_the_outputs_of_a_tuple_as_their_author_does(self, net: Any, tmp_path: Path) -> None:
        named = [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in OUTPUTS]
        (tmp_path / "signature.json").write_text(json.dumps({"outputs": named}))
        model = ready(exported(tmp_path, Answering(net, "tuple"), Dim("batch", min=1)))

        assert shown(model.signature.outputs) == OUTPUTS

    def test_an_answer_that_is_no_row_for_a_row_is_not_batched(self, net: Any, tmp_path: Path) -> None:
        model = ready(exported(tmp_path, Answering(net, "mean"), Dim("batch", min=1)))

        assert not model.signature.can_batch
        np.testing.assert_allclose(
            model.predict({"x": POINTS}, ("output",))["output"], direct(net, POINTS).mean(0), rtol=1e-4, atol=1e-6
        )

    def test_inputs_of_several_types_and_free_lengths(self, tmp_path: Path) -> None:
        class Bag(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.embedding = torch.nn.Embedding(10, 4)

            def forward(self, words, scale):  # type: ignore[no-untyped-def]
                return (self.embedding(words).mean(1) * scale[:, None]).to(torch.bfloat16)

        rows, length = Dim("rows", min=1), Dim("length", min=1, max=16)
        example = (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.bfloat16))
        program = torch.export.export(Bag().eval(), example, dynamic_shapes=({0: rows, 1: length}, {0: rows}))
        torch.export.save(program, tmp_path / "model.pt2")
        model = ready(tmp_path)
        words, scale = np.array([[1, 2, 3, 4, 5]]), np.array([1.5], np.float32)

        answer = model.predict({"words": words, "scale": scale}, ("output",))["output"]

        assert shown(model.signature.inputs) == [("words", "INT64", (-1, -1)), ("scale", "BF16", (-1,))]
        assert model.signature.can_batch
        assert not model.model.is_steady
        expected = program.module()(torch.from_numpy(words), torch.from_numpy(scale).bfloat16())
        assert shown(model.signature.outputs) == [("output", "BF16", (-1, 4))]
        assert widen(answer).tolist() == expected.float().tolist()

    def test_a_length_it_was_not_exported_for_is_the_callers_fault(self, tmp_path: Path) -> None:
        class Sum(torch.nn.Module):  # type: ignore[misc]
            def forward(self, x):  # type: ignore[no-untyped-def]
                return x.sum(1)

        shapes = ({0: Dim("rows", min=1), 1: Dim("length", min=1, max=4)},)
        program = torch.export.export(Sum(), (torch.zeros(2, 3),), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / "model.pt2")

        with pytest.raises(Exception, match=r"'x' \[1, 5\] are not those that the model was exported for") as failed:
            ready(tmp_path).predict({"x": np.zeros((1, 5), np.float32)}, ("output",))

        assert failed.value.status == 400  # type: ignore[attr-defined]

    def test_half_precision_stays_half(self, net: Any, tmp_path: Path) -> None:
        half = Xor().half()
        model = ready(exported(tmp_path, half, Dim("batch", min=1), torch.zeros(2, 2, dtype=torch.float16)))

        answer = model.predict({"x": POINTS.astype(np.float16)}, ("output",))

        assert shown(model.signature.inputs) == [("x", "FP16", (-1, 2))]
        assert answer["output"].dtype == np.float16


class TestScript:
    def test_takes_what_its_author_declared(self, net: Any, tmp_path: Path) -> None:
        model = ready(scripted(tmp_path, net, signature=SIGNATURE))

        answer = model.predict({"point": POINTS}, ("output",))

        assert shown(model.signature.inputs) == [("point", "FP32", (-1, 2))]
        np.testing.assert_allclose(answer["output"], direct(net, POINTS), rtol=1e-5)

    def test_learns_from_a_recorded_request_what_it_takes(self, net: Any, tmp_path: Path) -> None:
        model = ready(scripted(tmp_path, Answering(net, "dict").eval().net, warmup=REQUEST))

        assert shown(model.signature.inputs) == [("x", "FP32", (-1, 2))]
        assert model.signature.can_batch

    def test_a_recorded_request_shows_what_is_no_batch(self, net: Any, tmp_path: Path) -> None:
        torch.jit.trace(Answering(net, "mean").eval(), torch.zeros(1, 2)).save(str(tmp_path / "model.pt"))
        (tmp_path / "warmup.json").write_text(json.dumps(REQUEST))

        model = ready(tmp_path)

        assert shown(model.signature.inputs) == [("x", "FP32", (1, 2))]
        assert not model.signature.can_batch

    def test_without_either_takes_what_comes_and_says_whose_fault_it_is(
        self, net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = ready(scripted(tmp_path, net))

        assert "put it into signature.json" in capsys.readouterr().err
        assert model.predict({"any": POINTS}, ())["output"].shape == (4, 2)
        with pytest.raises(Exception, match="the model refused the input") as failed:
            model.predict({"any": np.zeros((1, 3), np.float32)}, ())
        assert failed.value.status == 400  # type: ignore[attr-defined]

    def test_a_model_that_writes_to_its_input_does_not_write_to_the_request(self, tmp_path: Path) -> None:
        class Doubling(torch.nn.Module):  # type: ignore[misc]
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.mul_(2)

        model = ready(scripted(tmp_path, Doubling(), signature=SIGNATURE))
        body = POINTS.tobytes()

        answer = model.predict({"point": np.frombuffer(body, np.float32).reshape(4, 2)}, ("output",))

        assert answer["output"].tolist() == (POINTS * 2).tolist()
        assert body == POINTS.tobytes()

    def test_arguments_that_are_no_tensors_are_refused(self, tmp_path: Path) -> None:
        class Many(torch.nn.Module):  # type: ignore[misc]
            def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
                return xs[0]

        with pytest.raises(ModelFailed, match=r"forward\(\) takes 'xs' as List\[Tensor\]"):
            ready(scripted(tmp_path, Many()))


class TestRefusals:
    @pytest.mark.parametrize(
        ("save", "said"),
        [
            (lambda net, file: torch.save(net.state_dict(), file), "holds weights alone (a state_dict)"),
            (lambda net, file: torch.save({"model": net.state_dict(), "epoch": 3}, file), "holds weights alone"),
            (torch.save, "holds a pickled "),
            (lambda net, file: torch.save(torch.nn.Sequential(net), file), "torch.nn.modules.container.Sequential"),
            (
                lambda net, file: torch.save(net.state_dict(), file, _use_new_zipfile_serialization=False),
                "pickled Python objects of a PyTorch before 1.6",
            ),
        ],
    )
    def test_what_holds_no_code_is_refused_with_the_way_to_export_it(
        self, net: Any, tmp_path: Path, save: Callable[[Any, Path], None], said: str
    ) -> None:
        save(net, tmp_path / "model.pt")

        with pytest.raises(ModelFailed) as failed:
            ready(tmp_path)

        assert failed.value.exit_code == 65
        assert said in failed.value.reason
        assert "torch.export.save(" in failed.value.reason

    @pytest.mark.parametrize("suffix", [".pt", ".pt2"])
    def test_a_truncated_file_is_refused(self, net: Any, tmp_path: Path, suffix: str) -> None:
        whole = exported(tmp_path, net) if suffix == ".pt2" else scripted(tmp_path, net)
        file = whole / f"model{suffix}"
        file.write_bytes(file.read_bytes()[:-200])

        with pytest.raises(ModelFailed, match="is no whole file"):
            ready(tmp_path)

    def test_damage_inside_is_told_in_one_line(
        self, net: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        import zipfile

        exported(tmp_path, net)
        with zipfile.ZipFile(tmp_path / "model.pt2") as whole, zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
            for name in whole.namelist():
                content = whole.read(name)
                other.writestr(name, b'{"schema_version": {}}' if name.endswith("models/model.json") else content)
        (tmp_path / "other.zip").replace(tmp_path / "model.pt2")

        with caplog.at_level(logging.WARNING), pytest.raises(ModelFailed, match="cannot be read by PyTorch") as failed:
            ready(tmp_path)

        assert "\n" not in failed.value.reason
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    def test_an_operator_of_another_package_is_named(self, tmp_path: Path) -> None:
        library = torch.library.Library("not_installed", "DEF")
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")

        class Custom(torch.nn.Module):  # type: ignore[misc]
            def forward(self, x):  # type: ignore[no-untyped-def]
                return torch.ops.not_installed.twice(x)

        torch.jit.trace(Custom(), torch.zeros(1, 2)).save(str(tmp_path / "model.pt"))
        library._destroy()

        with pytest.raises(ModelFailed, match="needs operators of 'not_installed'") as failed:
            ready(tmp_path)

        assert failed.value.code == "MODULE_MISSING"


OUTPUTS = [("logits", "FP32", (-1, 2)), ("side", "INT64", (-1,))]
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.9]}]}
