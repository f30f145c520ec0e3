"""The web console: its files, which anybody on this machine may read, and signing in, without which it shows nothing.

The files are the front end's (`orchestrator/console/`), without any fact of a cluster. Their headers let a page
run scripts and styles of this address alone, and be framed by nobody.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from orchestrator.api import schemas_console as schemas
from orchestrator.api.access import (
    COOKIE_PATH,
    ConsoleSessions,
    UnauthenticatedError,
    check_page,
    cookie_name,
    is_token,
    require_token,
)
from orchestrator.api.answers import refusal
from orchestrator.api.context import Control
from orchestrator.api.sessions import CODE_S, SESSION_S
from orchestrator.core.errors import NotFoundError

log = structlog.get_logger("modelfleet")

ROOT = Path(__file__).parents[1] / "console"
PAGE, STATIC = ROOT / "index.html", ROOT / "static"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Asked for again each time, and answered with 304: a new release is seen at once.
    "cache-control": "no-cache",
}

files = APIRouter(include_in_schema=False)
router = APIRouter(prefix="/console")


# -- files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    etag: str
    changed_ns: int


_read: dict[Path, _File] = {}


@files.get("/")
@files.get("/console")
async def enter() -> Response:
    return RedirectResponse("/console/")


@files.api_route("/console/", methods=["GET", "HEAD"])
async def shell(request: Request) -> Response:
    """The page that everything else of the console is shown in."""
    if not PAGE.is_file():
        raise NotFoundError("console: its page is not in this installation; install the wheel, or a whole clone")
    return _serve(request, PAGE)


@files.api_route("/console/static/{path:path}", methods=["GET", "HEAD"])
async def static(request: Request, path: str) -> Response:
    place = (STATIC / path).resolve()
    if not place.is_relative_to(STATIC) or place.suffix not in MEDIA_TYPES or not place.is_file():
        raise NotFoundError(f"console: {path!r}: none of its files; the page is at /console/")
    return _serve(request, place)


def _serve(request: Request, place: Path) -> Response:
    file = _load(place)
    headers = {**HEADERS, "etag": file.etag}
    if file.etag in (each.strip() for each in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=MEDIA_TYPES[place.suffix])


def _load(place: Path) -> _File:
    changed_ns = place.stat().st_mtime_ns
    known = _read.get(place)
    if known is None or known.changed_ns != changed_ns:
        content = place.read_bytes()
        known = _read[place] = _File(content, f'"{hashlib.sha256(content).hexdigest()[:20]}"', changed_ns)
    return known


# -- signing in -------------------------------------------------------------------------------------------------


@router.post("/links", dependencies=[Depends(require_token)])
async def make_link(control: Control, sessions: ConsoleSessions) -> schemas.ConsoleLink:
    """A link that opens the console signed in, once. Its code is in the fragment, which browsers send to nobody."""
    code = sessions.make_code(time.time())
    return schemas.ConsoleLink(url=f"{control.url}/console/#code={code}", expires_in_s=CODE_S)


@router.get("/session")
async def session(request: Request, control: Control, sessions: ConsoleSessions) -> schemas.ConsoleSession:
    """Whether this browser is signed in."""
    secret = request.cookies.get(cookie_name(control), "")
    expires_at = sessions.expires_at(secret, time.time()) if secret else None
    if expires_at is None:
        return schemas.ConsoleSession(signed_in=False)
    check_page(request)
    return schemas.ConsoleSession(signed_in=True, cluster=control.cluster, expires_at=expires_at)


@router.post("/session", response_model=schemas.ConsoleSession)
async def sign_in(request: Request, control: Control, sessions: ConsoleSessions, given: schemas.SignIn) -> Response:
    """Signs this browser in, with a link's code or the token."""
    check_page(request)
    now = time.time()
    if wait_s := sessions.wait_s(now):
        sentence = f"console: too many codes or tokens were wrong; wait {wait_s:.0f} s, then try again"
        return refusal(429, "RATE_LIMITED", sentence, headers={"retry-after": f"{wait_s:.0f}"})
    if not _is_good(control, sessions, given, now):
        sessions.note_bad_guess(now)
        log.warning("console sign-in refused", by="code" if given.code else "token")
        raise UnauthenticatedError(
            "console: this code or token is not good; a link works once, within ten minutes, while the control "
            "plane runs; `modelfleet console` gives another"
        )
    begun = sessions.begin(now)
    body = schemas.ConsoleSession(signed_in=True, cluster=control.cluster, expires_at=begun.expires_at)
    answer = JSONResponse(body.model_dump())
    answer.set_cookie(
        cookie_name(control), begun.secret, max_age=int(SESSION_S), path=COOKIE_PATH, httponly=True, samesite="strict"
    )  # fmt: skip
    return answer


@router.delete("/session", status_code=204)
async def sign_out(request: Request, control: Control, sessions: ConsoleSessions) -> Response:
    """Ends this browser's session."""
    check_page(request)
    sessions.end(request.cookies.get(cookie_name(control), ""))
    answer = Response(status_code=204)
    answer.delete_cookie(cookie_name(control), path=COOKIE_PATH, httponly=True, samesite="strict")
    return answer


def _is_good(control: Control, sessions: ConsoleSessions, given: schemas.SignIn, now: float) -> bool:
    if given.code:
        return sessions.redeem(given.code, now)
    return bool(given.token) and is_token(control, given.token)
