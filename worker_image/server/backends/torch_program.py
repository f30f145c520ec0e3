"""What a PyTorch program must give to be served, and what both kinds of file need for it: types, names of outputs, and
operators that come from other packages.

`torch_script.py` and `torch_exported.py` each read one kind; `pytorch.py` serves them.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from worker_image.server.backends.base import unreadable
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import TensorSpec

DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
UNNAMED_OUTPUT = "output"
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.|Unknown builtin op: (\w+)::|_OpNamespace' '(\w+)'")
_OTHER_RELEASE = re.compile(r"schema version|opset|newer version|produced by|file format version", re.IGNORECASE)


class Program(Protocol):
    """A loaded model. `inputs` and `outputs` are () where nobody said what they are.

    `names` are those of the arguments, in their order. `joins_rows`: the first dimension is a batch, row by row.
    `most_rows`: what one call takes at most.
    """

    names: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    joins_rows: bool
    most_rows: int | None

    def run(self, tensors: list[Any]) -> dict[str, Any]:
        """The tensors of the outputs by name. `ValueError`: these shapes are not what the program was made for."""
        ...


def named(answer: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `forward()` returned, flat and by name: the keys of a dictionary, the author's `names`, or numbers."""
    leaves = dict(_leaves(answer, ""))
    if names and len(names) == len(leaves):
        return dict(zip(names, leaves.values(), strict=True))
    return leaves


def load_with_operators(file: Path, load: Callable[[], Any], advice: str) -> Any:
    """What `load` gives. Operators that are not PyTorch's own are registered by importing the package that has them;
    torchvision is the one that everybody knows.
    """
    imported: set[str] = set()
    while True:
        try:
            return load()
        except MemoryError:
            raise
        except Exception as exc:
            match = _OPERATOR.search(str(exc))
            package = next(filter(None, match.groups())) if match else ""
            if not package or package in imported:
                raise _load_error(file, exc, advice) from exc
            _register(file, package, exc)
            imported.add(package)


def _register(file: Path, package: str, cause: Exception) -> None:
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        raise ModelFailed(
            "MODULE_MISSING",
            f"{file}: needs operators of {package!r}, which are not PyTorch's own; name the package that has them "
            "in a requirements.txt beside the model (they are registered by importing it)",
        ) from cause


def _load_error(file: Path, exc: Exception, advice: str) -> ModelFailed:
    problem = one_line(exc)
    if _OTHER_RELEASE.search(problem):
        reason = f"{file}: {problem}; PyTorch here is {torch.__version__}; export it again with that release"
        return ModelFailed("VERSION_SKEW", reason)
    said = f"cannot be read by PyTorch {torch.__version__} ({file.stat().st_size} bytes, {problem})"
    return unreadable(file, said, advice)


def _leaves(answer: Any, path: str) -> Iterator[tuple[str, Any]]:
    if answer is None:
        return
    if hasattr(answer, "_asdict"):  # a named tuple
        answer = answer._asdict()
    if isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(answer, (tuple, list)):
        for index, value in enumerate(answer):
            yield from _leaves(value, f"{path}.{index}" if path else f"{UNNAMED_OUTPUT}_{index}")
    else:
        yield path or UNNAMED_OUTPUT, answer
