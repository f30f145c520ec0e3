"""Trains the example models: `python -m worker_image.examples.train --out DIR`.

Writes `DIR/<model>/<version>/`, whole or not at all, and prints one JSON line a version with its quality on data it
has not seen. Random states are fixed, so that training again with the same libraries gives the same models. It needs
every framework: run it in the image's `examples` target. The `text` example is source, not trained: see configs/text/1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 7
# Readable by the unprivileged user that serves them.
_DIRECTORY_MODE, _FILE_MODE = 0o755, 0o644


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the example models of Modelfleet.")
    parser.add_argument("--out", type=Path, required=True, help="directory for <model>/<version>/")
    parser.add_argument("--force", action="store_true", help="train again what is there already")
    options = parser.parse_args(arguments)
    for name, train in EXAMPLES.items():
        directory = options.out / name
        if directory.is_dir() and not options.force:
            continue
        started = time.monotonic()
        quality = _write(directory, train)
        _report(name, quality, time.monotonic() - started)
    return 0


def iris_linear(directory: Path) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    return _iris(LogisticRegression(max_iter=500), directory)


def iris_forest(directory: Path) -> dict[str, float]:
    from sklearn.ensemble import RandomForestClassifier

    return _iris(RandomForestClassifier(n_estimators=50, random_state=SEED), directory)


def digits(directory: Path) -> dict[str, float]:
    """Handwritten digits of 8x8 grey values in 0..16: a small neural network, exported to ONNX."""
    from skl2onnx import to_onnx  # type: ignore[import-untyped]
    from skl2onnx.common.data_types import FloatTensorType  # type: ignore[import-untyped]
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    train, test = _split(*load_digits(return_X_y=True))
    network = MLPClassifier(hidden_layer_sizes=(64,), max_iter=400, random_state=SEED)
    model = make_pipeline(MinMaxScaler(), network).fit(*train)
    inputs = [("image", FloatTensorType([None, 64]))]
    # Without `zipmap: False` the probabilities are dictionaries, which no serving protocol carries.
    exported = to_onnx(model, initial_types=inputs, options={id(model): {"zipmap": False}}, target_opset=17)
    (directory / "model.onnx").write_bytes(exported.SerializeToString())
    return {"accuracy": model.score(*test)}


def diabetes(directory: Path) -> dict[str, float]:
    """How far diabetes has gone after a year, from ten measurements: gradient boosting."""
    import lightgbm
    from sklearn.datasets import load_diabetes
    from sklearn.metrics import r2_score

    data = load_diabetes()
    train, test = _split(data.data, data.target)
    settings = {"objective": "regression", "learning_rate": 0.05, "num_leaves": 7, "seed": SEED, "verbose": -1}
    rows = lightgbm.Dataset(train[0], train[1], feature_name=list(data.feature_names))
    booster = lightgbm.train(settings, rows, num_boost_round=120)
    booster.save_model(directory / "model.txt")
    return {"r2": r2_score(test[1], booster.predict(test[0]))}


EXAMPLES: dict[str, Callable[[Path], dict[str, float]]] = {
    "iris/1": iris_linear,
    "iris/2": iris_forest,
    "digits/1": digits,
    "diabetes/1": diabetes,
}


def _iris(model: Any, directory: Path) -> dict[str, float]:
    """Iris species by their names: a classifier of strings answers strings."""
    import joblib
    from sklearn.datasets import load_iris

    data = load_iris()
    train, test = _split(data.data, data.target_names[data.target])
    joblib.dump(model.fit(*train), directory / "model.joblib")
    return {"accuracy": model.score(*test)}


def _split(features: Any, target: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    from sklearn.model_selection import train_test_split

    train_x, test_x, train_y, test_y = train_test_split(features, target, test_size=0.25, random_state=SEED)
    return (train_x, train_y), (test_x, test_y)


def _write(directory: Path, train: Callable[[Path], dict[str, float]]) -> dict[str, float]:
    """Trains into a directory beside the wanted one and renames it: a training that was interrupted leaves no half."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".training-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        quality = train(fresh)
        for file in fresh.iterdir():
            file.chmod(_FILE_MODE)
        fresh.chmod(_DIRECTORY_MODE)
        if directory.exists():
            directory.rename(Path(scratch) / "old")
        fresh.rename(directory)
    return quality


def _report(name: str, quality: dict[str, float], seconds: float) -> None:
    rounded = {measure: round(value, 3) for measure, value in quality.items()}
    sys.stdout.write(
        json.dumps({"event": "model trained", "model": name, "seconds": round(seconds, 2), **rounded}) + "\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
