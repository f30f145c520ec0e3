"""Run in an image of the mlflow backend: trains on iris and lets MLflow save the model, with the requirements given.

Leaves /out/model and /out/expected.json: what mlflow.pyfunc itself answers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

OUT = Path("/out")


def main(requirements: list[str]) -> None:
    iris = load_iris(as_frame=True)
    model = LogisticRegression(max_iter=500).fit(iris.data, iris.target_names[iris.target])
    mlflow.sklearn.save_model(
        model,
        str(OUT / "model"),
        signature=infer_signature(iris.data, model.predict(iris.data)),
        input_example=iris.data.head(1),
        serialization_format="cloudpickle",
        pip_requirements=requirements,
    )
    rows = iris.data.iloc[::10]
    answers = mlflow.pyfunc.load_model(str(OUT / "model")).predict(rows)
    (OUT / "expected.json").write_text(json.dumps({"rows": rows.to_dict("list"), "answers": list(answers)}))


main(sys.argv[1:])
