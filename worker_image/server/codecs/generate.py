"""Triton's generate extension: a text in, a text out, without tensors.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md

Owns the mapping between its flat JSON objects and tensors by name. `text_input` and whatever else names an input of the
model become tensors, everything else parameters; each output becomes a field, a single value without brackets.
"""

from __future__ import annotations

from typing import Any

import msgspec

from worker_image.server.codecs.json_values import Lenient, parse, to_list
from worker_image.server.errors import RequestError, bad_request
from worker_image.server.tensors import Parameters, Signature, Tensor, Tensors, TensorSpec

TEXT_INPUT = "text_input"
TEXT_OUTPUT = "text_output"
_PARAMETERS = "parameters"


def decode(body: bytes | memoryview, signature: Signature) -> tuple[Tensors, Parameters]:
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise bad_request(f"body: {exc}; it is a JSON object with {TEXT_INPUT!r}; correct it") from exc
    if not isinstance(asked, dict) or not isinstance(asked.get(TEXT_INPUT), str):
        raise bad_request(f"body: no text under {TEXT_INPUT!r}; the generate extension carries one there; send it")
    parameters = asked.pop(_PARAMETERS, None) or {}
    if not isinstance(parameters, dict):
        raise bad_request(f"{_PARAMETERS}: {parameters!r}; it is an object of names and values; send one")
    specs = {spec.name: spec for spec in signature.inputs}
    text = _text_name(signature)
    specs.setdefault(text, TensorSpec(text, "BYTES", (-1,)))
    asked[text] = asked.pop(TEXT_INPUT)
    inputs = {name: _tensor(specs[name], value) for name, value in asked.items() if name in specs}
    return inputs, {**{name: value for name, value in asked.items() if name not in specs}, **parameters}


def encode(model: str, version: str, outputs: Tensors) -> bytes:
    answer: dict[str, Any] = {"model_name": model, "model_version": version}
    names = _text_names(outputs)
    for name, tensor in outputs.items():
        listed = to_list(name, tensor.ravel(), allow_nan=False)
        answer[names.get(name, name)] = listed[0] if len(listed) == 1 else listed
    try:
        return msgspec.json.encode(answer)
    except TypeError as exc:
        raise RequestError("MODEL_FAILED", f"answer: {exc}; return numbers, strings or bytes") from exc


def _text_name(signature: Signature) -> str:
    """The input that takes the text: the one of that name, else the only one of strings."""
    names = [spec.name for spec in signature.inputs if spec.datatype == "BYTES"]
    return names[0] if len(names) == 1 else TEXT_INPUT


def _text_names(outputs: Tensors) -> dict[str, str]:
    """The only output of strings answers as `text_output`, whatever the model calls it."""
    names = [name for name, tensor in outputs.items() if tensor.dtype.kind in "USO"]
    return {names[0]: TEXT_OUTPUT} if len(names) == 1 and TEXT_OUTPUT not in outputs else {}


def _tensor(spec: TensorSpec, value: Any) -> Tensor:
    """A value alone is one row; a list has a row for each of its values."""
    tensor = parse(Lenient(value if isinstance(value, list) else [value]), spec.datatype, spec.name)
    return tensor.reshape(tensor.shape + (1,) * (len(spec.shape) - tensor.ndim))
