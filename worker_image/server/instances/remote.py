"""A model in a process of its own, as the server sees it: for frameworks that hold the interpreter's lock.

Owns the process, its connection and the memory that they share. All of it is called in the instance's own thread, which
waits there while the process computes. A process that dies fails the batch that it had, and is started again with the
next one; one that hangs is killed. It must never be left behind: the child ends when the connection does.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from worker_image.server import log
from worker_image.server.errors import ModelFailed, RequestError, stuck
from worker_image.server.instances.shared import SharedTensors, apart, side_by_side
from worker_image.server.loading import Loaded
from worker_image.server.settings import Settings
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Signature, Tensors

_MODULE = "worker_image.server.instances.child"


def load(settings: Settings, begin: Callable[[str], None]) -> Loaded:
    """Starts a process and waits until the model in it has predicted once."""
    model = RemoteModel(settings)
    model.start(begin)
    if refused := [said for verb, said in _OF_ONE_PROCESS.items() if verb in model.signature.verbs]:
        model.unload()
        said = f"instances: {settings.tuning.instances}; the model has {refused[0]}"
        reason = f"{said}; set instances to 1, and raise `scaling.min` to have more"
        raise ModelFailed("BAD_SETTINGS", reason)
    return Loaded(model, model.signature)


# What cannot be handed from one process to another batch by batch.
_OF_ONE_PROCESS = {
    "stream": "predict_stream() or streams of its backend, which run in the server's own process",
    "http": "an ASGI app, which is served by the server's own process",
}


class RemoteModel:
    """One process at a time."""

    is_steady = False
    # What waits in its process waits alone: one call at a time is sent there.
    is_async = False
    signature: Signature

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inputs = SharedTensors.create()
        self._outputs = SharedTensors.create()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def start(self, begin: Callable[[str], None]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            passed = (theirs.fileno(), self._inputs.fd, self._outputs.fd)
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, *map(str, passed)], pass_fds=passed, stdin=subprocess.DEVNULL
            )
        self._connection = Connection(ours.detach())
        self.signature = self._loaded(begin)

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        return self.predict_with(inputs, outputs, NO_PARAMETERS)

    def predict_with(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        return self._ask("predict", inputs, outputs, parameters)

    def predict_many(self, inputs: list[Tensors], outputs: tuple[str, ...], parameters: Parameters) -> list[Tensors]:
        return apart(self._ask("batch", side_by_side(inputs), outputs, parameters), len(inputs))

    def explain(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        return self._ask("explain", inputs, outputs, parameters)

    def unload(self) -> None:
        """Ends the process, once the model in it has put away what it holds."""
        if self._process is None:
            return
        if "unload" in self.signature.verbs:
            with contextlib.suppress(RequestError):
                self._ask("unload", {}, (), NO_PARAMETERS)
        if self._process is not None:
            self._close()

    def _ask(self, verb: str, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        if self._process is None:
            self._restart()
        assert self._connection is not None
        try:
            self._connection.send((verb, self._inputs.write(inputs), outputs, dict(parameters)))
            if not self._connection.poll(self._settings.tuning.predict_timeout_s):
                self._kill()
                self._bury("took longer than predict_timeout_s and was ended")
                raise stuck(self._settings.tuning.predict_timeout_s)
            kind, said = self._connection.recv()
        except (EOFError, OSError) as exc:
            raise RequestError("MODEL_FAILED", self._bury()) from exc
        if kind == "refused":
            raise RequestError(*said)
        # The next batch is written over this one.
        return {name: tensor.copy() for name, tensor in self._outputs.read(said).items()}

    def warmup(self) -> Tensors | None:
        return None

    def _loaded(self, begin: Callable[[str], None]) -> Signature:
        assert self._connection is not None
        while True:
            try:
                if not self._connection.poll(self._settings.tuning.load_timeout_s):
                    self._kill()
                    raise ModelFailed("LOAD_TIMEOUT", self._bury("did not load within load_timeout_s and was ended"))
                kind, said = self._connection.recv()
            except (EOFError, OSError) as exc:
                raise ModelFailed("MODEL_RAISED", self._bury()) from exc
            if kind == "phase":
                begin(said)
            elif kind == "failed":
                self._close()
                raise ModelFailed(*said)
            else:
                signature: Signature = said
                return signature

    def _restart(self) -> None:
        try:
            self.start(lambda _: None)
        except ModelFailed as exc:
            raise RequestError("MODEL_FAILED", f"the model's process cannot be started again: {exc.reason}") from exc
        log.event("model process restarted")

    def _bury(self, known: str = "") -> str:
        """Ends what is left of the process; how it ended, as a sentence."""
        code = self._close()
        reason = f"the model's process {known or _ending(code)}"
        log.event("model process ended", level="error", exit_code=code, reason=reason)
        return reason

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    def _close(self) -> int:
        process, connection = self._process, self._connection
        assert process is not None
        assert connection is not None
        self._process = self._connection = None
        connection.close()
        try:
            return process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


# Between the end of a connection and that of its process lies only the interpreter's own shutdown.
_LAST_WORDS_S = 5.0


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most likely because its memory ran out; send fewer rows, or raise `resources.memory`"
    if code < 0:
        return f"ended by {signal.Signals(-code).name} in native code; correct the model, its log may have details"
    return f"ended by itself with exit code {code}; a model must not end its process; correct the model"
