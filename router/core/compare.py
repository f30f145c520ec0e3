"""Whether a shadow version answered as the live one did.

Owns what "equal" means. Status classes are compared first; only the bodies of 2xx are compared further, for the words
of an error are nobody's prediction. JSON is compared by value, without what names the version or the request; binary
tensors (v2's extension, and those of gRPC's messages) element by element; anything else byte by byte. Pure. Comparing
is a generator, so that a long answer does not keep requests waiting: it yields often, and returns the verdict.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec

from router.core import protobuf
from router.core.errors import ProtocolError
from router.core.oip import MESSAGE

EQUAL: Final = "equal"
DIFFERENT: Final = "different"
FAILED: Final = "failed"

# At the top of an answer: they differ between versions and requests, whatever was predicted.
IGNORED: Final = frozenset(("model_version", "id"))
# So many values take 0.2 ms.
STEP: Final = 1000

_NUMBERS: Final = (int, float)
_BINARY_LENGTH: Final = b"inference-header-content-length"
# Little-endian, as v2's binary tensor extension says. BF16 is the upper half of an FP32.
_FORMATS: Final = {
    "BOOL": "<?", "UINT8": "<B", "UINT16": "<H", "UINT32": "<I", "UINT64": "<Q", "INT8": "<b", "INT16": "<h",
    "INT32": "<i", "INT64": "<q", "FP16": "<e", "FP32": "<f", "FP64": "<d", "BF16": "<H",
}  # fmt: skip
_Pairs = Iterator[tuple[object, Any, Any]]


class Answer(NamedTuple):
    """A whole answer. `fields` are `name: value`."""

    status: int
    fields: tuple[bytes, ...]
    body: bytes


class Verdict(NamedTuple):
    """`result` is EQUAL, DIFFERENT or FAILED; `difference` says where, "" without one."""

    result: str
    difference: str = ""


Steps = Generator[None, None, str]


def compare(live: Answer, shadow: Answer, tolerance: float) -> Generator[None, None, Verdict]:
    """FAILED: the shadow broke where the live version did not. Numbers are equal within `tolerance`, relatively."""
    if shadow.status >= 500 > live.status:
        return Verdict(FAILED, f"status: {live.status} is not {shadow.status}")
    if live.status // 100 != shadow.status // 100:
        return Verdict(DIFFERENT, f"status: {live.status} is not {shadow.status}")
    if live.status // 100 != 2 or live.body == shadow.body:
        return Verdict(EQUAL)
    difference = yield from _bodies(live, shadow, tolerance)
    return Verdict(DIFFERENT, difference) if difference else Verdict(EQUAL)


def _bodies(live: Answer, shadow: Answer, tolerance: float) -> Steps:
    if _is_message(live) and _is_message(shadow):
        return (yield from _messages(live.body, shadow.body, tolerance))
    lengths = _binary_length(live), _binary_length(shadow)
    try:
        one = _decode(live.body[: lengths[0]])
        yield
        other = _decode(shadow.body[: lengths[1]])
        yield
    except (msgspec.MsgspecError, RecursionError):
        return "the bodies are not JSON, and their bytes differ"
    difference = yield from _values(one, other, tolerance)
    if difference or lengths == (None, None):
        return difference
    if None in lengths:
        return "one of the answers has its tensors in binary, the other has not"
    tensors = live.body[lengths[0] :], shadow.body[lengths[1] :]
    return (yield from _tensors(one, *tensors, tolerance))


def _is_message(answer: Answer) -> bool:
    return any(line[:13].lower() == b"content-type:" and line[13:].strip() == MESSAGE for line in answer.fields)


def _messages(live: bytes, shadow: bytes, tolerance: float) -> Steps:
    """Where two ModelInferResponses differ. Raw tensors belong to the outputs, by their order."""
    try:
        one, other = _read_message(live), _read_message(shadow)
    except ProtocolError:
        return "the bodies are not messages, and their bytes differ"
    yield
    if len(one.raw) != len(other.raw) or [each.about for each in one.outputs] != [each.about for each in other.outputs]:
        return "the outputs have other names, types or shapes"
    if one.rest != other.rest:
        return "the bytes beside the outputs differ"
    for number, output in enumerate(one.outputs):
        pairs = [(output.datatype, one.raw[number], other.raw[number])] if number < len(one.raw) else []
        pairs += zip(_TYPED, output.contents, other.outputs[number].contents, strict=True)
        for pair in pairs:
            difference = yield from _tensor(*pair, tolerance)
            if difference:
                return f"outputs {_short(output.name)}: {difference}"
    return ""


class _Output(NamedTuple):
    """`contents` are its typed contents: floats, doubles, and whatever is neither."""

    name: str
    datatype: str
    about: bytes
    contents: tuple[bytes, bytes, bytes]


class _Message(NamedTuple):
    outputs: list[_Output]
    raw: list[bytes]
    rest: list[tuple[int, object]]


_TYPED: Final = ("FP32", "FP64", "")


def _read_message(body: bytes) -> _Message:
    message = _Message([], [], [])
    for number, value in protobuf.fields(body, len(body)):
        if number == 5 and isinstance(value, bytes):
            message.outputs.append(_read_output(value))
        elif number == 6 and isinstance(value, bytes):
            message.raw.append(value)
        elif number not in (2, 3):  # model_version and id
            message.rest.append((number, value))
    return message


def _read_output(body: bytes) -> _Output:
    name, datatype = protobuf.texts(body, 2)
    about, contents = [], {6: b"", 7: b"", 0: b""}
    for number, value in protobuf.fields(body, len(body)):
        if number != 5 or not isinstance(value, bytes):
            about.append(f"{number}: {value!r}")
            continue
        for kind, part in protobuf.fields(value, len(value)):
            is_packed = kind in contents and isinstance(part, bytes)
            contents[kind if is_packed else 0] += part if is_packed else f"{kind}: {part!r}".encode()  # type: ignore[operator]
    return _Output(name, datatype, "\n".join(about).encode(), (contents[6], contents[7], contents[0]))


def _decode(body: bytes) -> object:
    value: object = msgspec.json.decode(body)
    return {key: each for key, each in value.items() if key not in IGNORED} if isinstance(value, dict) else value


def _values(live: object, shadow: object, tolerance: float) -> Steps:
    """Where two values of JSON differ. Iterators instead of recursion: it can stop anywhere, at any depth."""
    frames: list[_Pairs] = [iter((("", live, shadow),))]
    path: list[object] = []
    left = STEP
    while frames:
        for key, one, other in frames[-1]:
            left -= 1
            if not left:
                left = STEP
                yield
            kind = type(one)
            if kind is type(other) and (kind is list or kind is dict):
                if shape := _shapes(one, other):
                    return f"{_show([*path, key])}: {shape}"
                path.append(key)
                frames.append(_pairs(one, other))
                break
            if not _is_equal(one, other, tolerance):
                return f"{_show([*path, key])}: {_short(one)} is not {_short(other)}"
        else:
            frames.pop()
            if path:
                path.pop()
    return ""


def _pairs(one: Any, other: Any) -> _Pairs:
    if isinstance(one, list):
        return zip(count(), one, other, strict=False)
    return ((key, value, other[key]) for key, value in one.items())


def _shapes(one: Any, other: Any) -> str:
    """How two lists or objects differ before their values are looked at."""
    if isinstance(one, list):
        return "" if len(one) == len(other) else f"{len(one)} elements are not {len(other)}"
    if one.keys() == other.keys():
        return ""
    names = sorted(one.keys() ^ other.keys())
    return f"{', '.join(map(_short, names[:5]))} is in one of them only"


def _is_equal(one: object, other: object, tolerance: float) -> bool:
    if type(one) in _NUMBERS and type(other) in _NUMBERS:
        return one == other or _is_close(one, other, tolerance)
    return type(one) is type(other) and one == other


def _is_close(one: Any, other: Any, tolerance: float) -> bool:
    if one != one and other != other:  # both are NaN
        return True
    try:
        return bool(abs(one - other) <= tolerance * max(abs(one), abs(other)) < float("inf"))
    except OverflowError:  # a whole number that no float can hold
        return False


def _tensors(head: Any, live: bytes, shadow: bytes, tolerance: float) -> Steps:
    """The tensors behind a header that both answers share."""
    outputs = head.get("outputs") if isinstance(head, dict) else None
    at = 0
    for output in outputs if isinstance(outputs, list) else ():
        size = _binary_size(output)
        one, other = live[at : at + size], shadow[at : at + size]
        at += size
        difference = yield from _tensor(str(output.get("datatype")), one, other, tolerance) if size else _nothing()
        if difference:
            return f"outputs {_short(output.get('name'))}: {difference}"
    return "" if live[at:] == shadow[at:] else "the bytes behind the tensors differ"


def _nothing() -> Steps:
    yield from ()
    return ""


def _tensor(datatype: str, live: bytes, shadow: bytes, tolerance: float) -> Steps:
    form = _FORMATS.get(datatype, "")
    if live == shadow:
        return ""
    if not form or len(live) != len(shadow) or len(live) % struct.calcsize(form):
        return f"the bytes of a tensor of {datatype} differ"
    read: Callable[[Any], Any] = _bf16 if datatype == "BF16" else _same
    pairs = zip(struct.iter_unpack(form, live), struct.iter_unpack(form, shadow), strict=True)
    for index, ((one,), (other,)) in enumerate(pairs, 1):
        if one != other and not _is_close(read(one), read(other), tolerance):
            return f"[{index - 1}]: {_short(read(one))} is not {_short(read(other))}"
        if not index % STEP:
            yield
    return ""


def _same(value: Any) -> Any:
    return value


def _bf16(half: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", half << 16))[0]
    return value


def _binary_length(answer: Answer) -> int | None:
    """Where the binary tensors begin; None when there are none."""
    for line in answer.fields:
        name, _, value = line.partition(b":")
        if name.lower() == _BINARY_LENGTH and value.strip().isdigit():
            return min(int(value), len(answer.body))
    return None


def _binary_size(output: object) -> int:
    parameters = output.get("parameters") if isinstance(output, dict) else None
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else 0
    return size if isinstance(size, int) and size > 0 else 0


def _show(path: list[object]) -> str:
    shown = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path if key != "")
    return shown.lstrip(".")[:200] or "the answer"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
