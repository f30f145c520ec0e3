"""The models that every peer serves: `BENCH_MODEL` is iris (a linear model) or image (the mean of each picture)."""

import os


class Model:
    def __init__(self):
        self.kind = os.environ.get("BENCH_MODEL", "iris")
        if self.kind == "iris":
            import joblib

            self.estimator = joblib.load(os.environ["BENCH_MODEL_FILE"])

    def predict(self, rows):
        if self.kind == "iris":
            return self.estimator.predict(rows)
        return rows.mean(axis=(1, 2, 3))
