"""One companion of one state directory: found, started in a container or as a program, given new settings, and ended.

What runs with the wanted settings stays, whichever way it runs. What else is started runs in a container where there is
an engine for it and an image, and else as the program from the PATH. Its data stay whatever happens.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.adapters.companions.containers import DATA, Container, Containers
from orchestrator.adapters.companions.images import CompanionImage
from orchestrator.adapters.companions.kinds import CompanionFailed, Kind, Recipe, Settings
from orchestrator.adapters.companions.programs import Program
from orchestrator.adapters.companions.running import Running
from orchestrator.adapters.gateway import bind_problem
from orchestrator.adapters.images import ImageBuilder
from orchestrator.adapters.state_dir import write_private

# Digest of the files that the one that runs has read.
_LOADED = "loaded"


class Companion:
    """Blocking. `containers` and `builder` are None where the cluster runs on no Docker Engine."""

    def __init__(
        self,
        kind: Kind,
        directory: Path,
        log_file: Path,
        containers: Containers | None = None,
        builder: ImageBuilder | None = None,
    ) -> None:
        self.kind = kind
        self._directory = directory
        self._program = Program(kind, directory, log_file)
        self._containers = containers
        self._container = Container(kind, directory, log_file, containers) if containers else None
        self._image = CompanionImage(kind, containers.calls, builder) if containers and builder else None
        # Guards starting and ending: a stop during a start must end what is being started too.
        self._lock = threading.Lock()

    def running(self) -> Running | None:
        """The one that runs, whatever its settings. Raises `EngineUnavailable`: then it is not known."""
        if not self._directory.is_dir():
            return None
        return (self._container.running() if self._container else None) or self._program.running()

    def find(self, settings: Settings) -> Running | None:
        """The one that runs with these settings."""
        found = self.running()
        if found is None:
            return None
        recipe = settings.recipe(self._way(found).home)
        is_same = (found.digest, self._loaded()) == (recipe.digest(self.kind), recipe.content())
        return found if is_same else None

    def how_it_ended(self) -> str:
        """How the one that ran ended by itself, as far as that is known, "" otherwise. Raises `EngineUnavailable`."""
        if not self._directory.is_dir():
            return ""
        return (self._container.how_it_ended() if self._container else "") or self._program.how_it_ended()

    def start(self, settings: Settings, image_came: Callable[[], None]) -> Running | None:
        """Has one run with these settings; one that needs new files alone only reads them.

        None while its image is being got: `doing` says so, and `image_came` is called from another thread when that
        ended. Raises `CompanionFailed`, or `EngineUnavailable`.
        """
        with self._lock:
            if reloaded := self._reload(settings):
                return reloaded
            complaint = self._containers.complaint() if self._containers else ""
            image = self._image.present() if self._image and not complaint else ""
            if self._image and not (image or complaint) and self._image.may_come(image_came):
                return None
            program = "" if image else self._program.found()
            if not (image or program):
                raise CompanionFailed(self._nothing_to_run(complaint))
            return self._start(settings, image, program)

    def stop(self) -> bool:
        """Ends it; what it kept stays. Returns whether there was one. Raises `EngineUnavailable`."""
        with self._lock:
            return self._end() if self._directory.is_dir() else False

    @property
    def doing(self) -> str:
        """What it waits for, "" for nothing."""
        return self._image.doing if self._image else ""

    @property
    def problem(self) -> str:
        """Why it runs in no container though it might, as far as that is known."""
        return self._image.problem if self._image else ""

    def _reload(self, settings: Settings) -> Running | None:
        found = self.running()
        if found is None:
            return None
        recipe = settings.recipe(self._way(found).home)
        if found.digest != recipe.digest(self.kind):
            return None
        self._write(recipe)
        self._way(found).reload(found)
        self._note_loaded(recipe)
        return found

    def _start(self, settings: Settings, image: str, program: str) -> Running:
        way: Container | Program = self._container if self._container and image else self._program
        recipe = settings.recipe(way.home)
        self._write(recipe)
        self._end()
        if problem := bind_problem("127.0.0.1", settings.port):
            raise CompanionFailed(
                f"observability.{self.kind.name}_port: {settings.port}: {problem}; it must be free on 127.0.0.1; end "
                f"what listens there, or name another port in the manifest"
            )
        with self._writing():
            running = way.start(image or program, recipe, settings)
        self._note_loaded(recipe)
        return running

    def _end(self) -> bool:
        in_container = self._container.stop() if self._container else False
        return self._program.stop() or in_container

    def _nothing_to_run(self, complaint: str) -> str:
        wanted = f"observability.{self.kind.name}: managed"
        no_program = f"no program {' or '.join(map(repr, self.kind.programs))} on the PATH"
        reasons = [why for why in (complaint, self.problem) if why]
        return (
            f"{wanted}: {'; '.join([*reasons, no_program])}; install it ({self.kind.advice}), name the URL of a server "
            f"that runs, or write off"
        )

    def _way(self, found: Running) -> Container | Program:
        return self._container if self._container and found.container else self._program

    def _loaded(self) -> str:
        try:
            return (self._directory / _LOADED).read_text()
        except OSError:
            return ""

    def _note_loaded(self, recipe: Recipe) -> None:
        write_private(self._directory / _LOADED, recipe.content().encode())

    def _write(self, recipe: Recipe) -> None:
        """Its files as they should be, and none of an earlier release beside them. Raises `CompanionFailed`."""
        with self._writing():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._directory / DATA).mkdir(mode=0o700, exist_ok=True)
            for name, content in recipe.files.items():
                _write_changed(self._directory / name, content)
            for name in recipe.secrets:
                if not (self._directory / name).exists():
                    write_private(self._directory / name, secrets.token_urlsafe(24).encode())
            self._remove_unknown(recipe)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the file system refuses into `CompanionFailed`."""
        try:
            yield
        except OSError as exc:
            raise CompanionFailed(
                f"{self.kind.name}: {exc.filename or self._directory}: {(exc.strerror or str(exc)).lower()}; what it "
                f"runs with and keeps is written there; make it writable, or name another state directory"
            ) from exc

    def _remove_unknown(self, recipe: Recipe) -> None:
        ours = {self._directory / name for name in recipe.files}
        for folder in {path.parent for path in ours} - {self._directory}:
            for path in folder.iterdir():
                if path.is_file() and path not in ours:
                    path.unlink()


def _write_changed(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)
