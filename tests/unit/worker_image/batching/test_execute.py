"""A batch is one call of the model, and each request gets the rows that are its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.models import iris_estimator
from worker_image.server.batching.execute import Part, execute
from worker_image.server.errors import RequestError
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Tensors


def part(*rows: list[float]) -> Part:
    return Part({"x": np.array(rows)}, ("predict",), len(rows))


def double(inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters = NO_PARAMETERS) -> Tensors:
    if (inputs["x"] < 0).any():
        raise ValueError("negative")
    return dict.fromkeys(outputs, inputs["x"] * 2)


class TestExecute:
    def test_calls_the_model_once_and_splits_the_rows(self) -> None:
        calls: list[int] = []

        def counting(inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
            calls.append(len(inputs["x"]))
            return double(inputs, outputs)

        answers = execute([part([1.0]), part([2.0], [3.0])], counting, "m")

        assert calls == [3]
        assert [answer["predict"].tolist() for answer in answers if isinstance(answer, dict)] == [
            [[2.0]],
            [[4.0], [6.0]],
        ]

    @pytest.mark.parametrize("bad", range(7))
    def test_fails_the_bad_row_alone(self, bad: int) -> None:
        parts = [part([-1.0] if index == bad else [float(index)]) for index in range(7)]

        answers = execute(parts, double, "m")

        assert [isinstance(answer, ValueError) for answer in answers] == [index == bad for index in range(7)]

    def test_names_the_output_when_the_model_gives_another_count_of_rows(self) -> None:
        answers = execute([part([1.0], [2.0])], lambda inputs, *_: {"predict": inputs["x"][:1]}, "iris")

        assert isinstance(answers[0], RequestError)
        assert "model 'iris': output 'predict' has shape [1, 1] for 2 input rows" in answers[0].sentence

    def test_lets_any_shape_through_when_rows_are_not_batched(self) -> None:
        answers = execute([part([1.0], [2.0])], lambda *_: {"sum": np.array(3.0)}, "m", check_rows=False)

        assert isinstance(answers[0], dict)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_batched_rows_equal_the_model_called_directly(sizes: list[int], seed: int) -> None:
    model = iris_estimator()
    random = np.random.default_rng(seed)
    blocks = [random.uniform(0, 8, (size, 4)) for size in sizes]

    answers = execute(
        [Part({"x": block}, ("predict",), len(block)) for block in blocks],
        lambda inputs, *_: {"predict": model.predict(inputs["x"])},
        "iris",
    )

    for block, answer in zip(blocks, answers, strict=True):
        assert isinstance(answer, dict)
        assert answer["predict"].tolist() == model.predict(block).tolist()
