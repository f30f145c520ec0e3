"""API keys: what one looks like, and what is kept of it. Pure: random bytes are passed in.

    mf_k7w2m9qd_5yTq0C3vVgSx1mZbW8rJdKpLn4aE2uXh0Bz9Qc
    |  |        |                          +- checksum: CRC-32 of all before it, six digits of base 62
    |  |        +- 160 random bits, 27 digits of base 62
    |  +- the key's public name, for lists, logs and metrics
    +- what scanners for leaked secrets look for

No character of it needs quoting anywhere, and a double click selects it whole. Of the key itself only the SHA-256 is
kept. A slow hash would protect nothing: nobody can guess 160 random bits.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "mf_"
ID_BYTES: Final = 5
SECRET_BYTES: Final = 20
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# None that is read as another: no 0, 1, l, o.
_ID_DIGITS: Final = "23456789abcdefghijkmnpqrstuvwxyz"
_SECRET_DIGITS: Final = 27
_CHECKSUM_DIGITS: Final = 6
_SHAPE: Final = re.compile(rf"{PREFIX}[a-z2-9]{{8}}_[0-9A-Za-z]{{{_SECRET_DIGITS + _CHECKSUM_DIGITS}}}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,62}")


@dataclass(frozen=True, slots=True)
class Key:
    """One API key as it is kept. `models` None: all. `requests_per_s` 0: no limit; `concurrency` 0: no bound;
    `expires_at` 0: never. Times are seconds since the epoch."""

    id: str
    name: str
    digest: str
    models: tuple[str, ...] | None
    requests_per_s: float
    burst: int
    concurrency: int
    created_at: float
    expires_at: float


def compose(random: bytes) -> tuple[str, str]:
    """The id and the text of a new key, from `ID_BYTES + SECRET_BYTES` random bytes."""
    assert len(random) == ID_BYTES + SECRET_BYTES
    id_ = _in_digits(int.from_bytes(random[:ID_BYTES]), _ID_DIGITS, 8)
    text = f"{PREFIX}{id_}_{_in_digits(int.from_bytes(random[ID_BYTES:]), _DIGITS, _SECRET_DIGITS)}"
    return id_, text + _checksum(text)


def digest(text: str) -> str:
    """What is kept of a key, and told to the gateway."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_whole(text: str) -> bool:
    """Whether `text` is a key of ours without a typing error; not whether it is still good."""
    return bool(_SHAPE.fullmatch(text)) and text[-_CHECKSUM_DIGITS:] == _checksum(text[:-_CHECKSUM_DIGITS])


def _checksum(text: str) -> str:
    return _in_digits(zlib.crc32(text.encode()), _DIGITS, _CHECKSUM_DIGITS)


def _in_digits(number: int, digits: str, length: int) -> str:
    text = ""
    for _ in range(length):
        number, digit = divmod(number, len(digits))
        text = digits[digit] + text
    return text
