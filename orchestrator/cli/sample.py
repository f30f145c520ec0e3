"""One prediction of each model, with the curl line that makes it: what `up` ends with.

The request is `examples/<model>.json` beside the manifest if there is one, else zeros of the shapes in the model's
metadata.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.cli import gateway
from orchestrator.cli.errors import CliError
from orchestrator.cli.gateway import Answer, Prediction
from orchestrator.cli.verb import Session

# An unknown length (-1) in a shape becomes one row; a request above this is no sample to show anybody.
_MOST_VALUES = 4096
_WIDEST_ANSWER = 300
_ZEROS: dict[str, Any] = {"BYTES": "", "BOOL": False, "FP16": 0.0, "FP32": 0.0, "FP64": 0.0}


def show_predictions(session: Session, manifest: Path) -> None:
    """Prints one for each model that is routed. A model that does not answer is told of, and stops nothing."""
    status = session.client.status()
    url = status.gateway.url.rstrip("/")
    for model in status.models:
        if not any(model.routed.values()):
            continue
        session.say()
        try:
            _show_one(session, url, model.name, manifest.parent / "examples" / f"{model.name}.json")
        except CliError as exc:
            if exc.code == "UNAUTHENTICATED":
                _say_keys_are_wanted(session)
                return
            session.say((f"{model.name}: ", "bold"), ("no sample prediction: ", "yellow"), exc.message)


def _say_keys_are_wanted(session: Session) -> None:
    """No key is made in passing: whoever needs one says its name."""
    session.say("The gateway wants an API key with every request. Make one, and predict with it:")
    session.say(("$ ", "dim"), (f"export {gateway.KEY_VARIABLE}=$(modelfleet keys create NAME -q)", "cyan"))
    session.say(("$ ", "dim"), ("modelfleet predict MODEL --data JSON", "cyan"))


def _show_one(session: Session, url: str, model: str, example: Path) -> None:
    from_file = example.is_file()
    body = example.read_bytes() if from_file else zeros(url, model)
    request = gateway.prediction(body, model)
    answer = gateway.send(url, "POST", request.path, request.body)
    if answer.status >= 400:
        raise gateway.refusal(answer)
    session.out.long_line(("$ ", "dim"), (_curl(request, url, example if from_file else None), "cyan"))
    session.out.line(_answer(answer))


def _curl(request: Prediction, url: str, example: Path | None) -> str:
    if example is None:
        return request.curl(url)
    return f"curl {shlex.quote(url + request.path)} -d @{shlex.quote(os.path.relpath(example))}"


def _answer(answer: Answer) -> str:
    text = answer.body.decode(errors="replace").strip()
    return text if len(text) <= _WIDEST_ANSWER else f"{text[:_WIDEST_ANSWER]}… ({len(answer.body):,} bytes)"


def zeros(url: str, model: str, version: str = "", fields: Mapping[str, str] | None = None) -> bytes:
    """A v2 request of zeros. Raises `CliError` for a model that does not say what it takes."""
    pin = f"/versions/{quote(version, safe='')}" if version else ""
    answer = gateway.send(url, "GET", f"/v2/models/{quote(model, safe='')}{pin}", fields=fields)
    if answer.status >= 400:
        raise gateway.refusal(answer)
    try:
        inputs = [_tensor(each) for each in json.loads(answer.body)["inputs"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise CliError("its metadata does not say what it takes") from exc
    if not inputs:
        raise CliError("its metadata names no inputs")
    return json.dumps({"inputs": inputs}).encode()


def _tensor(described: dict[str, Any]) -> dict[str, Any]:
    shape = [max(1, int(length)) for length in described["shape"]]
    count = 1
    for length in shape:
        count *= length
    if count > _MOST_VALUES:
        raise CliError(f"its input {described['name']!r} takes {count:,} values")
    zero = _ZEROS.get(described["datatype"], 0)
    return {"name": described["name"], "datatype": described["datatype"], "shape": shape, "data": [zero] * count}
