"""Loads the model into its instances: once for threads that share it, or once in each process.

Decides which of the two, by what the framework allows. Loading runs in the instances' own threads, all at one time; the
phases that are told and logged are the first one's, for they do the same. How long it may take is `lifecycle.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from worker_image.server import log
from worker_image.server.batching.thread import ModelThread
from worker_image.server.errors import ModelFailed
from worker_image.server.loading import PIPELINE_FILE, RELEASES_GIL, Loaded, load, print_cause
from worker_image.server.phase import Phase
from worker_image.server.settings import Settings

Begin = Callable[[str], None]
Loader = Callable[[Settings, Begin], Loaded]
Outcome = Loaded | ModelFailed


def in_processes(settings: Settings) -> bool:
    if settings.tuning.instances == 1:
        return False
    return settings.backend not in RELEASES_GIL or _has_pipeline(settings.model_dir / PIPELINE_FILE)


def _has_pipeline(file: Path) -> bool:
    """Functions of an author's are called by one thread at a time, and hold the interpreter's lock."""
    if not file.is_file():
        return False
    from worker_image.server.backends.pipeline import is_pipeline

    return is_pipeline(file)


async def load_all(settings: Settings, phase: Phase, threads: Sequence[ModelThread]) -> list[Outcome]:
    """One outcome for all threads, or one for each."""
    if not in_processes(settings):
        return [await _load_in(threads[0], load, settings, _told(phase))]
    from worker_image.server.instances import remote

    begins = [_told(phase), *(_untold for _ in threads[1:])]
    loads = [_load_in(thread, remote.load, settings, begin) for thread, begin in zip(threads, begins, strict=True)]
    return list(await asyncio.gather(*loads))


def _load_in(thread: ModelThread, how: Loader, settings: Settings, begin: Begin) -> asyncio.Future[Outcome]:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    thread.call(lambda: _load_or_failure(how, settings, begin), answer.set_result)
    return answer


def _load_or_failure(how: Loader, settings: Settings, begin: Begin) -> Outcome:
    try:
        return how(settings, begin)
    except ModelFailed as exc:
        print_cause(exc)
        return exc


def _told(phase: Phase) -> Begin:
    """Begins phases, and logs what each one took: a slow start says at once where it is slow."""

    def begin(name: str) -> None:
        ended, seconds = phase.name, phase.seconds
        phase.begin(name)
        if ended != name:
            log.event("phase ended", phase=ended, seconds=round(seconds, 3))

    return begin


def _untold(phase: str) -> None:
    pass
