"""Open Inference Protocol v2 as its messages: what gRPC carries, and the gateway hands on as the body of a request.

Owns the numbers of the messages' fields, both forms of tensors (raw, and typed contents, which FP16 and BF16 have not),
and the sentences about what does not agree. An answer has the form of its request. Numbers that came raw are views into
the request. https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from worker_image.server.codecs import raw, wire
from worker_image.server.codecs.call import Answers, Field, Reply
from worker_image.server.codecs.v2 import Decoded, refuse_shared_memory
from worker_image.server.errors import RequestError, bad_request
from worker_image.server.tensors import NO_PARAMETERS, NUMPY_TYPES, Tensor, Tensors, datatype_of

MESSAGE = b"application/x-protobuf"
# ModelStreamInferResponses, each behind its length in four big-endian bytes.
MESSAGES = b"application/x-protobuf-stream"

# The field of InferTensorContents that holds the values of a datatype.
_BOOL, _INT, _INT64, _UINT, _UINT64, _FP32, _FP64, _BYTES = range(1, 9)
_CONTENTS = {
    "BOOL": _BOOL, "INT8": _INT, "INT16": _INT, "INT32": _INT, "INT64": _INT64, "UINT8": _UINT, "UINT16": _UINT,
    "UINT32": _UINT, "UINT64": _UINT64, "FP32": _FP32, "FP64": _FP64, "BYTES": _BYTES,
}  # fmt: skip
_VARINTS = range(_BOOL, _UINT64 + 1)
_NAMES = ("", "bool", "int", "int64", "uint", "uint64", "fp32", "fp64", "bytes")
# Fields of 32 bits are written as 64 and read as their lower half.
_SHORT: dict[int, type[np.generic]] = {_INT: np.int32, _UINT: np.uint32}
_FLOATS = {_FP32: "<f4", _FP64: "<f8"}
# Of a string that comes raw: its length.
_LEAST_STRING_BYTES = 4
# Copying so much costs less than another write.
_JOINED_BYTES = 65_536
_LENGTH = struct.Struct(">L")


class Request(msgspec.Struct):
    """`is_raw`: its tensors came raw, and those of the answer go so."""

    decoded: Decoded
    is_raw: bool


class _Input(msgspec.Struct):
    name: str = ""
    datatype: str = ""
    shape: list[int] = []
    contents: list[memoryview] = []  # several are one, as the format has it

    @property
    def where(self) -> str:
        return f"input {self.name!r}"


def decode(body: memoryview) -> Request:
    """A ModelInferRequest. Its names of model and version are the gateway's affair."""
    request_id, parameters = "", dict[str, Any]()
    inputs, outputs, raws = list[_Input](), list[str](), list[memoryview]()
    for number, _, value in wire.fields(body):
        if number == 3:
            request_id = wire.text(value, "id")
        elif number == 4:
            _read_parameter(wire.message(value, "parameters"), parameters)
        elif number == 5:
            inputs.append(_read_input(wire.message(value, "inputs")))
        elif number == 6:
            outputs.append(_read_output(wire.message(value, "outputs")))
        elif number == 7:
            raws.append(wire.message(value, "raw_input_contents"))
    tensors = _raw_tensors(inputs, raws) if raws else _typed_tensors(inputs)
    decoded = Decoded(tensors, tuple(outputs), request_id or None, parameters or NO_PARAMETERS)
    return Request(decoded, bool(raws))


def objects_in(body: memoryview) -> int:
    """About how many Python objects, or elements of many times their length, a message will be. 0 for what is none."""
    datatypes, sizes = list[bytes](), list[int]()
    count = 0
    try:
        for number, _, value in wire.fields(body):
            if number == 5 and isinstance(value, memoryview):
                datatype, weight = _weight(value)
                datatypes.append(datatype)
                count += weight
            elif number == 7 and isinstance(value, memoryview):
                sizes.append(len(value))
    except RequestError:
        return 0
    return count + sum(
        size // _LEAST_STRING_BYTES for datatype, size in zip(datatypes, sizes, strict=False) if datatype == b"BYTES"
    )


def encode(model: str, version: str, request: Request, outputs: Tensors) -> Reply:
    """A ModelInferResponse."""
    return _reply(_response(model, version, request, outputs), MESSAGE)


def encode_stream_of_one(model: str, version: str, request: Request, outputs: Tensors) -> Reply:
    """The answer of a model that does not stream, as a stream."""
    return _reply(encode_step(model, version, request, outputs, is_last=True), MESSAGES)


def encode_step(
    model: str, version: str, request: Request, outputs: Tensors, *, is_last: bool = False
) -> list[bytes | memoryview]:
    """A ModelStreamInferResponse behind its length. It says in Triton's own words whether it is the last one."""
    pieces = _response(model, version, request, outputs)
    pieces.append(_FINAL if is_last else _NOT_FINAL)
    size = sum(map(len, pieces))
    return [_framed(wire.head(2, size), size), *pieces]


class MessageStream:
    """A stream of answers as one of messages. Its end is told where Triton's clients ask for it to be."""

    content_type = MESSAGES
    fields: Sequence[Field] = ()

    def __init__(self, answers: Answers, model: str, version: str, request: Request) -> None:
        self._answers = answers
        self._about = model, version, request
        self._tells_end = request.decoded.parameters.get("triton_enable_empty_final_response") is True
        self._first: bytes | None = None

    async def begin(self) -> None:
        self._first = await anext(self, None)

    def __aiter__(self) -> MessageStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            message, self._first = self._first, None
            return message
        answer: Tensors = {}
        is_last = False
        try:
            answer = await anext(self._answers)
        except StopAsyncIteration:
            if not self._tells_end:
                raise
            self._tells_end, is_last = False, True
        return b"".join(encode_step(*self._about, answer, is_last=is_last))

    def last_words(self, error: bytes) -> bytes:
        sentence = msgspec.json.decode(error, type=_Error).error
        named = wire.text_field(3, self._about[2].decoded.id or "")
        return _framed(wire.text_field(1, sentence) + wire.field(2, named), 0)

    async def aclose(self) -> None:
        await self._answers.aclose()


class _Error(msgspec.Struct):
    error: str


def _framed(begin: bytes, more: int) -> bytes:
    """`begin`, behind the length of itself and of `more` bytes that follow it."""
    return _LENGTH.pack(len(begin) + more) + begin


def _final_response(value: bool) -> bytes:
    """A parameter of a ModelInferResponse."""
    return wire.field(4, wire.text_field(1, "triton_final_response") + wire.field(2, wire.integer_field(1, value)))


_FINAL, _NOT_FINAL = _final_response(True), _final_response(False)


# --- reading


def _read_input(message: memoryview) -> _Input:
    found = _Input(shape=[], contents=[])
    for number, kind, value in wire.fields(message):
        if number == 1:
            found.name = wire.text(value, "the name of an input")
        elif number == 2:
            found.datatype = wire.text(value, "the datatype of an input")
        elif number == 3:
            found.shape += [_signed(value)] if isinstance(value, int) else wire.varints(value).view(np.int64).tolist()
        elif number == 4:
            parameters = dict[str, Any]()
            _read_parameter(wire.message(value, "the parameters of an input"), parameters)
            refuse_shared_memory(parameters, found.where)
        elif number == 5 and kind == wire.BYTES:
            found.contents.append(wire.message(value, "contents"))
    return found


def _read_output(message: memoryview) -> str:
    name = ""
    parameters = dict[str, Any]()
    for number, _, value in wire.fields(message):
        if number == 1:
            name = wire.text(value, "the name of an output")
        elif number == 2:
            _read_parameter(wire.message(value, "the parameters of an output"), parameters)
    where = f"output {name!r}"
    if "classification" in parameters:
        raise bad_request(f"{where}: classification; labels with scores are not made here; ask /v1 with :classify")
    refuse_shared_memory(parameters, where)
    return name


def _read_parameter(message: memoryview, found: dict[str, Any]) -> None:
    """One entry of a map, whose value is a InferParameter."""
    name, chosen = "", memoryview(b"")
    for number, _, value in wire.fields(message):
        if number == 1:
            name = wire.text(value, "the name of a parameter")
        elif number == 2:
            chosen = wire.message(value, "a parameter")
    for number, kind, value in wire.fields(chosen):
        if kind == wire.VARINT and number in (1, 2, 5):
            found[name] = _parameter(number, int(value))
        elif kind == wire.BYTES and number == 3:
            found[name] = wire.text(value, f"parameter {name!r}")
        elif kind == wire.FIXED64 and number == 4:
            (found[name],) = struct.unpack("<d", value)  # type: ignore[arg-type]  # what FIXED64 means


def _parameter(number: int, value: int) -> bool | int:
    if number == 1:
        return bool(value)
    return _signed(value) if number == 2 else value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _raw_tensors(inputs: list[_Input], raws: list[memoryview]) -> Tensors:
    if len(raws) != len(inputs):
        raise bad_request(
            f"raw_input_contents: {len(raws)} for {len(inputs)} inputs; either all inputs come raw, one each and in "
            "their order, or none; send all of them"
        )
    tensors: Tensors = {}
    for each, content in zip(inputs, raws, strict=True):
        if any(map(len, each.contents)):
            raise bad_request(f"{each.where}: it has contents and raw_input_contents; a tensor comes once; send one")
        _add(tensors, each, raw.read(content, each.datatype, each.shape, each.where))
    return tensors


def _typed_tensors(inputs: list[_Input]) -> Tensors:
    tensors: Tensors = {}
    for each in inputs:
        _add(tensors, each, _typed(each))
    return tensors


def _add(tensors: Tensors, each: _Input, tensor: Tensor) -> None:
    if each.name in tensors:
        raise bad_request(f"{each.where}: sent twice; each input has one name; remove one")
    tensors[each.name] = tensor


def _typed(sent: _Input) -> Tensor:
    where, datatype = sent.where, sent.datatype
    count = raw.elements(sent.shape, where)
    if datatype not in NUMPY_TYPES:
        raise raw.unknown_datatype(datatype, where)
    own = _CONTENTS.get(datatype)
    if own is None:
        raise bad_request(f"{where}: datatype {datatype} has no typed contents; send it in raw_input_contents")
    parts = list[tuple[int, wire.Value]]()
    for contents in sent.contents:
        for number, kind, value in wire.fields(contents):
            if number != own:
                named = _NAMES[number] if number < len(_NAMES) else f"field {number}"
                raise bad_request(
                    f"{where}: {named}_contents; values of datatype {datatype} are {_NAMES[own]}_contents; send them so"
                )
            parts.append((kind, value))
    values = _values(own, parts)
    if len(values) != count:
        raise bad_request(
            f"{where}: {len(values)} values in its contents; shape {sent.shape} means {count}; make them agree"
        )
    return _of_type(values, datatype, where).reshape(tuple(sent.shape))


def _values(own: int, parts: Sequence[tuple[int, wire.Value]]) -> Tensor:
    """Packed or one by one: a reader must take both."""
    if own == _BYTES:
        return raw.strings([wire.message(value, "bytes_contents") for _, value in parts])
    if own in _FLOATS:
        content = b"".join(wire.message(value, "contents") for _, value in parts)
        if len(content) % np.dtype(_FLOATS[own]).itemsize:
            raise wire.broken("a number is cut off")
        return np.frombuffer(bytearray(content), _FLOATS[own])
    pieces = [
        wire.varints(value) if isinstance(value, memoryview) else np.array([value], np.uint64) for _, value in parts
    ]
    numbers: Tensor = np.concatenate(pieces) if pieces else np.empty(0, np.uint64)
    return numbers.astype(_SHORT[own]) if own in _SHORT else numbers


def _of_type(values: Tensor, datatype: str, where: str) -> Tensor:
    dtype = NUMPY_TYPES[datatype]
    if datatype == "INT64":
        return values.view(np.int64)
    if dtype.kind not in "iu" or dtype == values.dtype:
        return values if dtype == values.dtype else values.astype(dtype)
    limits = np.iinfo(dtype)
    if len(values) and (values.min() < limits.min or values.max() > limits.max):
        raise bad_request(f"{where}: a number is out of the range of {datatype}; send a larger datatype")
    return values.astype(dtype)


def _weight(message: memoryview) -> tuple[bytes, int]:
    """An input's datatype, and about how many elements its typed contents have that are longer in memory."""
    datatype, count = b"", 0
    for number, _, value in wire.fields(message):
        if number == 2 and isinstance(value, memoryview):
            datatype = bytes(value)
        elif number == 5 and isinstance(value, memoryview):
            for kind, _, part in wire.fields(value):
                count += len(part) if kind in _VARINTS and isinstance(part, memoryview) else kind not in _FLOATS
    return datatype, count


# --- writing


def _response(model: str, version: str, request: Request, outputs: Tensors) -> list[bytes | memoryview]:
    about = wire.text_field(1, model) + wire.text_field(2, version) + wire.text_field(3, request.decoded.id or "")
    try:
        datatypes = {name: datatype_of(tensor.dtype) for name, tensor in outputs.items()}
        # Raw are all outputs or none.
        is_raw = request.is_raw or not all(datatype in _CONTENTS for datatype in datatypes.values())
        pieces: list[bytes | memoryview] = [about]
        for name, tensor in outputs.items():
            head = wire.text_field(1, name) + wire.text_field(2, datatypes[name]) + wire.integers_field(3, tensor.shape)
            contents = b"" if is_raw else wire.field(5, _contents(tensor, datatypes[name]))
            pieces.append(wire.field(5, head + contents))
        for tensor in outputs.values() if is_raw else ():
            content = raw.write(tensor)
            pieces += (wire.head(6, len(content)), content)
    except TypeError as exc:
        raise RequestError("MODEL_FAILED", f"answer: {exc}; return numbers, strings or bytes") from exc
    return pieces


def _contents(tensor: Tensor, datatype: str) -> bytes:
    own, flat = _CONTENTS[datatype], tensor.ravel()
    if own == _BYTES:
        return b"".join(wire.field(own, value) for value in raw.encoded(flat))
    if own in _FLOATS:
        return wire.field(own, flat.astype(_FLOATS[own], copy=False).tobytes())
    return wire.field(own, wire.pack_varints(flat))


def _reply(pieces: list[bytes | memoryview], content_type: bytes) -> Reply:
    if sum(map(len, pieces)) <= _JOINED_BYTES:
        return Reply(b"".join(pieces), content_type=content_type)
    return Reply(b"", content_type=content_type, parts=[memoryview(piece) for piece in pieces if len(piece)])
