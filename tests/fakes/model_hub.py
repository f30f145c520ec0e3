"""A hub that speaks as much of Hugging Face's API as a download needs: revisions with their files, and the files.

Made after the answers that huggingface_hub reads (`model_info(files_metadata=True)`, `hf_hub_url`). Large files are
redirected to another server, as the real one does.
"""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote

from tests.fakes.file_server import FileServer


class ModelHub:
    """`server` answers for the hub, `storage` for where large files lie."""

    def __init__(self, server: FileServer, storage: FileServer, token: str = "") -> None:
        self.server = server
        self.storage = storage
        self._wants = f"Bearer {token}" if token else ""

    def commit(self, repo: str, files: dict[str, bytes], *names: str, large: int = 100_000) -> str:
        """Serves `files` as a commit that the branches and tags `names` point to; returns its id."""
        commit = hashlib.sha1(json.dumps([repo, sorted(files), str(files)]).encode()).hexdigest()
        siblings = [self._serve(repo, commit, name, content, large) for name, content in files.items()]
        answer = json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        for revision in (commit, *names):
            path = f"/api/models/{repo}/revision/{quote(revision, safe='')}"
            self.server.put(path, answer, kind="application/json", wants=self._wants)
        return commit

    def _serve(self, repo: str, commit: str, name: str, content: bytes, large: int) -> dict[str, object]:
        path = f"/{repo}/resolve/{commit}/{quote(name)}"
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob}
        if len(content) < large:
            self.server.put(path, content, wants=self._wants)
            return sibling
        digest = hashlib.sha256(content).hexdigest()
        there = self.storage.put(f"/blobs/{digest}", content)
        self.server.put(path, b"", redirect=f"{there}?X-Amz-Signature=s3cret", wants=self._wants)
        return {**sibling, "lfs": {"sha256": digest, "size": len(content), "pointerSize": 130}}
