"""`hf://owner/repo[@revision][/path]`: models of the Hugging Face hub, or of one that speaks as it does (HF_ENDPOINT).

A branch or tag is resolved to its commit first, and the files of a commit never change: that commit is the source's
state. The bytes come over plain HTTP, so that they are resumed and bounded like any others. The token is that of
huggingface_hub: HF_TOKEN, or the file that `hf auth login` writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.adapters.sources.remote import Access, Listing, RemoteFile, TransientError
from orchestrator.adapters.sources.web import Web, first_byte
from orchestrator.core.errors import UserError
from orchestrator.core.sources import hub_place, redacted

DEFAULT_ENDPOINT = "https://huggingface.co"
# The hub's own bookkeeping, no part of a model.
_SKIPPED = frozenset({".gitattributes", ".gitignore"})


class HubRepository:
    def __init__(self, source: str, access: Access) -> None:
        self._source = f"source {redacted(source)}"
        self._place = hub_place(source)
        self._endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._web = Web(source, access, _token())

    def listing(self) -> Listing:
        place = self._place
        url = f"{self._endpoint}/api/models/{quote(place.repo)}/revision/{quote(place.revision, safe='')}?blobs=true"
        found = self._web.json(url)
        if found is None:
            raise UserError(
                f"{self._source}: {self._endpoint} knows no such repository or revision, or hides it; correct it, or "
                f"set HF_TOKEN to a token that may read it"
            )
        commit, siblings = str(found["sha"]), found["siblings"]
        files = [self._file(commit, each) for each in siblings if each["rfilename"] not in _SKIPPED]
        if not place.path:
            return Listing(tuple(files))
        return self._part(files)

    @contextlib.contextmanager
    def read(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        # No If-Range: a commit's file does not change, and the tag is of the store that the hub redirects to.
        with self._web.open(file.where, {"range": f"bytes={offset}-"} if offset else {}) as answer:
            is_part = answer.status_code == 206
            if is_part and first_byte(answer) != offset:
                raise TransientError("the hub sent another part of the file than was asked for")
            yield offset if is_part else 0, self._web.stream(answer)

    def close(self) -> None:
        self._web.close()

    def _file(self, commit: str, sibling: dict[str, Any]) -> RemoteFile:
        name, large = str(sibling["rfilename"]), sibling.get("lfs") or {}
        return RemoteFile(
            name=name,
            where=f"{self._endpoint}/{quote(self._place.repo)}/resolve/{commit}/{quote(name)}",
            size_bytes=large.get("size", sibling.get("size")),
            # The content's own name where the hub says it: a commit that changes another file costs nothing here.
            validator=f"blob {sibling['blobId']}" if sibling.get("blobId") else f"commit {commit}",
            sha256=str(large.get("sha256", "")),
        )

    def _part(self, files: list[RemoteFile]) -> Listing:
        path = self._place.path
        if exact := [file for file in files if file.name == path]:
            return Listing((_renamed(exact[0], path.rpartition("/")[2]),), is_file=True)
        inside = [_renamed(f, f.name[len(path) + 1 :]) for f in files if f.name.startswith(f"{path}/")]
        if not inside:
            raise UserError(f"{self._source}: the repository has no {path!r} in this revision; correct the path")
        return Listing(tuple(inside))


def _renamed(file: RemoteFile, name: str) -> RemoteFile:
    return RemoteFile(name, file.where, file.size_bytes, file.validator, file.sha256)


def _token() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN") or _stored_token()
    return {"authorization": f"Bearer {token.strip()}"} if token else {}


def _stored_token() -> str:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    try:
        return Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser().read_text()
    except OSError:
        return ""
