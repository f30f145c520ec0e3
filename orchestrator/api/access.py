"""Who may ask: the bearer token, or the cookie of a console that is signed in.

A cookie comes along whatever page made the browser ask, so that a request with one must also show that our own page
made it. Pages on other ports of 127.0.0.1 are the same site to a browser, and models may serve pages: neither SameSite
nor the cookie's path keeps those out, the checks here do.
"""

from __future__ import annotations

import hmac
import time
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from orchestrator.api.context import Control
from orchestrator.api.sessions import Sessions
from orchestrator.core.errors import UserError
from orchestrator.loops.control import ControlPlane

HEADER = "x-modelfleet-console"
COOKIE_PATH = "/api/v1"
_READING = frozenset({"GET", "HEAD"})
# A page of ours, or an address that a person typed.
_OUR_PAGES = frozenset({"same-origin", "none"})


class UnauthenticatedError(UserError):
    status = 401
    code = "UNAUTHENTICATED"


class ForeignPageError(UserError):
    status = 403
    code = "FORBIDDEN"


def sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


ConsoleSessions = Annotated[Sessions, Depends(sessions_of)]
_bearer = HTTPBearer(auto_error=False, description="the token in STATE_DIR/token")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def authenticate(request: Request, control: Control, credentials: Bearer, sessions: ConsoleSessions) -> None:
    """Lets the token's holder through, and a console that is signed in."""
    if credentials is None and (secret := request.cookies.get(cookie_name(control))):
        check_page(request)
        if sessions.expires_at(secret, time.time()) is not None:
            return
        raise UnauthenticatedError("console: the session is over; sign in again, `modelfleet console` gives a link")
    require_token(control, credentials)


def require_token(control: Control, credentials: Bearer) -> None:
    """Lets only the token's holder through."""
    if not is_token(control, credentials.credentials if credentials else ""):
        raise UnauthenticatedError(
            "admin API: the bearer token is missing or wrong; send `authorization: Bearer TOKEN` with the content of "
            "the file `token` in the state directory"
        )


def is_token(control: ControlPlane, given: str) -> bool:
    return hmac.compare_digest(given.encode(), control.state.token.encode())


def check_page(request: Request) -> None:
    """Raises `ForeignPageError` for what another page than the console may have made the browser send."""
    if request.headers.get("sec-fetch-site", "same-origin") not in _OUR_PAGES:
        raise ForeignPageError("console: a page of another address asked; open the console and do it there")
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers['host']}":
        raise ForeignPageError(f"console: a page of {origin!r} asked; open the console and do it there")
    if request.method not in _READING and request.headers.get(HEADER) != "1":
        raise ForeignPageError(f"console: the header `{HEADER}: 1` is missing; whoever sends a cookie sends it too")


def cookie_name(control: ControlPlane) -> str:
    """Browsers do not tell ports apart: two clusters on this machine must not sign each other's consoles out."""
    return f"modelfleet_console_{urlsplit(control.url).port}"
