"""Where a request wants to go: the paths of the protocols that the gateway carries.

Owns docs/CONTRACTS.md's table of paths: which model, version or label a path names, and which path the replica gets,
for a replica serves one version and knows no other. Pure; it knows no table. Names are compared as sent: they need no
escapes, so a name with one is an unknown name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from router.core.errors import ProtocolError, malformed, path_not_found

_V2: Final = re.compile(rb"/v2/models/([^/]+)(?:/versions/([^/]+))?(/.*)?")
_V1: Final = re.compile(rb"/v1/models/([^/:]+)(?:/(versions|labels)/([^/:]+))?([:/].*)?")
_RAW: Final = re.compile(rb"/models/([^/@]+)(?:@([^/]+))?(/.*)")

_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[fF]")
# `.`, `..` and `..;x` as a whole segment: servers disagree on what they climb to.
_DOT_SEGMENT: Final = re.compile(rb"/\.{1,2}(?:;[^/]*)?(?:/|\Z)")


class Own(Enum):
    """What the gateway answers itself."""

    METADATA = "metadata"
    LIVE = "live"
    READY = "ready"
    INDEX = "index"  # depends on who asks, and has a body


_OWN: Final = {
    b"/v2": Own.METADATA,
    b"/v2/": Own.METADATA,
    b"/v2/health/live": Own.LIVE,
    b"/v2/health/ready": Own.READY,
    b"/v2/repository/index": Own.INDEX,
}


@dataclass(slots=True)
class Target:
    """A path, read. `version` and `label` are "" when the path names none; `path` is what the replica gets."""

    model: str
    version: str
    label: str
    path: bytes

    @property
    def is_status(self) -> bool:
        """The path of a model or version itself, in TensorFlow Serving's protocol."""
        return self.path == b"/v1/models/" + self.model.encode("latin-1")


def read_target(path: bytes) -> Target | Own:
    """Raises `ProtocolError` (404 or 400) for a path that belongs to no protocol."""
    return _read_remembered(path) if len(path) <= _SHORT else _read(path)


def _read(path: bytes) -> Target | Own:
    own = _OWN.get(path)
    if own is not None:
        return own
    _refuse_ambiguous(path)
    if match := _V2.fullmatch(path):
        model, version, tail = match.groups(b"")
        return _target(model, version, b"", b"/v2/models/", tail)
    if match := _V1.fullmatch(path):
        model, kind, name, tail = match.groups(b"")
        is_label = kind == b"labels"
        return _target(model, b"" if is_label else name, name if is_label else b"", b"/v1/models/", tail)
    if match := _RAW.fullmatch(path):
        model, version, tail = match.groups(b"")
        return _target(model, version, b"", b"/models/", tail)
    raise ProtocolError(path_not_found(path.decode("latin-1")))


# Clients ask for the same few paths: 4,096 of them, short enough to be kept.
_SHORT: Final = 256
_read_remembered: Final = lru_cache(maxsize=4096)(_read)


def _target(model: bytes, version: bytes, label: bytes, prefix: bytes, tail: bytes) -> Target:
    return Target(model.decode("latin-1"), version.decode("latin-1"), label.decode("latin-1"), prefix + model + tail)


def _refuse_ambiguous(path: bytes) -> None:
    if b"%" in path:
        if _ESCAPE.search(path):
            raise malformed("the path has a broken escape or an escaped control byte; correct the client")
        path = re.sub(rb"(?i)%2e", b".", path)
        path = re.sub(rb"(?i)%(?:2f|5c)", b"/", path)
    if b"/." in path and _DOT_SEGMENT.search(path):
        raise malformed("the path has a `.` or `..` segment, which servers read differently; send the plain path")
