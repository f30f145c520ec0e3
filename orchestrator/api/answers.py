"""How the admin API says no: one shape of error body, whoever refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi.responses import JSONResponse

from orchestrator.api import schemas


def refusal(
    status: int,
    code: str,
    sentence: str,
    diagnostics: Sequence[schemas.Diagnostic] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body = schemas.ErrorBody(error=sentence, code=code, diagnostics=list(diagnostics))
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)
