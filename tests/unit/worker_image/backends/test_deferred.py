"""Imports that are put off: nothing may be different but the moment. Each in a process of its own, for imports last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.fakes import models

# What one process says of every estimator of scikit-learn: fitted and written down, or read and asked.
ALL_ESTIMATORS = """
import pickle, sys, warnings
from pathlib import Path
import numpy as np

warnings.simplefilter("ignore")
directory = Path(sys.argv[2])
rows = np.abs(np.random.default_rng(3).normal(size=(60, 4)))
labels = (rows[:, 0] > rows[:, 1]).astype(int)

def answers(estimator):
    for method in ("predict", "predict_proba", "decision_function", "transform", "score_samples"):
        try:
            np.random.seed(0)
            answer = getattr(estimator, method)(rows[:7])
            yield method, np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
        except Exception as exc:
            yield method, type(exc).__name__

def fit():
    from sklearn.utils import all_estimators
    for name, kind in all_estimators():
        try:
            estimator = kind()
            if "n_estimators" in estimator.get_params():
                estimator.set_params(n_estimators=3)
            estimator.fit(rows, labels)
        except Exception:
            continue
        (directory / f"{name}.pkl").write_bytes(pickle.dumps((estimator, list(answers(estimator)))))

def ask():
    for file in sorted(directory.glob("*.pkl")):
        estimator, wanted = pickle.loads(file.read_bytes())
        for (method, answer), (_, expected) in zip(answers(estimator), wanted):
            is_float = not isinstance(answer, str) and answer.dtype.kind == "f"
            if not np.array_equal(answer, expected, equal_nan=is_float):
                print(file.stem, method, answer, expected)

{"fit": fit, "ask": ask}[sys.argv[1]]()
"""
DEFER = "from worker_image.server.backends.deferred import defer; defer()\n"


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", dedent(code), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestDefer:
    def test_a_linear_model_is_loaded_and_predicts_without_what_is_deferred(self, tmp_path: Path) -> None:
        file = models.iris(tmp_path / "iris") / "model.joblib"

        told = run(
            DEFER
            + """
            import sys, joblib, sklearn
            print(joblib.load(sys.argv[1]).predict([[5.1, 3.5, 1.4, 0.2]]))
            print([name for name in ("scipy.stats._stats_py", "scipy.optimize._optimize") if name in sys.modules])
            """.replace("\n            ", "\n"),
            str(file),
        )

        assert told == "[0]\n[]"

    def test_every_estimator_of_scikit_learn_answers_as_without_it(self, tmp_path: Path) -> None:
        """Fitted without it, read and asked with it; a hundred estimators at least could be fitted."""
        run(ALL_ESTIMATORS, "fit", str(tmp_path))

        different = run(DEFER + ALL_ESTIMATORS, "ask", str(tmp_path))

        assert len(list(tmp_path.glob("*.pkl"))) > 100
        assert different == ""

    @pytest.mark.parametrize(
        "use",
        [
            "from scipy.stats import rankdata; print(rankdata([3, 1, 2]).tolist())",
            "import scipy.stats; print(scipy.stats.rankdata([3, 1, 2]).tolist())",
            "import scipy; print(scipy.stats.rankdata([3, 1, 2]).tolist())",
            "from scipy import stats; stats.norm; print(stats.rankdata([3, 1, 2]).tolist())",
            "from scipy.stats import *; print(rankdata([3, 1, 2]).tolist())",
            "import scipy.stats.mstats; print(scipy.stats.rankdata([3, 1, 2]).tolist())",
            "from scipy.stats._stats_py import rankdata; print(rankdata([3, 1, 2]).tolist())",
        ],
    )
    def test_a_deferred_package_works_however_it_is_imported(self, use: str) -> None:
        assert run(DEFER + use) == "[3.0, 1.0, 2.0]"

    def test_a_class_that_is_deferred_can_be_made_and_looked_into(self) -> None:
        use = """
        from scipy.interpolate import BSpline
        import numpy as np
        made = BSpline.construct_fast(np.arange(6.0), np.ones(3), 2), BSpline(np.arange(6.0), np.ones(3), 2)
        print([float(each(2.5)) for each in made])
        """

        assert run(DEFER + dedent(use)) == "[1.0, 1.0]"

    def test_it_is_a_module_like_any_other_once_it_was_used(self) -> None:
        use = """
        import inspect, scipy.stats
        scipy.stats.norm
        print(type(scipy.stats).__name__, type(scipy.stats.__loader__).__name__, "def " in inspect.getsource(scipy.stats.rankdata))
        """

        assert run(DEFER + dedent(use)) == "module SourceFileLoader True"

    def test_what_it_does_not_have_is_missing(self) -> None:
        assert run(DEFER + "import scipy.stats; print(hasattr(scipy.stats, 'nonsense'))") == "False"

    def test_threads_that_use_it_at_one_time_all_get_it(self) -> None:
        use = """
        import scipy.stats
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            print(sorted({pool.submit(lambda: scipy.stats.norm.name).result() for _ in range(1)}
                         | set(pool.map(lambda _: scipy.stats.norm.name, range(32)))))
        """

        assert run(DEFER + dedent(use)) == "['norm']"

    def test_what_was_imported_before_stays(self) -> None:
        assert (
            run("import scipy.stats as before\n" + DEFER + "import scipy.stats; print(before is scipy.stats)") == "True"
        )
