"""What a request must pass before a version is chosen for it: its key, the key's models, the limits of both.

It comes before the choice by weight on purpose: were refused requests counted in the split, a client that is refused
every second time could find all others at one version. Pure; `unix_time` is asked only for keys that expire.
"""

from __future__ import annotations

from collections.abc import Callable

from router.core import errors
from router.core.errors import Refusal
from router.core.keys import Caller, Keyring, model_limit
from router.core.table import Fleet
from router.core.target import Target


class Door:
    """`limited` counts the requests refused by a rate limit, by model."""

    def __init__(self, keyring: Keyring, fleet: Fleet, unix_time: Callable[[], float]) -> None:
        self._keyring = keyring
        self._fleet = fleet
        self._unix_time = unix_time
        self.limited: dict[str, int] = {}

    def stop(self, caller: Caller | Refusal | None, target: Target | Refusal, now: float) -> Refusal | None:
        """Why this request may not pass; None: it may, and is counted against its limits."""
        if isinstance(caller, Refusal):
            return caller
        if isinstance(target, Refusal):
            return target
        refusal = self._stop(caller, target.model, now)
        if caller is not None and refusal is not None:
            caller.told(refusal.status)
        return refusal

    def sees(self, caller: Caller | Refusal | None, now: float) -> frozenset[str] | Refusal | None:
        """The models that a caller may know of, None: all. Asking counts against the key's own limits."""
        if isinstance(caller, Refusal):
            return caller
        if caller is None or not self._keyring.is_required:
            return None
        return caller.expired(self._unix_time) or caller.limits("", None, now) or caller.models

    def _stop(self, caller: Caller | None, name: str, now: float) -> Refusal | None:
        model = self._fleet.models.get(name)
        if caller is not None and self._keyring.is_required:
            refusal = caller.refuses(name, self._unix_time)
            if refusal is not None:
                return refusal
            if model is None and caller.models is not None and self._fleet.tag:
                return errors.model_not_found(name, caller.models.intersection(self._fleet.models))
        gate = model.gate if model is not None else None
        refusal = model_limit(name, gate, now) if caller is None else caller.limits(name, gate, now)
        if refusal is not None:
            known = name if model is not None else ""
            self.limited[known] = self.limited.get(known, 0) + 1
        return refusal
