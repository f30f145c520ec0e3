"""Mutation without coverage: what fuzzes where Atheris cannot be had, and a little in every test run."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .corpus import WORDS


def mutated(chance: random.Random, cases: Sequence[bytes]) -> bytes:
    """One of `cases`, with a few bytes cut out, doubled, replaced, put in, or taken from another."""
    raw = chance.choice(cases)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(raw) + 1)
        end = min(len(raw), at + chance.choice((0, 0, 1, 1, 2, 8, 40)))
        other = chance.choice(cases)
        begin = chance.randrange(len(other) + 1)
        put = chance.choice((
            b"", chance.choice(WORDS), raw[at:end] * 2, bytes([chance.randrange(256)]), other[begin : begin + 30],
        ))  # fmt: skip
        raw = raw[:at] + put + raw[end:]
    return raw[:4000]
