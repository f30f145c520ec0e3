"""A manifest's text to a `Manifest`, or all that is wrong with it at once.

`load` is pure: it looks at nothing but the text. `load_file` reads one file within a bound. What else a manifest needs
of the world (sources, secrets) is checked by `world.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from orchestrator.manifest.diagnostics import Diagnostic, ManifestError, Problems
from orchestrator.manifest.kinds import INVALID, Report
from orchestrator.manifest.model import MANIFEST, Manifest
from orchestrator.manifest.nodes import MAX_BYTES, parse
from orchestrator.manifest.resolve import resolve


def load(text: str, *, file: str, base_dir: Path) -> Manifest:
    """Raises `ManifestError` with every error. `file` is what messages call it."""
    problems = Problems(file)
    root = parse(text, problems)
    report = Report(root, problems)
    values = MANIFEST.read(root, (), report)
    resolved = values if values is INVALID else resolve(values, report)
    problems.raise_if_any()
    manifest: Manifest = MANIFEST.build(resolved)
    return dataclasses.replace(manifest, file=file, base_dir=base_dir, root=root)


def load_file(path: Path) -> Manifest:
    """Raises `ManifestError`, also for a file that cannot be read."""
    return load(read_text(path), file=str(path), base_dir=path.parent.absolute())


def read_text(path: Path) -> str:
    """The text of a manifest file. Raises `ManifestError`, and never reads more than the bound."""
    try:
        with path.open("rb") as stream:
            # Line breaks stay as they are: an editor's columns and `without_model` rest on them.
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise _unreadable(path, "no such file; name a manifest, or write one with `modelfleet init FOLDER`") from exc
    except IsADirectoryError as exc:
        raise _unreadable(path, "a folder; a manifest is a file; name the file in it") from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise _unreadable(path, f"cannot be read: {reason}; check the path and its permissions") from exc
    if len(raw) > MAX_BYTES:
        raise _unreadable(
            path, f"more than {MAX_BYTES:,} bytes; a manifest has at most that; split it into several clusters"
        )
    return _decoded(raw, path)


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        column = len(raw[raw.rfind(b"\n", 0, exc.start) + 1 : exc.start].decode("utf-8", "replace")) + 1
        message = f"byte 0x{raw[exc.start]:02x} is not UTF-8; a manifest is UTF-8 text; save it in that encoding"
        raise ManifestError([Diagnostic(str(path), line, column, "", message)]) from exc


def _unreadable(path: Path, message: str) -> ManifestError:
    return ManifestError([Diagnostic(str(path), 1, 1, "", message)])
