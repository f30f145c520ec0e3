"""The repository index of one model server: its one model, in the form that Triton and KServe gave it.

Owns the request and the answer of `/v2/repository/index`. A gateway answers the same path for all of its models.
"""

from __future__ import annotations

from typing import Any

import msgspec

from worker_image.server.errors import bad_request
from worker_image.server.phase import Phase

PATH = "/v2/repository/index"
# The request is one small object.
BODY_BYTES = 4096


class IndexRequest(msgspec.Struct):
    ready: bool = False


def wants_ready(body: bytes | memoryview) -> bool:
    """Whether only what can answer is asked for."""
    if not bytes(body).strip():
        return False
    try:
        return msgspec.json.decode(body, type=IndexRequest).ready
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        rule = 'it is {"ready": true} (only what can answer), {} or empty; send that'
        raise bad_request(f"body: {exc}; {rule}") from exc


def index(model: str, version: str, phase: Phase, *, only_ready: bool = False) -> list[dict[str, Any]]:
    if only_ready and not phase.is_ready:
        return []
    return [{"name": model, "version": version, "state": _state(phase), "reason": phase.error}]


def _state(phase: Phase) -> str:
    if phase.is_ready:
        return "READY"
    if phase.error:
        return "UNAVAILABLE"
    return "UNLOADING" if phase.name == "draining" else "LOADING"
