"""The frameworks that a version may name, in the order in which messages list them.

Each has an image: a target in `worker_image/Dockerfile`, a lock in `worker_image/requirements/` (with a .txt beside it
for what cannot be hashed), and a file in `worker_image/server/backends/`, whose own list is that of
`worker_image/server/loading.py`.
"""

from __future__ import annotations

from typing import Literal, get_args

Backend = Literal[
    "sklearn",
    "onnx",
    "lightgbm",
    "xgboost",
    "catboost",
    "pytorch",
    "transformers",
    "mlflow",
    "python",
]
BACKENDS: tuple[str, ...] = get_args(Backend)
