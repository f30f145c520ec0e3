"""Which models and versions are routed, and which of them can answer now: the repository index and a model's status.

Owns the form that Triton and KServe gave the index (`POST /v2/repository/index`), and TensorFlow Serving the status
(`GET /v1/models/{m}`), which no single replica knows. A caller learns of the models that its key may ask and of no
others. Pure; which models those are is `door.py`'s to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Set
from typing import Final

from router.core import errors
from router.core.admission import Lane
from router.core.errors import Refusal
from router.core.table import Fleet, Model

# Of the request's own body, which is one small object.
BODY_BYTES: Final = 4096
_FORM: Final = 'the body of /v2/repository/index is {"ready": true} (only what can answer), {} or empty'


class Index:
    """Of what `fleet` routes. The whole list is made once for a table: of 10,000 models that takes 20 ms."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._tag = ""
        self._whole: dict[bool, bytes] = {}  # by whether only what is ready is in it

    def answer(self, seen: Set[str] | None, body: bytes) -> bytes | Refusal:
        """`seen`: the models that the caller may know of; None: all."""
        wants_ready = _wants_ready(body)
        if isinstance(wants_ready, Refusal):
            return wants_ready
        models = self._fleet.models
        if seen is not None:
            return _list([models[name] for name in sorted(seen) if name in models], wants_ready)
        if self._tag != self._fleet.tag:
            self._tag, self._whole = self._fleet.tag, {}
        if wants_ready not in self._whole:
            self._whole[wants_ready] = _list([models[name] for name in sorted(models)], wants_ready)
        return self._whole[wants_ready]


def status(model: Model, version: str, label: str) -> bytes | Refusal:
    """Of one version, or of all when neither a version nor a label is named."""
    lanes = list(model.lanes.values())
    if version or label:
        found = model.named(version, label)
        if isinstance(found, Refusal):
            return found
        lanes = [found]
    return json.dumps({"model_version_status": [_status(lane) for lane in lanes]}).encode()


def ready(model: str) -> bytes:
    """Of a version that sleeps, to who asks whether it is ready: it will answer. Asking wakes nobody."""
    return json.dumps({"name": model, "ready": True}).encode()


def _status(lane: Lane) -> dict[str, object]:
    state = _state(lane)
    code, state = {"READY": ("OK", "AVAILABLE"), "LOADING": ("OK", "LOADING")}.get(state, ("UNAVAILABLE", "END"))
    about = {"error_code": code, "error_message": "" if code == "OK" else _reason(lane)}
    return {"version": lane.version, "state": state, "status": about}


def _list(models: Iterable[Model], wants_ready: bool) -> bytes:
    rows = (row for model in models for row in _rows(model))
    return json.dumps([row for row in rows if not wants_ready or row["state"] == "READY"]).encode()


def _rows(model: Model) -> Iterator[dict[str, str]]:
    for version, lane in model.lanes.items():
        state = _state(lane)
        reason = "" if state == "READY" else _reason(lane)
        yield {"name": model.name, "version": version, "state": state, "reason": reason}


def _reason(lane: Lane) -> str:
    return lane.route.state or "no replica is running"


def _state(lane: Lane) -> str:
    if lane.replicas or lane.is_asleep:  # a request for one that sleeps is answered as any other, a moment later
        return "READY"
    return "LOADING" if lane.is_coming else "UNAVAILABLE"


def _wants_ready(body: bytes) -> bool | Refusal:
    if not body.strip():
        return False
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as exc:
        return errors.bad_request(f"body: {exc}; {_FORM}; send that")
    if not isinstance(asked, dict):
        return errors.bad_request(f"body: {body[:40].decode('utf-8', 'replace')!r}; {_FORM}; send that")
    ready = asked.get("ready", False)
    if not isinstance(ready, bool):
        return errors.bad_request(f"ready: {ready!r}; {_FORM}; send that")
    return ready
