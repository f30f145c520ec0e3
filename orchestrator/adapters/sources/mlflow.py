"""`models:/name/version`, `models:/name@alias`, `runs:/id/path`: what an MLflow tracking server keeps, by its REST API.

The server is named in the source (`mlflow+https://host/models/name/3`) or in MLFLOW_TRACKING_URI. It says where the
files lie: with itself (`mlflow-artifacts:`), or in a bucket, which is then read as any other. What a registered version
or a finished run names does not change by MLflow's own rules, so its names and sizes are enough to know it again.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.adapters.sources.remote import Access, Listing, Remote, RemoteFile
from orchestrator.adapters.sources.web import Web, basic
from orchestrator.core.errors import UserError
from orchestrator.core.sources import MlflowPlace, mlflow_place, redacted, scheme_of

MAX_FILES = 100_000
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True, slots=True)
class Found:
    """Where the server says that the files lie. `state` is "" while they may still change."""

    uri: str
    state: str


class MlflowArtifacts:
    """`open_remote` opens a source of another scheme: the bucket in which the server keeps its files."""

    def __init__(self, source: str, access: Access, open_remote: Callable[[str], Remote]) -> None:
        self._source = f"source {redacted(source)}"
        self._place = mlflow_place(source)
        self._server = (self._place.server or _server_of_environment(self._source)).rstrip("/")
        self._web = Web(source, access, _credentials())
        self._open_remote = open_remote
        self._inner: Remote | None = None

    def listing(self) -> Listing:
        found = self._find()
        scheme = urlsplit(found.uri).scheme
        if scheme == "mlflow-artifacts":
            return self._own_files(found)
        if scheme_of(found.uri) in ("", "file", "::") or scheme in ("dbfs", "databricks", "models", "runs"):
            raise UserError(
                f"{self._source}: its files lie at {redacted(found.uri)}, which only the tracking server reads; start "
                f"it with --serve-artifacts and --artifacts-destination, or name the files by a path of this machine"
            )
        if self._inner is None:
            self._inner = self._open_remote(found.uri)
        return self._inner.listing()

    @contextlib.contextmanager
    def read(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        if self._inner is not None:
            with self._inner.read(file, offset) as opened:
                yield opened
            return
        with self._web.open(file.where, {"range": f"bytes={offset}-"} if offset else {}) as answer:
            yield offset if answer.status_code == 206 else 0, self._web.stream(answer)

    def close(self) -> None:
        self._web.close()
        if self._inner is not None:
            self._inner.close()

    # -- where the files lie ---------------------------------------------------------------------------------

    def _find(self) -> Found:
        place = self._place
        if place.run:
            return self._of_run(place)
        if place.logged_model:
            return self._of_logged_model(place.logged_model)
        if place.alias:
            found = self._ask("registered-models/alias", name=place.model, alias=place.alias)
        else:
            found = self._ask("model-versions/get", name=place.model, version=place.version)
        if not found:
            what = f"alias {place.alias!r}" if place.alias else f"version {place.version}"
            raise UserError(
                f"{self._source}: {self._server_name} knows no {what} of a model {place.model!r}; correct it"
            )
        version = found["model_version"]
        answer = self._ask("model-versions/get-download-uri", name=place.model, version=version["version"])
        uri = str((answer or {}).get("artifact_uri") or version.get("source", ""))
        if uri.startswith("models:/m-"):
            uri = self._of_logged_model(uri.removeprefix("models:/").strip("/")).uri
        return Found(uri, f"model {place.model} {version['version']} {version.get('creation_timestamp')}")

    def _of_run(self, place: MlflowPlace) -> Found:
        answer = self._ask("runs/get", run_id=place.run)
        if not answer:
            raise UserError(f"{self._source}: {self._server_name} knows no run {place.run!r}; correct it")
        run = answer["run"]
        uri = f"{str(run['info']['artifact_uri']).rstrip('/')}/{place.path}"
        ended = run["info"].get("status") not in ("RUNNING", "SCHEDULED")
        # Since MLflow 3 a model is kept beside the run that logged it, by the name that it was logged under.
        for output in run.get("outputs", {}).get("model_outputs", []):
            model = self._ask(f"logged-models/{quote(str(output['model_id']))}")
            if model and model["model"]["info"].get("name") == place.path:
                uri = str(model["model"]["info"]["artifact_uri"])
        return Found(uri, f"run {place.run}" if ended else "")

    def _of_logged_model(self, model_id: str) -> Found:
        answer = self._ask(f"logged-models/{quote(model_id)}")
        if not answer:
            raise UserError(f"{self._source}: {self._server_name} knows no logged model {model_id!r}; correct it")
        return Found(str(answer["model"]["info"]["artifact_uri"]), f"logged model {model_id}")

    def _ask(self, call: str, **query: str) -> Any:
        # An alias that does not exist is a bad request to MLflow.
        return self._web.json(f"{self._server}{_API}/{call}{'?' if query else ''}{urlencode(query)}", absent=(400, 404))

    @property
    def _server_name(self) -> str:
        return redacted(self._server)

    # -- files that the server has itself ----------------------------------------------------------------------

    def _own_files(self, found: Found) -> Listing:
        parts = urlsplit(found.uri)
        if parts.hostname and parts.hostname != urlsplit(self._server).hostname:
            raise UserError(
                f"{self._source}: its files lie with another server, {parts.hostname}; name that one in the source"
            )
        root = parts.path.strip("/")
        files = list(self._walk(root, ""))
        if not files and (single := self._single(root)):
            return Listing((self._stated(single, found),), is_file=True)
        return Listing(tuple(self._stated(file, found) for file in sorted(files, key=lambda f: f.name)))

    def _walk(self, root: str, below: str) -> Iterator[RemoteFile]:
        waiting, seen = [below], 0
        while waiting:
            folder = waiting.pop()
            for each in self._files_in(posixpath.join(root, folder)):
                name = posixpath.join(folder, posixpath.basename(str(each["path"])))
                seen += 1
                if seen > MAX_FILES:
                    raise UserError(f"{self._source}: more than {MAX_FILES:,} files; name a folder of one model")
                if each.get("is_dir"):
                    waiting.append(name)
                else:
                    yield self._file(root, name, each)

    def _single(self, path: str) -> RemoteFile | None:
        """The artifact when it is one file: the server lists folders alone."""
        folder, _, name = path.rpartition("/")
        found = next((each for each in self._files_in(folder) if posixpath.basename(str(each["path"])) == name), None)
        return self._file(folder, name, found) if found and not found.get("is_dir") else None

    def _files_in(self, folder: str) -> list[Any]:
        answer = self._web.json(f"{self._server}{_ARTIFACTS}?{urlencode({'path': folder})}")
        return list((answer or {}).get("files", []))

    def _file(self, root: str, name: str, facts: Any) -> RemoteFile:
        where = f"{self._server}{_ARTIFACTS}/{quote(posixpath.join(root, name))}"
        return RemoteFile(name, where, int(facts["file_size"]) if "file_size" in facts else None)

    @staticmethod
    def _stated(file: RemoteFile, found: Found) -> RemoteFile:
        return replace(file, validator=f"{found.state} {found.uri}") if found.state else file


def _server_of_environment(source: str) -> str:
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if urlsplit(server).scheme not in ("http", "https"):
        said = f"MLFLOW_TRACKING_URI is {redacted(server)!r}" if server else "MLFLOW_TRACKING_URI is not set"
        raise UserError(
            f"{source}: {said} in the control plane's environment; it must be the tracking server's http(s) address; "
            f"set it before `modelfleet up`, or write the server into the source: mlflow+https://host/models/name/3"
        )
    return server


def _credentials() -> dict[str, str]:
    """As MLflow's own client takes them: a name and password before a token."""
    environ = os.environ
    if user := environ.get("MLFLOW_TRACKING_USERNAME"):
        return {"authorization": basic(user, environ.get("MLFLOW_TRACKING_PASSWORD", ""))}
    token = environ.get("MLFLOW_TRACKING_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}
