"""Asks the gateway for predictions, as any HTTP client would: what `predict` prints is what curl gets.

Needs no control plane: where none answers, the gateway's own configuration says where it listens.
"""

from __future__ import annotations

import http.client
import json
import shlex
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from orchestrator.cli.errors import CliError, NotRunningError, UsageError
from orchestrator.cli.verb import Session

# Above any `x-request-timeout-ms` that the gateway grants by default, so that its own answer arrives.
ANSWER_TIMEOUT_S = 120.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}
KEY_VARIABLE = "MODELFLEET_API_KEY"
KEY_HINT = f"`modelfleet keys create NAME` makes a key; give it with --key or in {KEY_VARIABLE}"
FORMS = 'a v2 request {"inputs": [...]} or a TensorFlow Serving one {"instances": [...]}'


@dataclass(frozen=True, slots=True)
class Prediction:
    """One request as it is sent. `body` is the user's, byte for byte."""

    path: str
    body: bytes

    def curl(self, url: str, *, with_key: bool = False) -> str:
        """The same request as a command. A key is named by its variable: a history is no place for it."""
        field = f' -H "authorization: Bearer ${KEY_VARIABLE}"' if with_key else ""
        data = shlex.quote(self.body.decode(errors="replace").strip())
        return f"curl {shlex.quote(url + self.path)}{field} -d {data}"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    fields: Mapping[str, str]
    body: bytes


def url_of(session: Session) -> str:
    """Where the gateway listens. Raises `NotRunningError` when neither the control plane nor its files say."""
    try:
        return session.client.status().gateway.url.rstrip("/")
    except NotRunningError:
        url = _configured(session.state_dir / "gateway" / "config.json")
        if url is None:
            raise
        return url


def _configured(path: Path) -> str | None:
    try:
        config = json.loads(path.read_text())
        scheme = "https" if config.get("tls") else "http"
        return f"{scheme}://{_EVERYWHERE.get(config['host'], config['host'])}:{int(config['port'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prediction(body: bytes, model: str, *, version: str = "", label: str = "") -> Prediction:
    """The request for `body`, routed by its form. Raises `UsageError` for a body that is of neither form."""
    form = _form(body)
    name = quote(model, safe="")
    if form == "v2" and label:
        raise UsageError(
            "--label with a v2 request: the v2 protocol knows no labels",
            hint='name the version (MODEL@VERSION), or send {"instances": [...]}',
        )
    if form == "v2":
        path = f"/v2/models/{name}" + (f"/versions/{quote(version, safe='')}" if version else "") + "/infer"
    else:
        pin = f"/versions/{quote(version, safe='')}" if version else f"/labels/{quote(label, safe='')}" if label else ""
        path = f"/v1/models/{name}{pin}:predict"
    return Prediction(path, body)


def _form(body: bytes) -> str:
    try:
        parsed = json.loads(body)
    except ValueError as exc:
        raise UsageError(f"the request is not JSON: {exc}", hint=f"send {FORMS}") from exc
    if isinstance(parsed, dict) and "inputs" in parsed and _is_v2(parsed["inputs"]):
        return "v2"
    if isinstance(parsed, dict) and ("instances" in parsed or "inputs" in parsed):
        return "v1"
    got = (
        f"an object with {', '.join(map(repr, list(parsed)[:5])) or 'nothing in it'}"
        if isinstance(parsed, dict)
        else (f"a JSON {type(parsed).__name__}")
    )
    raise UsageError(f"the request is {got}; two forms are accepted", hint=f"send {FORMS}")


def _is_v2(inputs: Any) -> bool:
    """v2 has a list of tensors; TensorFlow Serving's columnar form has the values themselves, or an object of them."""
    return isinstance(inputs, list) and all(isinstance(each, dict) for each in inputs)


def send(
    url: str, method: str, path: str, body: bytes | None = None, fields: Mapping[str, str] | None = None
) -> Answer:
    """One request, answered with whatever status. Raises `CliError` when there is no answer."""
    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(address.hostname), address.port, timeout=ANSWER_TIMEOUT_S)
    content = {"content-type": "application/json"} if body is not None else {}
    try:
        connection.request(method, address.path.rstrip("/") + path, body, {**content, **(fields or {})})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    except ssl.SSLCertVerificationError as exc:
        raise not_believed(url, exc) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise no_answer(url, exc) from exc
    finally:
        connection.close()


def not_believed(url: str, exc: ssl.SSLCertVerificationError) -> CliError:
    return CliError(
        f"gateway {url}: its certificate is not believed: {exc.verify_message}",
        hint="name the file of the authority that signed it (or of the certificate itself) in SSL_CERT_FILE",
        code="GATEWAY_UNREACHABLE",
    )


def no_answer(url: str, exc: Exception) -> CliError:
    return CliError(
        f"gateway {url}: no answer: {exc}", hint="`modelfleet doctor` finds out why", code="GATEWAY_UNREACHABLE"
    )


def refusal(answer: Answer) -> CliError:
    """The gateway's (or the model's) error as one sentence with its code and request id."""
    code, request_id = str(answer.status), answer.fields.get("x-request-id", "")
    text = answer.body[:500].decode(errors="replace").strip() or "an empty answer"
    try:
        body = json.loads(answer.body)
        text, code = str(body["error"]), str(body.get("code", code))
        request_id = str(body.get("request_id") or request_id)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    request = f", request {request_id}" if request_id else ""
    return CliError(f"{text} ({code}, status {answer.status}{request})", code=code)
