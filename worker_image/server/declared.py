"""`signature.json`, beside a model: what it takes and gives, said by its author where its own file does not.

    {"inputs":  [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
     "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3], "labels": ["a", "b", "c"]}]}

The form is that of the Open Inference Protocol's metadata, with the labels of an output's columns where it has some,
and -1 that leads a shape is the batch. Owns the file's
reading and how it adds to what a backend knows: it may fill in what is open, and never contradict.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from worker_image.server.errors import ModelFailed
from worker_image.server.tensors import NUMPY_TYPES, Signature, TensorSpec

FILE = "signature.json"


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: list[int]
    labels: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Tensor] = []
    outputs: list[_Tensor] = []


@dataclasses.dataclass(frozen=True)
class Declared:
    """What the author said; () where nothing was said."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


def read(directory: Path) -> Declared:
    file = directory / FILE
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Declared()
    except OSError as exc:
        raise _wrong(file, f"cannot be read ({exc.strerror})") from exc
    try:
        said = msgspec.json.decode(content, type=_File)
    except msgspec.DecodeError as exc:
        raise _wrong(file, str(exc)) from exc
    return Declared(_specs(file, "inputs", said.inputs), _specs(file, "outputs", said.outputs))


def apply(signature: Signature, declared: Declared) -> Signature:
    """`signature` with what it left open as the author said it."""
    return dataclasses.replace(
        signature,
        inputs=_refined("inputs", signature.inputs, declared.inputs),
        outputs=_refined("outputs", signature.outputs, declared.outputs),
        default_outputs=signature.default_outputs or tuple(spec.name for spec in declared.outputs),
    )


def _specs(file: Path, where: str, said: list[_Tensor]) -> tuple[TensorSpec, ...]:
    for index, tensor in enumerate(said):
        if tensor.datatype not in NUMPY_TYPES:
            allowed = ", ".join(NUMPY_TYPES)
            raise _wrong(file, f"{where}[{index}].datatype: {tensor.datatype!r} is not one of {allowed}")
        if any(length < 1 and length != -1 for length in tensor.shape):
            raise _wrong(file, f"{where}[{index}].shape: {tensor.shape} has a length that is neither above 0 nor -1")
        if tensor.name in {other.name for other in said[:index]}:
            raise _wrong(file, f"{where}[{index}].name: {tensor.name!r} stands there twice")
    return tuple(_spec(tensor) for tensor in said)


def _spec(said: _Tensor) -> TensorSpec:
    return TensorSpec(said.name, said.datatype, tuple(said.shape), labels=tuple(said.labels))


def _refined(where: str, known: tuple[TensorSpec, ...], said: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    if not known or not said:
        return known or said
    by_name = {spec.name: spec for spec in said}
    if unknown := [name for name in by_name if name not in {spec.name for spec in known}]:
        names = ", ".join(repr(spec.name) for spec in known)
        raise _contradiction(f"{where}: the model has no {unknown[0]!r}, but {names}")
    return tuple(_closer(where, spec, by_name.get(spec.name)) for spec in known)


def _closer(where: str, known: TensorSpec, said: TensorSpec | None) -> TensorSpec:
    if said is None:
        return known
    if where == "inputs" and not known.takes(said.datatype):
        raise _contradiction(f"{where}: the model wants {known.name!r} as {known.datatype}, not {said.datatype}")
    if len(said.shape) != len(known.shape) or any(
        length not in (-1, other) for length, other in zip(known.shape, said.shape, strict=True)
    ):
        raise _contradiction(f"{where}: {known.name!r} has shape {list(known.shape)}, not {list(said.shape)}")
    return dataclasses.replace(known, datatype=said.datatype, shape=said.shape, labels=said.labels)


def _contradiction(said: str) -> ModelFailed:
    return _wrong(Path(FILE), said)


def _wrong(file: Path, said: str) -> ModelFailed:
    form = '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": […]}'
    return ModelFailed("ARTIFACT_UNREADABLE", f"{file}: {said}; it has the form {form}; correct it")
