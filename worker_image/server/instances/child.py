"""`python -m worker_image.server.instances.child FD FD FD`: one copy of the model in a process of its own.

It loads the model as the server itself would, tells each phase and the outcome over its connection, and then answers
batches until the connection ends, which is how it learns that the server is gone. It listens nowhere and decides
nothing: `remote.py` is the other side.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing.connection import Connection

from worker_image.server import log
from worker_image.server.errors import ModelFailed, RequestError
from worker_image.server.instances.shared import SharedTensors, apart, side_by_side
from worker_image.server.loading import Loaded, load, print_cause
from worker_image.server.settings import read
from worker_image.server.tensors import Parameters, Tensors


def main(arguments: list[str]) -> int:
    connection, inputs, outputs = (int(argument) for argument in arguments)
    # The server drains before it ends its instances: a signal to the whole group must not end them first.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    log.hold()
    log.route_library_logs()
    to_server: Connection = Connection(connection)
    try:
        loaded = load(read(os.environ), lambda phase: to_server.send(("phase", phase)))
    except ModelFailed as exc:
        print_cause(exc)
        to_server.send(("failed", (exc.code, exc.reason)))
        return exc.exit_code
    to_server.send(("loaded", loaded.signature))
    # One of these says that the server has ended.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _answer(to_server, loaded, SharedTensors(inputs), SharedTensors(outputs))
    return 0


def _answer(to_server: Connection, loaded: Loaded, inputs: SharedTensors, outputs: SharedTensors) -> None:
    while True:
        verb, places, wanted, parameters = to_server.recv()
        try:
            answer = _answered(loaded, verb, inputs.read(places), wanted, parameters)
            to_server.send(("answer", outputs.write(answer)))
        except RequestError as exc:
            to_server.send(("refused", (exc.code, exc.sentence)))


def _answered(loaded: Loaded, verb: str, given: Tensors, wanted: tuple[str, ...], parameters: Parameters) -> Tensors:
    if verb == "batch":
        return side_by_side(loaded.predict_many(apart(given), wanted, parameters))
    if verb == "explain":
        return loaded.explain(given, wanted, parameters)
    if verb == "unload":
        loaded.unload()
        return {}
    return loaded.predict(given, wanted, parameters)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
