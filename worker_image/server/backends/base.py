"""What a framework must give to be served, and what several of them need: finding the one file, naming what is wrong
with it.

One file a framework sits beside this one. Each has `load(directory, threads) -> Model` and imports its framework at
the top, so that the server imports exactly one. `load` raises `ModelFailed`; whatever else it raises is taken for the
model's own error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from worker_image.server.errors import ModelFailed
from worker_image.server.tensors import NUMPY_TYPES, Parameters, Signature, Tensor, Tensors, TensorSpec

if TYPE_CHECKING:
    from worker_image.server.backends.steps import Steps

# The classes of a model that was trained on their numbers: see `boosters.py`.
LABELS_FILE = "labels.json"
# Files that may lie beside a model without being one.
BESIDE = frozenset({"warmup.json", "signature.json", "requirements.txt", "README.md", "LICENSE", LABELS_FILE})
# A variable of the version's `env`: "1" takes the risk of a file that another release of the framework wrote.
ALLOW_SKEW = "ALLOW_VERSION_SKEW"


class Model(Protocol):
    """A loaded model. `predict` runs in the model's thread, one call at a time, with inputs that fit `signature`.

    It computes `outputs` and nothing else. It may raise: `ValueError` says that the caller's input is at fault.
    """

    signature: Signature
    # Whether the time of a prediction depends on its rows alone: see `batching/placement.py`.
    is_steady: bool

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors: ...

    def warmup(self) -> Tensors | None:
        """Inputs for the first prediction, or None when only the model's author can know them."""
        ...


class Parametrised(Model, Protocol):
    """A model whose `signature.takes_parameters`: it is given those of a request, none that are the protocol's own."""

    def predict_with(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors: ...


class Custom(Parametrised, Protocol):
    """A model of somebody's own: what else it can do, each only if `signature.verbs` says so."""

    # "http": an ASGI application, called on the server's own event loop.
    app: Any
    # "stream": how many at one time, None for as many as requests are taken.
    max_streams: int | None
    # Its predictions wait rather than compute: several run at one time, in a thread each.
    is_async: bool

    def predict_many(self, inputs: list[Tensors], outputs: tuple[str, ...], parameters: Parameters) -> list[Tensors]:
        """For "batch": an answer for each request."""
        ...

    def explain(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors: ...

    def open_stream(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Steps:
        """For "stream". Called, like what it returns, in the stream's own thread: beside the other calls."""
        ...

    def unload(self) -> None:
        """For "unload": the last call that it gets."""
        ...


def find_file(directory: Path, suffixes: Sequence[str], backend: str) -> Path:
    """The one model file of `directory`: `model.*` when there are several."""
    files = _files(directory)
    found = [file for file in files if file.suffix in suffixes and file.name not in BESIDE]
    preferred = [file for file in found if file.stem == "model"] if len(found) > 1 else found
    if len(preferred) == 1:
        return preferred[0]
    wanted = f"the {backend} backend reads one file that ends in {' or '.join(suffixes)}"
    if not found:
        names = ", ".join(repr(file.name) for file in files[:8]) or "no file"
        raise ModelFailed(
            "ARTIFACT_MISSING", f"{directory}: holds {names}; {wanted}; put it there or set another `backend`"
        )
    names = ", ".join(repr(file.name) for file in found[:8])
    raise ModelFailed(
        "ARTIFACT_MISSING", f"{directory}: holds {names}; {wanted}; keep one, or name it model{suffixes[0]}"
    )


def blank(spec: TensorSpec) -> Tensor:
    """One row of zeros or empty strings: the warm-up of a model that says what it takes."""
    shape = [1 if length == -1 else length for length in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=NUMPY_TYPES[spec.datatype])


def unreadable(file: Path, problem: str, advice: str) -> ModelFailed:
    return ModelFailed("ARTIFACT_UNREADABLE", f"{file}: {problem}; {advice}")


def forbidden(exc: PermissionError) -> ModelFailed:
    said = f"{exc.filename}: may not be read by user {os.getuid()}; the server runs without privileges"
    return ModelFailed("ARTIFACT_MISSING", f"{said}; make the files readable to all")


def missing_module(what: Path, exc: ModuleNotFoundError) -> ModelFailed:
    return ModelFailed(
        "MODULE_MISSING",
        f"{what}: needs the Python module {exc.name!r}, which is not installed here; "
        "name its package in a requirements.txt beside the model",
    )


def _files(directory: Path) -> list[Path]:
    try:
        if not directory.is_dir():
            raise ModelFailed(
                "ARTIFACT_MISSING", f"{directory}: no such directory; the model is mounted there; check `source`"
            )
        return sorted(entry for entry in directory.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except PermissionError as exc:
        raise forbidden(exc) from exc
