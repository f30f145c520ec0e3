"""API keys at the gateway: who asks, what it may ask, and how much at a time.

Owns the reading of a credential out of a request's fields and the `Caller` of each key, which lives from table to
table with its limits and counters. The gateway knows a key by its SHA-256 alone, and looks that up in a dict. How long
the look-up takes says nothing about any key: it depends on a digest of which the asker can choose no part on purpose,
and whoever knew a digest would be no nearer to its key. So no comparison of secrets needs a constant time. The
credential itself is kept nowhere, and is in no error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Mapping
from typing import Final

from router.contract import ApiKey
from router.core import errors
from router.core.errors import Refusal
from router.core.rate import RateGate, gate_for
from router.core.rows import NO_SLOT, Rows, alone

# RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1).
_BEARER: Final = re.compile(rb"(?i:bearer) +([A-Za-z0-9\-._~+/]+=*)")
_KEY: Final = re.compile(rb"[\x21-\x7e]+")
_KEYS_PER_STEP: Final = 32
CREDENTIALS: Final = (b"authorization", b"x-api-key")


class Caller:
    """One API key and what it has under way. Whoever `enter`s leaves exactly once, by `leave`."""

    __slots__ = ("_rows", "_slot", "answers", "gate", "id", "key", "models", "under_way")

    def __init__(self, id_: str, rows: Rows | None = None) -> None:
        self.id = id_
        self._rows = rows or alone()
        self._slot = NO_SLOT  # its place among all processes, if it has limits
        self.key = ApiKey("")
        self.models: frozenset[str] | None = frozenset()
        self.gate: RateGate | None = None
        self.under_way = 0  # requests in flight or queued
        self.answers = [0] * 6  # by the hundreds of their status

    def take_over(self, key: ApiKey, now: float) -> None:
        """Another table's word on this key."""
        name = f"key {self.id}"
        if (key.concurrency or key.rate_limit is not None) and self._slot == NO_SLOT:
            self._slot = self._rows.claim(name)
        if key.concurrency:
            self._rows.publish(self._slot, self.under_way)
        self.gate = gate_for(self.gate, key.rate_limit, name, self._rows.cell, now)
        self.models = None if key.models is None else frozenset(key.models)
        self.key = key

    def refuses(self, model: str, unix_time: Callable[[], float]) -> Refusal | None:
        """Why it may not ask for `model`, whatever the load is. Where keys are not required nobody asks."""
        refusal = self.expired(unix_time)
        if refusal is None and self.models is not None and model not in self.models:
            return errors.forbidden(self.id, model)
        return refusal

    def expired(self, unix_time: Callable[[], float]) -> Refusal | None:
        key = self.key
        if key.expires_at and unix_time() >= key.expires_at:
            return errors.unauthenticated("the API key has expired; ask for another one")
        return None

    def limits(self, model: str, of_model: RateGate | None, now: float) -> Refusal | None:
        """Why it may not ask at this moment. What passes is counted against its own limit and the model's."""
        key, gate = self.key, self.gate
        if key.concurrency and self.under_way + self._rows.elsewhere(self._slot) >= key.concurrency:
            return errors.too_many_at_a_time(self.id, key.concurrency)
        if gate is not None and (wait_s := gate.wait_s(now)):
            return errors.rate_limited(f"key {self.id!r}", gate.limit, wait_s)
        refusal = model_limit(model, of_model, now)
        if gate is not None and refusal is None:
            gate.spend(now)
        return refusal

    def enter(self) -> None:
        self._set_under_way(self.under_way + 1)

    def leave(self, status: int) -> None:
        self._set_under_way(self.under_way - 1)
        self.answers[status // 100] += 1

    def told(self, status: int) -> None:
        """It was answered without having entered."""
        self.answers[status // 100] += 1

    def let_go(self) -> None:
        """The key is gone: its place in the shared memory may serve another."""
        self._rows.free(self._slot)
        self._slot = NO_SLOT

    def _set_under_way(self, count: int) -> None:
        self.under_way = count
        if self.key.concurrency:
            self._rows.publish(self._slot, count)


def model_limit(model: str, gate: RateGate | None, now: float) -> Refusal | None:
    """Why nobody may ask for a model at this moment. What passes is counted."""
    if gate is None:
        return None
    if wait_s := gate.wait_s(now):
        return errors.rate_limited(f"model {model!r}", gate.limit, wait_s)
    gate.spend(now)
    return None


class Keyring:
    """The keys of the table in force. With `is_required` a request without one is refused.

    `revision` grows with every change: what was remembered of a head under another one is to be read again.
    """

    def __init__(self, is_required: bool, rows: Rows | None = None) -> None:
        self.is_required = is_required
        self.revision = 0
        self.callers: dict[str, Caller] = {}  # by the key's public name
        self._by_digest: dict[str, Caller] = {}
        self._rows = rows or alone()

    def apply(self, keys: Mapping[str, ApiKey], now: float) -> Generator[None, None, None]:
        """Puts the keys of a checked table in force with the last step: all that it does not name stop working then."""
        before = self.callers
        callers: dict[str, Caller] = {}
        by_digest: dict[str, Caller] = {}
        has_changed = len(keys) != len(before)
        for done, (id_, key) in enumerate(keys.items(), 1):
            caller = callers[id_] = before.get(id_) or Caller(id_, self._rows)
            if caller.key is not key and caller.key != key:
                caller.take_over(key, now)
                has_changed = True
            by_digest[key.digest] = caller
            if done % _KEYS_PER_STEP == 0:
                yield
        for id_ in before.keys() - callers.keys():
            before[id_].let_go()
        if has_changed:
            self.callers, self._by_digest = callers, by_digest
            self.revision += 1

    def identify(self, read: Mapping[bytes, bytes]) -> Caller | Refusal | None:
        """Whose request it is, by the fields of its head; None: nobody's, and nobody has to be.

        Where keys are optional a credential that is none of ours is the model's affair, and passes.
        """
        given = [name for name in CREDENTIALS if name in read]
        if not given:
            return errors.unauthenticated(_MISSING) if self.is_required else None
        if len(given) == 2:
            return errors.unauthenticated(_TWO) if self.is_required else self._known(read)
        key = _key(given[0], read[given[0]])
        caller = self._by_digest.get(_digest(key)) if key else None
        if caller is None and self.is_required:
            return errors.unauthenticated(_UNKNOWN if key else _MALFORMED)
        return caller

    def withheld(self, read: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """The fields that hold a key of ours, or may: no replica gets to see them."""
        given = tuple(name for name in CREDENTIALS if name in read)
        if self.is_required or not given:
            return given
        keys = ((name, _key(name, read[name])) for name in given)
        return tuple(name for name, key in keys if key and _digest(key) in self._by_digest)

    def _known(self, read: Mapping[bytes, bytes]) -> Caller | None:
        keys = (_key(name, read[name]) for name in CREDENTIALS)
        return next((caller for key in keys if key and (caller := self._by_digest.get(_digest(key)))), None)


def _key(name: bytes, value: bytes) -> bytes:
    """The key in a field, "" when there is none that could be one."""
    match = (_BEARER if name == b"authorization" else _KEY).fullmatch(value)
    if match is None:
        return b""
    return match.group(match.lastindex or 0)


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


_HOW: Final = "send it as `authorization: Bearer KEY` or `x-api-key: KEY`"
_MISSING: Final = f"this gateway wants an API key; {_HOW}"
_UNKNOWN: Final = "the API key is not known here, was revoked, or was not copied whole; ask for another one"
_MALFORMED: Final = f"the credential is not an API key; {_HOW}"
_TWO: Final = "authorization and x-api-key are both there; one of them names the key; send one"
