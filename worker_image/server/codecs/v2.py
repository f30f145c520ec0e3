"""Open Inference Protocol v2, REST, with JSON and binary tensors: https://github.com/kserve/open-inference-protocol

Owns the request and response objects, the model's metadata, and the checks that the protocol alone can make: shape
against data, datatypes, names. Whether the tensors fit the model is `tensors.fit`'s question.
"""

from __future__ import annotations

from typing import Any

import msgspec

from worker_image.server.codecs import binary, raw
from worker_image.server.codecs.call import Reply
from worker_image.server.codecs.json_values import (
    Lenient,
    Undecoded,
    decode_envelope,
    has_null,
    of_utf_8,
    parse,
    to_list,
)
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
    {
        "binary_data_output",
        "priority",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "timeout",
        "triton_enable_empty_final_response",
    }
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


class Binary(msgspec.Struct):
    """Which outputs are wanted as binary data."""

    by_default: bool
    outputs: dict[str, bool]

    def has(self, output: str) -> bool:
        return self.outputs.get(output, self.by_default)


class Decoded(msgspec.Struct):
    """A request in the terms of the model: `outputs` are the names asked for, () when none were named. `is_finite`: the
    inputs came as JSON proper, which has no NaN and no infinities. `missing` are those with a null among their values,
    which only some models take.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    id: str | None
    parameters: Parameters = NO_PARAMETERS
    binary: Binary | None = None
    is_finite: bool = False
    missing: tuple[str, ...] = ()


class OutputTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


class BinaryOutputTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int]


class InferResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[OutputTensor | BinaryOutputTensor]
    id: str | None = None


_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()


@of_utf_8
def decode(body: bytes) -> Decoded:
    return _decoded(body, None)


@of_utf_8
def decode_binary(body: memoryview, header_length: bytes) -> Decoded:
    """A request with tensors behind its JSON. Those of numbers are views into `body`."""
    head, tail = binary.split(body, header_length)
    request = _decoded(head, tail)
    tail.finish()
    return request


def _decoded(head: bytes, tail: binary.Tail | None) -> Decoded:
    request, loose = decode_envelope(head, _decoder, ("inputs",))
    is_finite = request is not None and tail is None
    if request is None:
        try:
            request = msgspec.convert(loose, LenientInferRequest)
        except msgspec.ValidationError as exc:
            raise bad_request(f"body: {exc}; it is an inference request of the Open Inference Protocol") from exc
    inputs: Tensors = {}
    missing: list[str] = []
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise bad_request(f"input {tensor.name!r}: sent twice; each input has one name; remove one")
        inputs[tensor.name] = _tensor(tensor, tail, missing)
    if not request.outputs and not request.parameters:
        return Decoded(inputs, (), request.id, is_finite=is_finite, missing=tuple(missing))
    outputs, parameters = request.outputs or [], request.parameters or NO_PARAMETERS
    names = tuple(output.name for output in outputs)
    wanted = _wanted_binary(outputs, parameters)
    return Decoded(inputs, names, request.id, parameters, wanted, is_finite, tuple(missing))


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


def encode(model: str, version: str, request: Decoded, outputs: Tensors) -> Reply:
    try:
        if request.binary is not None:
            return _encode_binary(model, version, request.id, outputs, request.binary)
        tensors: list[OutputTensor | BinaryOutputTensor] = [_output(name, tensor) for name, tensor in outputs.items()]
        return Reply(_encoder.encode(InferResponse(model, version, tensors, request.id)))
    except TypeError as exc:
        raise RequestError("MODEL_FAILED", f"answer: {exc}; return numbers, strings or bytes") from exc


def server_metadata(version: str) -> dict[str, Any]:
    return {"name": SERVER, "version": version, "extensions": [binary.EXTENSION]}


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


def _wanted_binary(outputs: list[WantedOutput], parameters: Parameters) -> Binary | None:
    """None when all of them are wanted as JSON."""
    by_default = binary.is_wanted(parameters, "binary_data_output", "parameters", default=False)
    said = {output.name: _wants_binary(output, by_default) for output in outputs if output.parameters}
    return Binary(by_default, said) if by_default or any(said.values()) else None


def _wants_binary(output: WantedOutput, by_default: bool) -> bool:
    where = f"output {output.name!r}"
    parameters = output.parameters or {}
    if "classification" in parameters:
        raise bad_request(f"{where}: classification; labels with scores are not made here; ask /v1 with :classify")
    refuse_shared_memory(parameters, where)
    return binary.is_wanted(parameters, "binary_data", where, default=by_default)


def refuse_shared_memory(parameters: Parameters, where: str) -> None:
    if "shared_memory_region" in parameters:
        raise bad_request(f"{where}: shared_memory_region; client and server share no memory; send the data itself")


def _tensor(sent: InputTensor | LenientInputTensor, tail: binary.Tail | None, missing: list[str]) -> Tensor:
    """Adds its name to `missing` when a value is null."""
    where = f"input {sent.name!r}"
    if sent.parameters:
        if (size := sent.parameters.get(binary.SIZE)) is not None:
            return _binary_tensor(sent, size, tail, where)
        refuse_shared_memory(sent.parameters, where)
    if sent.datatype not in NUMPY_TYPES:
        raise raw.unknown_datatype(sent.datatype, where)
    values = _values(sent)
    if values is None:
        said = "no `data`" if tail is None else f"neither `data` nor {binary.SIZE}"
        raise bad_request(f"{where}: {said}; a tensor carries its values or says where they are; send them")
    try:
        tensor = parse(values, sent.datatype, where)
    except RequestError:
        if not has_null(values):
            raise
        tensor = parse(values, sent.datatype, where, missing=True)
        missing.append(sent.name)
    return _shaped(tensor, sent.shape, where)


def _values(sent: InputTensor | LenientInputTensor) -> Undecoded | None:
    if isinstance(sent, LenientInputTensor):
        return None if sent.data is None else Lenient(sent.data)
    return memoryview(sent.data) or None


def _binary_tensor(sent: InputTensor | LenientInputTensor, size: Any, tail: binary.Tail | None, where: str) -> Tensor:
    if tail is None:
        raise bad_request(
            f"{where}: {binary.SIZE} without the request field inference-header-content-length, which says where "
            "the JSON ends; send it"
        )
    if _values(sent) is not None:
        raise bad_request(f"{where}: both `data` and {binary.SIZE}; a tensor comes one way; drop one")
    return raw.read(tail.take(size, where), sent.datatype, sent.shape, where)


def _shaped(tensor: Tensor, shape: list[int], where: str) -> Tensor:
    """Data may come flat or nested (row-major): both have to hold exactly what `shape` says."""
    is_flat = tensor.ndim == 1
    if is_flat and len(shape) == 2 and min(shape) > 0 and shape[0] * shape[1] == tensor.size:
        return tensor.reshape(shape)  # nearly always, and without the checks of what is no shape
    wanted = tuple(shape)
    if tensor.shape == wanted:
        return tensor
    count = raw.elements(shape, where)
    if is_flat and tensor.size == count:
        return tensor.reshape(wanted)
    counted = f"{tensor.size} values" if is_flat else f"values of shape {list(tensor.shape)}"
    raise bad_request(f"{where}: shape {shape} means {count} values, `data` has {counted}; make them agree")


def _encode_binary(model: str, version: str, request_id: str | None, outputs: Tensors, wanted: Binary) -> Reply:
    tensors: list[OutputTensor | BinaryOutputTensor] = []
    parts: list[memoryview] = []
    for name, tensor in outputs.items():
        if not wanted.has(name):
            tensors.append(_output(name, tensor))
            continue
        content = raw.write(tensor)
        sizes = {binary.SIZE: len(content)}
        tensors.append(BinaryOutputTensor(name, datatype_of(tensor.dtype), tensor.shape, sizes))
        parts.append(content)
    return binary.reply(_encoder.encode(InferResponse(model, version, tensors, request_id)), parts)


def _output(name: str, tensor: Tensor) -> OutputTensor:
    flat = tensor.ravel()
    return OutputTensor(name, datatype_of(tensor.dtype), tensor.shape, to_list(name, flat, allow_nan=False))


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
