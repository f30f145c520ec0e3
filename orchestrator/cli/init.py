"""`modelfleet init`: a manifest from a folder of model files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import words
from orchestrator.cli.errors import CliError, UsageError
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.recognise import Found


@verb(
    "modelfleet init models/",
    "modelfleet init models/ --file prod.yaml --cluster prod",
    "modelfleet init models/ -o json",
)
def init(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False, help="Where the model files lie.")],
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The manifest to write.")] = Path(
        "models.yaml"
    ),
    cluster: Annotated[str, typer.Option(metavar="NAME", help="What to call the cluster.")] = "demo",
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Make a manifest from a folder, by recognising the formats in it."""
    from orchestrator.recognise import recognise, render_manifest

    found = recognise(folder, file.parent)
    models, others = [each for each in found if each.backend], [each for each in found if not each.backend]
    if not models:
        raise UsageError(
            f"folder {str(folder)!r}: no model was recognised in it{_reasons(others)}",
            hint="it should hold files like model.joblib, model.onnx, model.ubj (XGBoost) or model.py",
        )
    _write(file, render_manifest(found, cluster), force=force)
    if session.json:
        session.out.json({"file": str(file), "found": [asdict(each) for each in found]})
        return
    session.out.line(("Wrote", "green"), f" {file}: {words.count(len(models), 'version')} found in {folder}.")
    for each in models:
        session.say((f"  {each.model}@{each.version}", "bold"), f"  {each.backend}  {each.path}")
    for each in others:
        session.say(("  left out  ", "yellow"), f"{each.path}: {each.reason}")
    session.say(f"Next: read it, then `modelfleet up {file}`, or `modelfleet apply {file}` if one is up.")


def _reasons(others: list[Found]) -> str:
    shown = "; ".join(f"{each.path}: {each.reason}" for each in others[:5])
    return f" ({shown})" if shown else ""


def _write(file: Path, text: str, *, force: bool) -> None:
    try:
        with file.open("w" if force else "x") as stream:
            stream.write(text)
    except FileExistsError:
        raise UsageError(
            f"{file}: exists already", hint="name another with --file, or write over it with --force"
        ) from None
    except OSError as exc:
        raise CliError(f"{file}: cannot be written: {exc.strerror}", hint="name another place with --file") from exc
