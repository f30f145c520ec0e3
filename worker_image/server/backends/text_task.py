"""What a task of a transformers model is: its inputs and outputs, the parameters that a request may give, and texts.

The tasks themselves are in `text_tasks.py`. Texts are worked on a few at a time, those of about one length together,
because all of them are padded to the longest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from worker_image.server.backends.hub_folder import Folder
from worker_image.server.backends.steps import Steps
from worker_image.server.tensors import Tensor, Tensors, TensorSpec

# Texts in one call of the model: more bring nothing on a CPU and cost memory with their longest.
MOST_TEXTS = 32


@dataclasses.dataclass(frozen=True)
class Option:
    """A parameter of a request: what kind of value it is, and its bounds."""

    kinds: tuple[type, ...]
    least: float | None = None
    most: float | None = None

    def check(self, name: str, value: Any) -> Any:
        wanted = " or ".join(kind.__name__ for kind in self.kinds)
        is_wrong_kind = not isinstance(value, self.kinds) or (isinstance(value, bool) and bool not in self.kinds)
        if is_wrong_kind:
            raise ValueError(f"parameter {name!r} is {value!r}, and has to be {wanted}")
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            bounds = f"at least {self.least:g}" + ("" if self.most is None else f" and at most {self.most:g}")
            raise ValueError(f"parameter {name!r} is {value!r}, and has to be {bounds}")
        return value


class Task:
    """`answer` gets inputs that fit `inputs`, and options that were checked."""

    inputs: tuple[TensorSpec, ...] = (TensorSpec("text", "BYTES", (-1,)),)
    options: ClassVar[Mapping[str, Option]] = MappingProxyType({})
    default_outputs: tuple[str, ...] = ()
    scores: str | None = None
    labels: tuple[str, ...] = ()
    can_stream = False

    def __init__(self, model: Any, tokenizer: Any, folder: Folder) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder

    def outputs(self) -> tuple[TensorSpec, ...]:
        raise NotImplementedError

    def answer(self, inputs: Tensors, options: dict[str, Any]) -> Tensors:
        raise NotImplementedError

    def stream(self, inputs: Tensors, options: dict[str, Any]) -> Steps:
        """The answer piece by piece, where `can_stream`."""
        raise NotImplementedError

    def example(self) -> Tensors:
        return {spec.name: strings(["a"]) for spec in self.inputs}

    def encoded(self, texts: Any, pairs: Any = None, **more: Any) -> Any:
        options = {"padding": True, "truncation": True, "return_tensors": "pt", **more}
        return self.tokenizer(texts, pairs, **options).to(self.model.device)


def strings(values: list[str]) -> Tensor:
    tensor = np.empty(len(values), dtype=object)
    tensor[:] = values
    return tensor


def texts_of(inputs: Tensors, name: str) -> list[str]:
    return [text(value) for value in inputs[name].tolist()]


def text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as exc:
            raise ValueError(f"a text is no UTF-8 ({exc})") from exc
    return str(value)


def by_length(texts: list[Any], work: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """What `work` makes of each, in their order; it is given a few of about one length at a time."""
    order = sorted(range(len(texts)), key=lambda place: _length(texts[place]))
    made: dict[int, Any] = {}
    for first in range(0, len(order), MOST_TEXTS):
        places = order[first : first + MOST_TEXTS]
        made.update(zip(places, work([texts[place] for place in places]), strict=True))
    return [made[place] for place in range(len(texts))]


def _length(each: str | tuple[str, ...]) -> int:
    return len(each) if isinstance(each, str) else sum(map(len, each))
