"""`python -m worker_image.server`: the process of one replica.

The order matters: secrets and thread counts go into the environment before anything imports numpy, which reads them
once.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import time

from worker_image.server import log
from worker_image.server.errors import ModelFailed
from worker_image.server.settings import add_secrets, limit_threads, read, refuse_telemetry

# Imports make hundreds of thousands of objects that stay. Walking them over and over took 0.14 s of the 1.15 s of CPU
# time that scikit-learn and a linear model need (process_time, five runs each). `lifecycle.py` ends this.
WHILE_LOADING = (100_000, 50, 100)


def main() -> int:
    started = time.monotonic()
    log.hold()
    gc.set_threshold(*WHILE_LOADING)
    try:
        settings = read(os.environ)
        add_secrets(os.environ.get("MODELFLEET_SECRETS_DIR"), os.environ)
    except ModelFailed as exc:
        return _give_up(exc)
    limit_threads(settings.threads, os.environ)
    refuse_telemetry(os.environ)

    import asyncio

    import uvloop

    from worker_image.server.lifecycle import serve

    log.route_library_logs()
    # What the model prints is wanted when it is printed, not when a buffer is full.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    log.watch_prints()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(settings, started))
    except ModelFailed as exc:
        return _give_up(exc)


def _give_up(failed: ModelFailed) -> int:
    log.model_failed(failed.reason, failed.code)
    return failed.exit_code


if __name__ == "__main__":
    sys.exit(main())
