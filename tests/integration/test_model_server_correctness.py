"""The answer to a request through gateway and batcher is that of the model called directly, bit for bit.

Requests of all datatypes and shapes are asked at one time, so that they meet in batches, in queues, in the cache and in
two processes. What goes over the wire is written and read here, without the server's own codecs.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import joblib
import ml_dtypes
import numpy as np
import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica
from tests.fakes.serving import gateway

AT_ONE_TIME = 6
# Each row is answered with itself and a digest of all that the model was told of it.
ROWS = """
import hashlib, time
import numpy as np

class Model:
    def load(self, path): ...

    def predict(self, inputs, parameters):
        time.sleep(0.001)  # others gather meanwhile
        rows = range(len(next(iter(inputs.values()))))
        digests = np.array([digest(inputs, parameters, row) for row in rows], object)
        return {"digest": digests, **{f"same {name}": tensor for name, tensor in inputs.items()}}

def digest(inputs, parameters, row):
    told = [(name, inputs[name].dtype.str, inputs[name].shape[1:], inputs[name][row : row + 1]) for name in sorted(inputs)]
    said = [(*each, values.tolist() if values.dtype.hasobject else values.tobytes()) for *each, values in told]
    return hashlib.sha256(repr((said, sorted(parameters.items()))).encode("utf-8", "surrogatepass")).hexdigest()
"""
TYPES: dict[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16, "BYTES": np.object_,
}  # fmt: skip
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


@dataclasses.dataclass(frozen=True)
class Sent:
    """One tensor as a client has it."""

    name: str
    values: Any
    is_binary: bool

    @property
    def datatype(self) -> str:
        return NAMES[self.values.dtype]

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": list(self.values.shape)}
        if self.is_binary:
            return {**entry, "parameters": {"binary_data_size": len(self.content())}}
        return {**entry, "data": [_in_json(value) for value in self.values.ravel().tolist()]}

    def content(self) -> bytes:
        if self.values.dtype != object:
            return bytes(self.values.tobytes())
        encoded = [value.encode() if isinstance(value, str) else value for value in self.values.flat]
        return b"".join(struct.pack("<I", len(each)) + each for each in encoded)

    def as_told(self) -> Any:
        """As the model gets it: BF16 as FP32, and binary strings as text where they are UTF-8. JSON has one NaN only."""
        if self.datatype in ("BF16", "FP16", "FP32", "FP64"):
            told = self.values.astype(np.float32 if self.datatype == "BF16" else self.values.dtype)
            return told if self.is_binary else np.where(np.isnan(told), told.dtype.type(np.nan), told)
        if self.datatype == "BYTES" and self.is_binary:
            told = self.values.copy()
            for place, value in enumerate(told.flat):
                told.flat[place] = _text_or_bytes(value.encode() if isinstance(value, str) else value)
            return told
        return self.values


@dataclasses.dataclass(frozen=True)
class Asked:
    model: str
    inputs: list[Sent]
    parameters: dict[str, Any]
    wants_binary: bool

    def told(self) -> dict[str, Any]:
        return {sent.name: sent.as_told() for sent in self.inputs}

    def http(self) -> tuple[bytes, dict[str, str]]:
        flag = {"binary_data_output": True} if self.wants_binary else {}
        body = {"inputs": [sent.entry() for sent in self.inputs], "parameters": {**self.parameters, **flag}}
        head = json.dumps(body).encode()
        tail = b"".join(sent.content() for sent in self.inputs if sent.is_binary)
        has_tail = any(sent.is_binary for sent in self.inputs)
        return head + tail, {"inference-header-content-length": str(len(head))} if has_tail else {}


@dataclasses.dataclass(frozen=True)
class World:
    url: str
    replicas: dict[str, Replica]
    rows: Any  # the model itself
    forest: Any
    http: urllib3.PoolManager
    pool: ThreadPoolExecutor

    def ask(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        body, fields = asked.http()
        answer = self.http.request("POST", f"{self.url}/v2/models/{asked.model}/infer", body=body, headers=fields)
        if answer.status != 200:
            return answer.status, json.loads(answer.data)
        length = answer.headers.get("inference-header-content-length")
        return 200, _outputs(answer.data, len(answer.data) if length is None else int(length))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One gateway before the same model four times: as it comes, with a cache, in two processes, and without batches."""
    directory = tmp_path_factory.mktemp("correctness")
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "cached": {"cache": {"ttl_s": 60, "max_bytes": 1 << 20}},
        "two": {"instances": 2},
        "alone": {"batching": {"max_size": 1}},
    }
    path = models.python(directory / "rows", ROWS)
    forest = directory / "forest"
    forest.mkdir()
    joblib.dump(estimator(), forest / "model.joblib")
    with ExitStack() as stack:
        start = stack.enter_context
        replicas = {
            name: start(ready_replica(path, backend="python", model=name, MODELFLEET_SETTINGS=json.dumps(tuning)))
            for name, tuning in variants.items()
        }
        replicas["forest"] = start(ready_replica(forest, model="forest"))
        url = start(gateway(directory, *replicas.values()))
        http = start(urllib3.PoolManager(maxsize=AT_ONE_TIME))
        pool = start(ThreadPoolExecutor(AT_ONE_TIME))
        yield World(url, replicas, own(path), estimator(), http, pool)


def own(path: Path) -> Any:
    names: dict[str, Any] = {}
    exec((path / "model.py").read_text(), names)
    return names["Model"]()


def estimator() -> RandomForestClassifier:
    """Trees: whatever rows stand beside it, a row is answered with the same bits. A product of matrices is not."""
    return RandomForestClassifier(5, random_state=0).fit(*load_iris(return_X_y=True))


def tensors(name: str, rows: int) -> st.SearchStrategy[Sent]:
    shape = hnp.array_shapes(min_dims=0, max_dims=2, max_side=3).map(lambda trailing: (rows, *trailing))
    numeric = st.sampled_from([name for name in TYPES if name not in ("BYTES", "BF16")])
    numbers = numeric.flatmap(lambda datatype: hnp.arrays(TYPES[datatype], shape))
    halves = hnp.arrays(np.uint16, shape).map(lambda bits: bits.view(ml_dtypes.bfloat16))
    strings = hnp.arrays(object, shape, elements=st.text(max_size=3) | st.binary(max_size=3))
    return st.builds(Sent, st.just(name), numbers | halves | strings, st.booleans())


# Few enough that requests are of one kind, and share batches, or are equal, and share an answer.
PARAMETERS = st.sampled_from([{}, {}, {"k": 1}, {"k": True}, {"k": "1"}, {"priority": 1}])


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    rows = draw(st.integers(1, 4))
    names = draw(st.sampled_from([("a",), ("a", "b")]))
    inputs = [draw(tensors(name, rows)) for name in names]
    model = draw(st.sampled_from(["plain", "cached", "two", "alone"]))
    return Asked(model, inputs, draw(PARAMETERS), draw(st.booleans()))


@st.composite
def mixtures(draw: st.DrawFn) -> list[Asked]:
    """Some requests, among them copies of others with other rows or none changed."""
    asked = draw(st.lists(requests(), min_size=1, max_size=3))
    again = draw(st.lists(st.sampled_from(asked), max_size=AT_ONE_TIME - len(asked)))
    return asked + [dataclasses.replace(each, wants_binary=draw(st.booleans())) for each in again]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(asked=mixtures())
def test_every_answer_is_the_models_own(world: World, asked: list[Asked]) -> None:
    answers = list(world.pool.map(world.ask, asked))

    for each, (status, answer) in zip(asked, answers, strict=True):
        given = {name: value for name, value in each.parameters.items() if name != "priority"}
        direct = world.rows.predict(each.told(), given)
        if not each.wants_binary and not all(map(_is_finite, direct.values())):
            # JSON has no NaN: never null, and never a wrong number.
            assert (status, answer["code"]) == (422, "NOT_FINITE")
            continue
        assert status == 200, answer
        assert answer.keys() == direct.keys()
        for name, values in direct.items():
            assert _bits(answer[name]) == _bits(_as_answered(values, each.wants_binary)), name


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(
        st.tuples(
            hnp.arrays(
                st.sampled_from([np.float32, np.float64]),
                st.integers(1, 40).map(lambda rows: (rows, 4)),
                elements=st.floats(-10, 10, width=32),
            ),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
        max_size=AT_ONE_TIME,
    )
)
def test_a_forest_answers_each_row_as_alone(world: World, blocks: list[tuple[Any, bool, bool]]) -> None:
    asked = [Asked("forest", [Sent("x", rows, is_binary)], {}, wants) for rows, is_binary, wants in blocks]

    answers = list(world.pool.map(world.ask, asked))

    for (rows, _, _), (status, answer) in zip(blocks, answers, strict=True):
        assert status == 200
        assert answer["predict"].tolist() == world.forest.predict(rows).tolist()


def test_requests_have_met_in_batches_and_in_the_cache(world: World) -> None:
    """Else the properties above say nothing of batches. Runs after them."""
    text = {
        name: world.http.request("GET", f"{replica.url}/metrics").data.decode()
        for name, replica in world.replicas.items()
    }

    for name in ("plain", "two", "forest"):
        assert _sample(text[name], "modelfleet_batch_size_sum") > _sample(text[name], "modelfleet_batch_size_count")
    assert _sample(text["cached"], "modelfleet_server_cache_requests_total", 'outcome="hit"') > 0


def _sample(text: str, name: str, label: str = "") -> float:
    found = re.search(rf"^{name}{{[^}}]*{label}[^}}]*}} (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def _in_json(value: Any) -> Any:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _text_or_bytes(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _outputs(content: bytes, length: int) -> dict[str, Any]:
    """The arrays of an answer whose JSON has `length` bytes."""
    outputs, place = {}, length
    for entry in json.loads(content[:length])["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[entry["name"]] = _from_json(entry)
        else:
            outputs[entry["name"]] = _from_bytes(entry, content[place : place + size])
            place += size
    assert place == len(content)
    return outputs


def _from_json(entry: dict[str, Any]) -> Any:
    values = [base64.b64decode(value["b64"]) if isinstance(value, dict) else value for value in entry["data"]]
    return _array(values, entry)


def _from_bytes(entry: dict[str, Any], content: bytes) -> Any:
    if entry["datatype"] != "BYTES":
        return np.frombuffer(content, TYPES[entry["datatype"]]).reshape(entry["shape"])
    values, place = [], 0
    while place < len(content):
        (length,) = struct.unpack_from("<I", content, place)
        values.append(content[place + 4 : place + 4 + length])
        place += 4 + length
    return _array(values, entry)


def _array(values: list[Any], entry: dict[str, Any]) -> Any:
    array = np.empty(len(values), TYPES[entry["datatype"]])
    array[:] = values
    return array.reshape(entry["shape"])


def _as_answered(values: Any, is_binary: bool) -> Any:
    """Binary strings are bytes."""
    if values.dtype != object or not is_binary:
        return values
    encoded = values.copy()
    for place, value in enumerate(values.flat):
        encoded.flat[place] = value.encode() if isinstance(value, str) else value
    return encoded


def _is_finite(values: Any) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _bits(values: Any) -> tuple[Any, ...]:
    return values.dtype, values.shape, values.tolist() if values.dtype == object else values.tobytes()
