"""`modelfleet predict`: one prediction through the gateway."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import gateway, words
from orchestrator.cli.errors import CliError, UsageError
from orchestrator.cli.gateway import Answer
from orchestrator.cli.models import check
from orchestrator.cli.screen import Column, Grid
from orchestrator.cli.verb import Session, verb
from orchestrator.core.keys import PREFIX, is_whole

_NOT_FOUND = ("MODEL_NOT_FOUND", "VERSION_NOT_FOUND")

DataOption = Annotated[
    str, typer.Option("--data", "-d", metavar="JSON", show_default=False, help="The request itself, or @FILE.")
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="FILE", show_default=False, help="The file that holds it; - is standard input."
    ),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        envvar=gateway.KEY_VARIABLE,
        metavar="KEY",
        show_default=False,
        help="The API key, where the gateway wants one.",
    ),
]


@verb(
    "modelfleet predict iris --data '{\"instances\": [[5.1, 3.5, 1.4, 0.2]]}'",
    "modelfleet predict iris@2 --file configs/examples/iris.json",
    "modelfleet predict iris --label stable --data '{\"instances\": [[5.1, 3.5, 1.4, 0.2]]}'",
    "cat request.json | modelfleet predict iris -o json | jq .outputs",
    "MODELFLEET_API_KEY=$(modelfleet keys create me -q) modelfleet predict iris --file iris.json",
)
def predict(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", show_default=False, help="Which model.")],
    data: DataOption = "",
    file: FileOption = None,
    label: Annotated[str, typer.Option(metavar="LABEL", show_default=False, help="The version with this label.")] = "",
    timeout_ms: Annotated[
        int | None, typer.Option(min=1, metavar="MS", show_default=False, help="How long the request may take.")
    ] = None,
    key: KeyOption = "",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also the curl line and the answer's header fields.")
    ] = False,
) -> None:
    """Ask a model for a prediction, through the gateway like any client.

    The request is a v2 one, {"inputs": [...]}, or a TensorFlow Serving one, {"instances": [...]}. With -o json the
    gateway's answer is printed as it came.
    """
    model, version = words.model_and_version(target)
    if label and version:
        raise UsageError("a version and a label: both were given", hint="name one of them")
    request = gateway.prediction(_body(data, file), model, version=version, label=label)
    url = gateway.url_of(session)
    fields = {"x-request-timeout-ms": str(timeout_ms)} if timeout_ms else {}
    if key:
        fields["authorization"] = f"Bearer {key}"
    answer = gateway.send(url, "POST", request.path, request.body, fields)
    if verbose:
        _show_exchange(session, request.curl(url, with_key=bool(key)), answer)
    if answer.status >= 400:
        raise explained(session, gateway.refusal(answer), model, version, key)
    show(session, answer)


def show(session: Session, answer: Answer) -> None:
    """The gateway's body to the byte for scripts; for people a table of tensors, or the predictions."""
    text = answer.body.decode(errors="replace")
    if session.json:
        session.out.write(text if text.endswith("\n") else text + "\n")
        return
    try:
        body: Any = json.loads(answer.body)
        grid = _grid(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        session.out.long_line(text.rstrip("\n"))
        return
    session.out.table(grid)
    if version := answer.fields.get("x-model-version"):
        session.say((f"answered by version {version}", "dim"))


def _grid(body: Any) -> Grid:
    if "outputs" in body and isinstance(body["outputs"], list):
        grid = Grid([Column("OUTPUT"), Column("TYPE"), Column("SHAPE"), Column("VALUES", wraps=True)])
        for output in body["outputs"]:
            grid.add((output["name"], "bold"), output["datatype"], _compact(output["shape"]), _compact(output["data"]))
        return grid
    grid = Grid([Column("#", right=True), Column("PREDICTION", wraps=True)])
    for index, prediction in enumerate(body["predictions"]):
        grid.add((str(index), "dim"), _compact(prediction))
    return grid


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _body(data: str, file: Path | None) -> bytes:
    """What was given as the request, else standard input. Raises `UsageError` where that is somebody at a terminal."""
    body = given_body(data, file)
    if body is None and sys.stdin.isatty():
        raise UsageError(
            "no request was given", hint=f"give --data JSON, --file FILE or standard input: {gateway.FORMS}"
        )
    return sys.stdin.buffer.read() if body is None else body


def given_body(data: str, file: Path | None) -> bytes | None:
    """What the two options say, None if nothing. Raises `UsageError` where both say something."""
    if data and file:
        raise UsageError("--data and --file: both were given", hint="give one of them")
    if data.startswith("@"):  # as curl reads it
        file = Path(data[1:])
    elif data:
        return data.encode()
    if file is None or str(file) == "-":
        return None if file is None else sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as exc:
        raise UsageError(f"file {str(file)!r}: {exc.strerror}", hint="name a file that holds a request") from exc


def _show_exchange(session: Session, curl: str, answer: Answer) -> None:
    session.err.long_line(("> ", "cyan"), curl)
    session.err.long_line(("< ", "cyan"), f"status {answer.status}")
    for name, value in answer.fields.items():
        session.err.long_line(("< ", "cyan"), (f"{name}: ", "dim"), value)


def explained(session: Session, refusal: CliError, model: str, version: str, key: str) -> CliError:
    """With the nearest name, where the name was wrong and the control plane is there to ask."""
    if refusal.code in _NOT_FOUND:
        try:
            check(session, model, version)
        except CliError as nearer:
            refusal.hint = nearer.hint if nearer.hint.startswith(("did you", "there")) else ""
    elif refusal.code == "UNAUTHENTICATED":
        is_broken = key.startswith(PREFIX) and not is_whole(key)
        refusal.hint = "the key was not copied whole: its checksum is wrong" if is_broken else gateway.KEY_HINT
    elif refusal.code == "NOT_READY":
        refusal.hint = f"`modelfleet describe {model}` shows why"
    return refusal
