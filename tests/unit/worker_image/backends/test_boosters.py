"""What clients send to numbers, and probabilities to labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker_image.server.backends.boosters import Classes, Columns, classes_of
from worker_image.server.errors import ModelFailed

SHOP = Columns(3, ["city", "age", "size"], {0: ["bonn", "oslo"], 2: [10, 20]})
LENIENT = Columns(3, SHOP.names, SHOP.categories, refuses_unknown=False)


def shop(city: Any = "oslo", age: float = 3.0, size: Any = 20) -> dict[str, Any]:
    return {"city": np.array([city], dtype=object), "age": np.array([age]), "size": np.array([size])}


class TestColumns:
    def test_categories_become_their_numbers(self) -> None:
        assert SHOP.rows(shop()).tolist() == [[1.0, 3.0, 1.0]]
        assert SHOP.rows(shop(size=10.0)).tolist() == [[1.0, 3.0, 0.0]]

    def test_what_is_missing_is_nan(self) -> None:
        assert np.isnan(SHOP.rows(shop(None, np.nan, np.nan))).all()

    def test_a_category_that_training_had_not_is_refused_or_missing_as_the_framework_has_it(self) -> None:
        with pytest.raises(ValueError, match=r"input 'city': 'paris' is no category .* there are 'bonn', 'oslo'"):
            SHOP.rows(shop("paris"))

        assert np.isnan(LENIENT.rows(shop("paris"))[0, 0])

    def test_shows_which_columns_are_texts(self) -> None:
        assert [(spec.name, spec.datatype) for spec in SHOP.inputs] == [
            ("city", "BYTES"),
            ("age", "FP64"),
            ("size", "FP64"),
        ]

    def test_a_matrix_is_no_way_to_say_categories(self) -> None:
        assert SHOP.matrix is None
        assert Columns(2, ["a", "b"]).matrix is not None

    def test_the_example_is_one_that_it_takes(self) -> None:
        assert SHOP.rows(SHOP.example()).tolist() == [[0.0, 0.0, 0.0]]
        assert Columns(2).rows(Columns(2).example()).tolist() == [[0.0, 0.0]]


class TestClasses:
    def test_two_classes_have_a_column_each(self) -> None:
        classes = Classes(np.array(["no", "yes"], dtype=object))

        assert classes.probabilities(np.array([0.25, 0.75])).tolist() == [[0.75, 0.25], [0.25, 0.75]]
        assert classes.label(np.array([0.25, 0.75])).tolist() == ["no", "yes"]

    def test_are_numbers_without_a_file_of_labels(self, tmp_path: Path) -> None:
        assert classes_of(tmp_path, 3).label(np.array([[0, 0, 1]])).tolist() == [2]

    @pytest.mark.parametrize(
        ("labels", "wanted"), [(["a", "b"], ["b"]), ([10, 20], [20]), ([False, True], [True]), (["a", 2], ["2"])]
    )
    def test_are_those_of_the_file(self, tmp_path: Path, labels: list[Any], wanted: list[Any]) -> None:
        (tmp_path / "labels.json").write_text(json.dumps(labels))

        assert classes_of(tmp_path, 2).label(np.array([0.9])).tolist() == wanted

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[", "is no JSON"),
            ('{"a": 1}', "is no list of texts or numbers"),
            ("[[1], [2]]", "is no list of texts or numbers"),
            ('["a"]', "names 1 classes, the model has 2; it is a JSON list of 2"),
            ('["a", "a"]', "names 1 classes"),
        ],
    )
    def test_says_what_is_wrong_with_the_file(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "labels.json").write_text(text)

        with pytest.raises(ModelFailed) as failed:
            classes_of(tmp_path, 2)

        assert failed.value.exit_code == 65
        assert words in failed.value.reason
