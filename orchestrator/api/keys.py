"""The admin API's routes for API keys: thin; what happens stands in `loops/keys.py`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from orchestrator.api import schemas, views
from orchestrator.api.context import Control
from orchestrator.loops.keys import unknown_models

router = APIRouter()


@router.get("/keys")
async def list_keys(control: Control) -> list[schemas.Key]:
    """The API keys of the gateway, oldest first. None of them can be read out again."""
    return [views.key_view(key) for key in control.keys.all()]


@router.post("/keys", status_code=201)
async def create_key(control: Control, request: schemas.KeyRequest, response: Response) -> schemas.KeyCreated:
    """Makes a key. This answer has its text, and nothing else ever will."""
    response.headers["cache-control"] = "no-store"
    models = None if request.models is None else tuple(dict.fromkeys(request.models))
    made = await control.keys.create(
        request.name,
        models=models,
        requests_per_s=request.requests_per_s,
        burst=request.burst,
        concurrency=request.concurrency,
        expires_in_s=request.expires_in_s,
    )
    missing = unknown_models(models, control.loop.desired.models)
    return schemas.KeyCreated(
        key=views.key_view(made.key),
        secret=made.text,
        in_force=made.is_in_force,
        warnings=[f"there is no model {name!r} yet" for name in missing],
    )


@router.delete("/keys/{key}")
async def revoke_key(control: Control, key: str) -> schemas.KeyRevoked:
    """Takes a key away, by its id or name. The gateway refuses it from its next table on."""
    revoked, is_in_force = await control.keys.revoke(key)
    return schemas.KeyRevoked(key=views.key_view(revoked), in_force=is_in_force)
