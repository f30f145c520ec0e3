"""The command on a terminal: a pseudo-terminal of a given width, and what it shows with its escape sequences taken out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[4]
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`with Terminal(["status"]) as terminal:` — `raw` is all that was written so far, `text` without escapes."""

    def __init__(
        self,
        arguments: list[str],
        *,
        columns: int = 80,
        lines: int = 40,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.raw = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        variables = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY), **(environment or {})}
        variables.pop("COLUMNS", None)
        command = [sys.executable, "-c", "from orchestrator.cli.main import main; main()", *arguments]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=variables, start_new_session=True
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        return _ESCAPE.sub("", self.raw).replace("\r\n", "\n")

    @property
    def mode(self) -> list[object]:
        """What the terminal does with what is typed: echo, lines, signals."""
        return list(termios.tcgetattr(self._master))

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.kill(self.process.pid, signal.SIGWINCH)  # its session has no controlling terminal that would say so

    def forget(self) -> None:
        """What was shown until now is not looked at any more."""
        self.raw = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, words: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while words not in self.text:
            assert time.monotonic() < deadline, f"{words!r} was not shown: {self.text}"
            self._read(0.1)

    def end(self, timeout_s: float = 30) -> int:
        """Reads to the end and returns the exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(0.1):
            assert time.monotonic() < deadline, f"it did not end: {self.text}"
        return self.process.wait(5)

    def _read(self, timeout_s: float) -> bool:
        """False once the other side is closed."""
        if not select.select([self._master], [], [], timeout_s)[0]:
            return True
        with contextlib.suppress(OSError):  # Linux answers EIO at the end of a pseudo-terminal
            if chunk := os.read(self._master, 65536):
                self.raw += chunk.decode(errors="replace")
                return True
        return False
