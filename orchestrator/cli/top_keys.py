"""Keys of a terminal one by one, without echo; the terminal is as it was before in any case of an end.

Owns the terminal's mode and nothing of what a key means (`top_state.py` does).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from types import FrameType

from orchestrator.cli import top_state as keys

# What terminals send for keys that are no letters; both forms of arrows, for some are in application mode.
_SEQUENCES = {
    "[A": keys.UP, "[B": keys.DOWN, "[C": keys.RIGHT, "[D": keys.LEFT,
    "OA": keys.UP, "OB": keys.DOWN, "OC": keys.RIGHT, "OD": keys.LEFT,
    "[5~": keys.PAGE_UP, "[6~": keys.PAGE_DOWN, "[H": keys.HOME, "[F": keys.END, "[1~": keys.HOME, "[4~": keys.END,
}  # fmt: skip
_SINGLE = {"\r": keys.ENTER, "\n": keys.ENTER, "\x7f": keys.BACKSPACE, "\x08": keys.BACKSPACE}
# What follows the escape of an arrow comes with it, even over a slow line; a person who presses escape sends it alone.
_ESCAPE_S = 0.05
_MOST = 1024


class Terminated(BaseException):
    """SIGTERM or SIGHUP (`number`) came: nothing but clearing up is left to do."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def keys_of(descriptor: int) -> Iterator[None]:
    """Keys come at once and are not echoed while the block runs. Ctrl-Z does nothing: it would leave it so."""
    before = termios.tcgetattr(descriptor)
    handlers = {number: signal.signal(number, _terminate) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setcbreak(descriptor)
        mode = termios.tcgetattr(descriptor)
        mode[6][termios.VSUSP] = os.fpathconf(descriptor, "PC_VDISABLE").to_bytes(1, "big")
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def read(descriptor: int) -> list[str]:
    """The keys that were pressed, by their names. Call it when there are some; `["q"]` when the terminal is gone."""
    raw = os.read(descriptor, _MOST)
    if not raw:
        return ["q"]
    if raw.endswith(b"\x1b") and select.select([descriptor], [], [], _ESCAPE_S)[0]:
        raw += os.read(descriptor, _MOST)
    return named(raw.decode(errors="replace"))


def named(text: str) -> list[str]:
    """`"\\x1b[Aq"` is up, q. What is no key that we know is left out."""
    found, at = [], 0
    while at < len(text):
        if text[at] != "\x1b":
            found.append(_SINGLE.get(text[at], text[at]))
            at += 1
            continue
        length = _length(text, at + 1)
        name = _SEQUENCES.get(text[at + 1 : at + 1 + length], "" if length else keys.ESCAPE)
        found += [name] if name else []
        at += 1 + length
    return [each for each in found if len(each) > 1 or each.isprintable()]


def _length(text: str, at: int) -> int:
    """How long the rest of an escape sequence is; 0: the key alone was pressed."""
    if text[at : at + 1] == "O":
        return min(2, len(text) - at)
    if text[at : at + 1] != "[":
        return 0
    end = at + 1
    while end < len(text) and not "@" <= text[end] <= "~":
        end += 1
    return min(end + 1, len(text)) - at


def _terminate(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # another one would end the clearing up
    raise Terminated(number)
