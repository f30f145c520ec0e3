"""Which manifest a verb means, and what is sent of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.errors import UsageError

DEFAULTS = (Path("models.yaml"), Path("configs/models.yaml"))

ManifestArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MANIFEST]",
        show_default=False,
        help="The manifest [default: ./models.yaml, else ./configs/models.yaml].",
    ),
]


def default() -> Path | None:
    return next((path for path in DEFAULTS if path.is_file()), None)


def chosen(manifest: Path | None) -> Path:
    """The one that was named, else the one that lies here. Raises `UsageError`."""
    path = manifest or default()
    if path is None:
        raise UsageError(
            "no manifest: there is neither models.yaml nor configs/models.yaml here",
            hint="name one, or make one with `modelfleet init FOLDER`",
        )
    if not path.exists():
        raise UsageError(
            f"manifest {str(path)!r}: no such file", hint="name one, or make one with `modelfleet init FOLDER`"
        )
    return path


def request(path: Path) -> dict[str, str]:
    """A `ManifestRequest`. Raises `ManifestError` for a file that is no bounded UTF-8 text."""
    from orchestrator.manifest import read_text

    return {"text": read_text(path), "file": str(path), "base_dir": str(path.parent.absolute())}
