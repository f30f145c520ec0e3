"""Who is signed in to the console: codes that work once, sessions that end, and guesses that are few.

Only digests are kept: what is read out of this process, or of the store, signs nobody in. Sessions outlive the control
plane, codes do not. Whoever calls gives the time (seconds since the epoch).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

CODE_S = 600.0
SESSION_S = 12 * 3600.0
MOST_CODES = 16
MOST_SESSIONS = 32
# Nobody guesses 256 bits; this keeps a mistaken script from trying all day, and says so in the log.
MOST_GUESSES = 10
GUESS_EVERY_S = 6.0


@dataclass(frozen=True, slots=True)
class Session:
    """A new session. `secret` is told once, to whoever signed in."""

    secret: str
    expires_at: float


class Sessions:
    """The oldest gives way where there are too many: a person can always sign in."""

    def __init__(
        self,
        known: Mapping[str, float] | None = None,
        keep: Callable[[Mapping[str, float]], None] = lambda _sessions: None,
    ) -> None:
        """`known` are sessions of before, by their digests with when each ends; `keep` is given them at each change."""
        self._codes: dict[str, float] = {}
        self._sessions: dict[str, float] = dict(known or {})
        self._keep = keep
        self._guesses = 0.0
        self._guessed_at = 0.0

    def make_code(self, now: float) -> str:
        """A code that signs somebody in, once, within `CODE_S`."""
        return _issue(self._codes, now + CODE_S, MOST_CODES)

    def redeem(self, code: str, now: float) -> bool:
        """Whether the code is good. It is not any more afterwards."""
        expires_at = self._codes.pop(_digest(code), None)
        return expires_at is not None and now < expires_at

    def begin(self, now: float) -> Session:
        expires_at = now + SESSION_S
        self._sessions = {digest: ends for digest, ends in self._sessions.items() if now < ends}
        secret = _issue(self._sessions, expires_at, MOST_SESSIONS)
        self._keep(self._sessions)
        return Session(secret, expires_at)

    def expires_at(self, secret: str, now: float) -> float | None:
        """When the session ends; None: there is none of this secret."""
        expires_at = self._sessions.get(_digest(secret))
        return expires_at if expires_at is not None and now < expires_at else None

    def end(self, secret: str) -> None:
        if self._sessions.pop(_digest(secret), None) is not None:
            self._keep(self._sessions)

    def wait_s(self, now: float) -> float:
        """How long nobody may guess, 0 when somebody may."""
        left = self._left(now)
        return 0.0 if left < MOST_GUESSES else (left - MOST_GUESSES + 1) * GUESS_EVERY_S

    def note_bad_guess(self, now: float) -> None:
        self._guesses, self._guessed_at = self._left(now) + 1, now

    def _left(self, now: float) -> float:
        """Bad guesses that still count: one is forgotten each `GUESS_EVERY_S`."""
        return max(0.0, self._guesses - max(0.0, now - self._guessed_at) / GUESS_EVERY_S)


def _issue(known: dict[str, float], expires_at: float, most: int) -> str:
    while len(known) >= most:
        known.pop(next(iter(known)))
    secret = secrets.token_urlsafe(32)
    known[_digest(secret)] = expires_at
    return secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
