"""Trying a model from the console: what it takes, from its own metadata, and one request through the gateway.

The request goes the way that every client's goes, with the limits and the keys that hold for clients. A key is used for
this one request, and neither kept nor logged.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import APIRouter

from orchestrator.api import schemas_console as schemas
from orchestrator.api.context import Control
from orchestrator.core.entities import Replica, VersionKey
from orchestrator.core.errors import NotFoundError, UnavailableError
from orchestrator.core.states import ReplicaState
from orchestrator.loops.control import ControlPlane

METADATA_TIMEOUT_S = 3.0
MOST_ANSWER_BYTES = 1 << 20
# A larger example is none that anybody fills in.
MOST_VALUES = 4096
_EXAMPLES: dict[str, Any] = {"BYTES": "", "BOOL": False, "FP16": 0.0, "FP32": 0.0, "FP64": 0.0, "BF16": 0.0}

router = APIRouter()


@router.get("/models/{model}/versions/{version}/try")
async def form(control: Control, model: str, version: str) -> schemas.TryForm:
    """What the version takes, with an example to change and send."""
    key = _known(control, model, version)
    described, note = await _metadata(control, key)
    inputs = [each for each in map(_input, _listed(described, "inputs")) if each is not None]
    if described and not inputs:
        note = note or "the model does not say what it takes; write a request as its author says"
    return schemas.TryForm(
        model=model,
        version=version,
        url=_url(control, key),
        inputs=inputs,
        outputs=tuple(str(each.get("name", "")) for each in _listed(described, "outputs")),
        example=_example(inputs),
        note=note,
    )


@router.post("/models/{model}/versions/{version}/try")
async def send(control: Control, model: str, version: str, request: schemas.TryRequest) -> schemas.TryAnswer:
    """Sends one request through the gateway, and says what came back, whatever it is."""
    url = _url(control, _known(control, model, version))
    headers = {
        "accept-encoding": "identity",
        "content-type": request.content_type,
        "x-request-timeout-ms": str(math.ceil(request.timeout_s * 1000)),
    }
    if request.key:
        headers["authorization"] = f"Bearer {request.key}"
    began = time.monotonic()
    try:
        # The gateway is on this machine, and its certificate is for the name that clients call it by.
        async with (
            httpx.AsyncClient(trust_env=False, verify=False, timeout=request.timeout_s + 2) as client,
            client.stream("POST", url, content=request.body.encode(), headers=headers) as answer,
        ):
            body, is_cut = await _read(answer)
    except httpx.TimeoutException as exc:
        raise UnavailableError(
            f"try: the gateway gave no answer within {request.timeout_s:g} s; see `modelfleet logs {model}`"
        ) from exc
    except httpx.HTTPError as exc:
        raise UnavailableError(f"try: the gateway at {url} cannot be asked: {exc}; see `modelfleet status`") from exc
    return _answer(answer, body, is_cut, took_ms=(time.monotonic() - began) * 1000)


async def _read(answer: httpx.Response) -> tuple[bytes, bool]:
    """The body as far as it is shown, and whether there is more of it."""
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MOST_ANSWER_BYTES:
            return bytes(body[:MOST_ANSWER_BYTES]), True
    return bytes(body), False


def _answer(answer: httpx.Response, body: bytes, is_cut: bool, took_ms: float) -> schemas.TryAnswer:
    try:
        # A character that is cut through is no sign of anything.
        text, is_binary = body.decode("utf-8", "ignore" if is_cut else "strict"), False
    except UnicodeDecodeError:
        text, is_binary = base64.b64encode(body).decode(), True
    return schemas.TryAnswer(
        status=answer.status_code, headers=dict(answer.headers), body=text, is_binary=is_binary, is_cut=is_cut,
        took_ms=round(took_ms, 2),
    )  # fmt: skip


def _known(control: ControlPlane, model: str, version: str) -> VersionKey:
    found = control.loop.desired.models.get(model)
    if found is None or version not in found.versions:
        names = ", ".join(f"{m.name}@{v}" for m in control.loop.desired.models.values() for v in m.versions)
        raise NotFoundError(f"version {model}@{version}: not in force; there are: {names or 'none'}; name one of them")
    return VersionKey(model, version)


def _url(control: ControlPlane, key: VersionKey) -> str:
    base = control.keeper.listener.url if control.keeper.listener else ""
    return f"{base}/v2/models/{quote(key.model, safe='')}/versions/{quote(key.version, safe='')}/infer"


async def _metadata(control: ControlPlane, key: VersionKey) -> tuple[Mapping[str, Any], str]:
    """What a replica says of its model, and why it does not. It is asked directly: no key is needed."""
    ready = [r for r in control.loop.observed.of(key) if r.state is ReplicaState.READY]
    if not ready:
        return {}, "no replica is ready to say what it takes; a request wakes one that is asleep"
    try:
        return await _described(ready[0]), ""
    except (httpx.HTTPError, ValueError) as exc:
        return {}, f"its metadata cannot be read: {exc or type(exc).__name__}"


async def _described(replica: Replica) -> Mapping[str, Any]:
    host = f"[{replica.host}]" if ":" in replica.host else replica.host
    url = f"http://{host}:{replica.port}/v2/models/{quote(replica.key.model, safe='')}"
    async with (
        httpx.AsyncClient(trust_env=False, timeout=METADATA_TIMEOUT_S) as client,
        client.stream("GET", url, headers={"accept-encoding": "identity"}) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"it answers {answer.status_code}")
        body, is_cut = await _read(answer)
    if is_cut:
        raise ValueError(f"it is larger than {MOST_ANSWER_BYTES} bytes")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _listed(described: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A replica runs its author's code: what it says may be anything."""
    found = described.get(name)
    return [each for each in found if isinstance(each, dict)][:100] if isinstance(found, list) else []


def _input(described: dict[str, Any]) -> schemas.TryInput | None:
    name, datatype, shape = (described.get(field) for field in ("name", "datatype", "shape"))
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        return None
    if not all(isinstance(length, int) for length in shape):
        return None
    count = math.prod(max(1, length) for length in shape)
    example = [_EXAMPLES.get(datatype, 0)] * count if count <= MOST_VALUES else []
    return schemas.TryInput(name=name, datatype=datatype, shape=shape, example=example)


def _example(inputs: list[schemas.TryInput]) -> str:
    """One input a line, so that a person finds the numbers."""
    if not inputs:
        return '{\n  "inputs": []\n}'
    tensors = (
        {"name": i.name, "datatype": i.datatype, "shape": [max(1, length) for length in i.shape], "data": i.example}
        for i in inputs
    )
    return '{\n  "inputs": [\n' + ",\n".join(f"    {json.dumps(each)}" for each in tensors) + "\n  ]\n}"
