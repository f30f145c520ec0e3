"""The frameworks that a version may name, in the order in which messages list them.

Each has an image: a target in `worker_image/Dockerfile`, a lock in `worker_image/requirements/`, and a file in
`worker_image/server/backends/`, whose own list is `worker_image/server/loading.py`'s.
"""

from __future__ import annotations

from typing import Literal, get_args

Backend = Literal[
    "sklearn",
    "onnx",
    "lightgbm",
    "python",
]
BACKENDS: tuple[str, ...] = get_args(Backend)
