"""Open Inference Protocol v2, REST with JSON tensors: https://github.com/kserve/open-inference-protocol

Owns the request and response objects, the model's metadata, and the checks that the protocol alone can make: shape
against data, datatypes, names. Whether the tensors fit the model is `tensors.fit`'s question.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from worker_image.server.codecs.json_values import Lenient, Undecoded, decode_envelope, of_utf_8, parse, to_list
from worker_image.server.errors import RequestError, bad_request
from worker_image.server.tensors import (
    NO_PARAMETERS,
    NUMPY_TYPES,
    Parameters,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
    datatype_of,
)

SERVER = "modelfleet"
# Parameters by which clients speak to the server itself, or to a scheduler that we have not.
RESERVED_PARAMETERS = frozenset(
    {"binary_data_output", "priority", "sequence_end", "sequence_id", "sequence_start", "timeout"}
)


class InputTensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class LenientInputTensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] | None = None


class WantedOutput(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    inputs: list[InputTensor]
    id: str | None = None
    outputs: list[WantedOutput] | None = None
    parameters: dict[str, Any] | None = None


class LenientInferRequest(msgspec.Struct):
    inputs: list[LenientInputTensor]
    id: str | None = None
    outputs: list[WantedOutput] | None = None
    parameters: dict[str, Any] | None = None


class Decoded(msgspec.Struct):
    """A request in the terms of the model: `outputs` are the names asked for, () when none were named."""

    inputs: Tensors
    outputs: tuple[str, ...]
    id: str | None
    parameters: Parameters = NO_PARAMETERS


class OutputTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


class InferResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()


@of_utf_8
def decode(body: bytes) -> Decoded:
    request, loose = decode_envelope(body, _decoder, ("inputs",))
    if request is None:
        try:
            request = msgspec.convert(loose, LenientInferRequest)
        except msgspec.ValidationError as exc:
            raise bad_request(f"body: {exc}; it is an inference request of the Open Inference Protocol") from exc
    inputs: Tensors = {}
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise bad_request(f"input {tensor.name!r}: sent twice; each input has one name; remove one")
        inputs[tensor.name] = _tensor(tensor)
    wanted = tuple(output.name for output in request.outputs) if request.outputs else ()
    return Decoded(inputs, wanted, request.id, request.parameters or NO_PARAMETERS)


def of_the_model(parameters: Parameters) -> Parameters:
    """Those that are not the protocol's own."""
    return {name: value for name, value in parameters.items() if name not in RESERVED_PARAMETERS}


def wanted_outputs(signature: Signature, wanted: tuple[str, ...]) -> tuple[str, ...]:
    if not wanted:
        return signature.default_outputs
    names = [spec.name for spec in signature.outputs]
    for name in wanted:
        if names and name not in names:
            listed = ", ".join(repr(known) for known in names)
            raise bad_request(f"output {name!r}: the model has no such output; it gives {listed}; ask for one of them")
    return tuple(dict.fromkeys(wanted))


def encode(model: str, version: str, request_id: str | None, outputs: Tensors) -> bytes:
    tensors = [_output(name, tensor) for name, tensor in outputs.items()]
    try:
        return _encoder.encode(InferResponse(model, version, tensors, request_id))
    except TypeError as exc:
        raise RequestError("MODEL_FAILED", f"answer: {exc}; return numbers, strings or bytes") from exc


def server_metadata(version: str) -> dict[str, Any]:
    return {"name": SERVER, "version": version, "extensions": []}


def model_metadata(
    model: str, version: str, signature: Signature, parameters: dict[str, Any] | None = None
) -> dict[str, Any]:
    """`parameters` are more than the protocol asks for: what the server has to say of how it serves the model."""
    return {
        "name": model,
        "versions": [version],
        "platform": signature.platform,
        "inputs": [_spec(spec) for spec in signature.inputs],
        "outputs": [_spec(spec) for spec in signature.outputs],
        **({"parameters": parameters} if parameters else {}),
    }


def _tensor(sent: InputTensor | LenientInputTensor) -> Tensor:
    where = f"input {sent.name!r}"
    if sent.parameters and "binary_data_size" in sent.parameters:
        raise bad_request(
            f"{where}: sent as binary data; this server reads JSON tensors; "
            "send `data` (tritonclient: binary_data=False)"
        )
    if sent.datatype not in NUMPY_TYPES:
        raise bad_request(
            f"{where}: datatype {sent.datatype!r}; it is one of {', '.join(NUMPY_TYPES)}; send one of these"
        )
    values: Undecoded = Lenient(sent.data) if isinstance(sent, LenientInputTensor) else memoryview(sent.data)
    if not isinstance(values, Lenient) and not values:
        raise bad_request(f"{where}: no `data`; a tensor carries its values in it; send them")
    return _shaped(parse(values, sent.datatype, where), sent.shape, where)


def _shaped(tensor: Tensor, shape: list[int], where: str) -> Tensor:
    """Data may come flat or nested (row-major): both have to hold exactly what `shape` says."""
    wanted = tuple(shape)
    if tensor.shape == wanted:
        return tensor
    if any(length < 0 for length in wanted):
        raise bad_request(
            f"{where}: shape {shape}; a request says real lengths; -1 stands in metadata only; send the count"
        )
    if tensor.ndim != 1 or tensor.size != math.prod(wanted):
        counted = f"{tensor.size} values" if tensor.ndim == 1 else f"values of shape {list(tensor.shape)}"
        raise bad_request(
            f"{where}: shape {shape} means {math.prod(wanted)} values, `data` has {counted}; make them agree"
        )
    return tensor.reshape(wanted)


def _output(name: str, tensor: Tensor) -> OutputTensor:
    flat = tensor.ravel()
    return OutputTensor(name, datatype_of(tensor.dtype), tensor.shape, to_list(name, flat, allow_nan=False))


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
