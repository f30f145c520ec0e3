"""Which version and which replica a caller keeps (`ModelRoute.sticky`).

Owns who the caller is (a field, a cookie or the API key, read out of a head that was checked) and rendezvous hashing:
caller and member give a random number together, and the member with the highest takes the caller (Thaler and
Ravishankar, "Using name-based mappings to increase hit rates", 1998). Weights enter as -w / ln(u) (Resch, "New hashing
algorithms for data storage", SNIA 2015): the share of callers is the weight's, and a changed weight or a lost member
moves only callers that it gains or loses. Nothing is remembered, so every process and gateway decides alike. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from math import log
from typing import Final, Protocol

from router.core.errors import Refusal
from router.core.keys import Caller

_MASK: Final = (1 << 64) - 1


class Asked(Protocol):
    """A request, as far as it says who asks."""

    @property
    def raw(self) -> bytes:
        """Its head, checked: lines that end with CRLF, the request line first."""

    @property
    def caller(self) -> Caller | Refusal | None:
        """The API key that it came with."""


class Sticky:
    """How the callers of one model are told apart. `word` is `header:NAME`, `cookie:NAME` or `key`."""

    __slots__ = ("_find",)

    def __init__(self, word: str) -> None:
        kind, _, name = word.partition(":")
        escaped = re.escape(name.encode())
        self._find: Callable[[bytes], list[bytes]] | None = None  # None: by the key
        if kind == "cookie":  # the first of that name, as servers read it
            self._find = re.compile(rb"\r\n(?i:cookie):(?:[^;\r]*+;)*?[ \t]*+" + escaped + rb"=([^;\r]*)").findall
        elif kind == "header":
            self._find = re.compile(rb"\r\n(?i:" + escaped + rb"):([^\r]*)").findall

    def affinity(self, asked: Asked) -> int | None:
        """A hash of the caller; None when the request does not say who it is."""
        if self._find is None:
            return hash64(asked.caller.id.encode()) if isinstance(asked.caller, Caller) else None
        values = [value for value in map(bytes.strip, self._find(asked.raw)) if value]
        return hash64(b",".join(values)) if values else None


class Shares:
    """A model's versions, by weight, for callers."""

    __slots__ = ("_members",)

    def __init__(self, model: str, weights: Mapping[str, int]) -> None:
        # The model's name is in it so that not the same callers meet the canaries of all models.
        self._members = [(v, weight, hash64(f"{model}\0{v}".encode())) for v, weight in weights.items() if weight > 0]

    def pick(self, affinity: int, may_take: Callable[[str], bool]) -> str:
        """The caller's version among those that `may_take` traffic; among all when none may. "" without any weight."""
        able = [member for member in self._members if may_take(member[0])] or self._members
        best, highest = "", 0.0
        for version, weight, seed in able:
            score = -weight / log(_unit(mix(affinity ^ seed)))
            if score > highest:
                best, highest = version, score
        return best


def hash64(value: bytes) -> int:
    """64 bits, the same in every process: Python's own `hash` is not."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")


def mix(number: int) -> int:
    """Scatters 64 bits over 64 bits: splitmix64's last step (Steele, Lea and Flood, OOPSLA 2014)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31


def _unit(number: int) -> float:
    """64 bits as a number between 0 and 1, neither of which it reaches: 52 of them, so that none is rounded up."""
    return ((number >> 12) + 0.5) / (1 << 52)
