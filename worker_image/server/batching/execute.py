"""Computes one batch: joins the rows, calls the model once, gives each request its own rows back.

Pure but for the model it calls, and runs in the model's thread. When the joined call raises, the batch is halved until
the request at fault stands alone: it fails alone, and its neighbours get the answer that they would have got alone. A
batch that hung is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from worker_image.server.errors import RequestError
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Tensors

Predict = Callable[[Tensors, tuple[str, ...], Parameters], Tensors]
# Several requests side by side, and an answer for each: for models whose requests have no rows to join.
PredictMany = Callable[[list[Tensors], tuple[str, ...], Parameters], list[Tensors]]


class Part(NamedTuple):
    """One request's share of a batch. `rows` is None when its tensors do not agree on a count: it is then alone in
    the batch.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int | None
    parameters: Parameters = NO_PARAMETERS
    is_explained: bool = False


def execute(
    parts: Sequence[Part],
    predict: Predict,
    model: str,
    *,
    check_rows: bool = True,
    predict_many: PredictMany | None = None,
) -> list[Tensors | Exception]:
    """The answer to each part, in order; an exception stands where a part failed. All parts ask for the same
    outputs, with equal parameters. With `predict_many` no rows are joined, and none are counted.
    """
    try:
        if len(parts) == 1:
            return [_alone(parts[0], predict, model, check_rows)]
        if predict_many is not None:
            return list(predict_many([part.inputs for part in parts], parts[0].outputs, parts[0].parameters))
        return list(_together(parts, predict, model))
    except Exception as exc:
        if len(parts) == 1 or (isinstance(exc, RequestError) and exc.is_final):
            return [exc] * len(parts)
        middle = len(parts) // 2
        halves = (parts[:middle], parts[middle:])
        return [
            answer
            for half in halves
            for answer in execute(half, predict, model, check_rows=check_rows, predict_many=predict_many)
        ]


def _alone(part: Part, predict: Predict, model: str, check_rows: bool) -> Tensors:
    answer = predict(part.inputs, part.outputs, part.parameters)
    if check_rows and part.rows is not None:
        _check_rows(answer, part.rows, model)
    return answer


def _together(parts: Sequence[Part], predict: Predict, model: str) -> list[Tensors]:
    joined = {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs}
    ends = np.cumsum([part.rows for part in parts]).tolist()
    answer = predict(joined, parts[0].outputs, parts[0].parameters)
    _check_rows(answer, ends[-1], model)
    starts = [0, *ends[:-1]]
    return [
        {name: tensor[start:end] for name, tensor in answer.items()} for start, end in zip(starts, ends, strict=True)
    ]


def _check_rows(answer: Tensors, rows: int, model: str) -> None:
    for name, tensor in answer.items():
        got = tensor.shape[0] if tensor.ndim else None
        if got != rows:
            raise RequestError(
                "MODEL_FAILED",
                f"model {model!r}: output {name!r} has shape {list(tensor.shape)} for {rows} input rows; "
                "a batched model gives one row per input row; "
                "correct the model, or set `batching: {max_size: 1}` for this version",
            )
