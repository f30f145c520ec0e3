"""Finds out which scikit-learn wrote a pickle that cannot be loaded, without running any of it.

Reads bytes only. Used after a failed load, to say "written by 1.2.2" instead of an exception from deep inside numpy.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

# scikit-learn stores `_sklearn_version` in each estimator's state. Its value follows, memo opcodes apart, as a string
# with its length before it: SHORT_BINUNICODE has one byte of length, BINUNICODE four.
_VERSION = re.compile(rb"_sklearn_version.{0,8}?(?:\x8c(.)|X(.)\0\0\0)", re.DOTALL)
_MOST_BYTES = 256 << 20


def pickled_version(file: Path) -> str | None:
    """The version of scikit-learn named in `file`, plain or zlib-compressed; None when there is none to be found."""
    with file.open("rb") as stream:
        content = _decompressed(stream.read(_MOST_BYTES))
    found = _VERSION.search(content)
    if found is None:
        return None
    length = (found.group(1) or found.group(2))[0]
    return content[found.end() : found.end() + length].decode("ascii", "replace")


def _decompressed(content: bytes) -> bytes:
    if content[:1] != b"\x78":
        return content
    try:
        return zlib.decompressobj().decompress(content, _MOST_BYTES)
    except zlib.error:
        return content
