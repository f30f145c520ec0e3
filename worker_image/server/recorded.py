"""`warmup.json`, beside a model: inference requests of the Open Inference Protocol that it predicts before it is ready.

One request, or a list of them: a model that compiles or allocates for each shape is asked once for each that will come.
Owns the file's name, its reading, and the sentences for what is wrong with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from worker_image.server.codecs import v2
from worker_image.server.errors import ModelFailed, RequestError
from worker_image.server.tensors import Signature, fit

FILE = "warmup.json"


class Recorded(NamedTuple):
    """One request, and where it stands."""

    request: v2.Decoded
    place: str

    def fitted(self, signature: Signature) -> v2.Decoded:
        """With its inputs as the model takes them."""
        try:
            return msgspec.structs.replace(
                self.request, inputs=fit(signature, self.request.inputs, self.request.missing)
            )
        except RequestError as exc:
            raise _wrong(self.place, exc) from exc


def read(directory: Path) -> list[Recorded]:
    """In their order; none when there is no such file."""
    file = directory / FILE
    if not file.is_file():
        return []
    content = file.read_bytes()
    if not content.lstrip().startswith(b"["):
        return [_recorded(content, str(file))]
    try:
        bodies = msgspec.json.decode(content, type=list[msgspec.Raw])
    except msgspec.DecodeError as exc:
        reason = f"{file}: no JSON ({exc}); it holds one inference request or a list of them; correct it"
        raise ModelFailed("ARTIFACT_UNREADABLE", reason) from exc
    return [_recorded(bytes(body), f"{file}: request {number}") for number, body in enumerate(bodies, 1)]


def _recorded(body: bytes, place: str) -> Recorded:
    try:
        return Recorded(v2.decode(body), place)
    except RequestError as exc:
        raise _wrong(place, exc) from exc


def _wrong(place: str, exc: RequestError) -> ModelFailed:
    return ModelFailed("ARTIFACT_UNREADABLE", f"{place}: {exc.sentence}")
