"""Cutting a model out of a manifest's text must change nothing else, comments and line ends included."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import NotFoundError, UserError
from orchestrator.manifest import load, load_file, section, without_model

FLEET = """\
# The fleet of the shop.
cluster: shop        # one a machine

models:
  # Who will leave?
  # Trained monthly.
  churn:
    versions:
      "1": {source: churn/1, backend: sklearn}   # the first
    # "2" comes in May

  # What will sell?
  demand: {versions: {1: {source: demand, backend: onnx}}}
  prices:
    backend: python
    env:
      NOTE: |
        several
        lines
    versions: {v1: {source: prices}}

gateway: {port: 9090}
# the end
"""


def names(text: str) -> list[str]:
    return list(load(text, file="models.yaml", base_dir=Path("/")).models)


class TestWithoutModel:
    def test_cuts_a_model_with_its_comments(self) -> None:
        assert without_model(FLEET, "churn") == FLEET.replace(
            FLEET[FLEET.index("  # Who") : FLEET.index("  # What")], ""
        )

    def test_cuts_a_model_on_one_line(self) -> None:
        assert without_model(FLEET, "demand") == FLEET.replace(
            "  # What will sell?\n  demand: {versions: {1: {source: demand, backend: onnx}}}\n", ""
        )

    def test_cuts_the_last_model_and_keeps_what_follows(self) -> None:
        assert without_model(FLEET, "prices") == (
            FLEET[: FLEET.index("  prices:")] + "\ngateway: {port: 9090}\n# the end\n"
        )

    @pytest.mark.parametrize(
        ("text", "rest"),
        [
            ("models:   # all\n  a:\n    versions: {1: {source: m}}\n# end\n", "models: {}   # all\n# end\n"),
            ("models: {a: {versions: {1: {source: m}}}}\n", "models: {}\n"),
            ("models:\n  a: {}\n\n\ncluster: x\n", "models: {}\ncluster: x\n"),
            ('{"models": {"a": {}}, "cluster": "x"}', '{"models": {}, "cluster": "x"}'),
            ("models:\n  a: {}", "models: {}\n"),
        ],
    )
    def test_leaves_an_empty_mapping_of_the_only_model(self, text: str, rest: str) -> None:
        assert without_model(text, "a") == rest

    @pytest.mark.parametrize(
        ("name", "rest"),
        [("a", "models: {b: {}, c: {}}\n"), ("b", "models: {a: {}, c: {}}\n"), ("c", "models: {a: {}, b: {}}\n")],
    )
    def test_cuts_one_of_several_in_brackets(self, name: str, rest: str) -> None:
        assert without_model("models: {a: {}, b: {}, c: {}}\n", name) == rest

    def test_keeps_windows_line_ends(self) -> None:
        text = "models:\r\n  a: {}\r\n  b: {}\r\n"

        assert without_model(text, "a") == "models:\r\n  b: {}\r\n"

    def test_counts_characters_and_not_bytes(self) -> None:
        text = "cluster: x # é😀é\nmodels: {ä: {}, a: {k: 'é😀'}, b: {}}\n"

        assert without_model(text, "a") == "cluster: x # é😀é\nmodels: {ä: {}, b: {}}\n"

    def test_names_the_nearest_model_when_there_is_none_of_that_name(self) -> None:
        with pytest.raises(NotFoundError) as caught:
            without_model(FLEET, "chrun")

        assert str(caught.value) == "model 'chrun': not in the manifest; did you mean 'churn'?"

    def test_refuses_to_cut_an_anchor_that_another_model_needs(self) -> None:
        text = "models:\n  a:\n    resources: &big {memory: 4Gi}\n  b:\n    resources: *big\n"

        with pytest.raises(UserError, match="an alias elsewhere needs an anchor in it"):
            without_model(text, "a")

    def test_cuts_the_models_of_the_example_one_after_another(self) -> None:
        path = Path(__file__).resolve().parents[3] / "configs" / "models.yaml"
        text = path.read_text()

        for name in load_file(path).models:
            text = without_model(text, name)
            assert name not in names(text)

        assert "models: {}" in text

    @given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), st.data())
    def test_leaves_the_other_models_whatever_their_layout(self, models: list[str], data: st.DataObject) -> None:
        layouts = [
            "  {0}: {{versions: {{1: {{source: m, backend: onnx}}}}}}\n",
            "  # of {0}\n  {0}:\n    backend: onnx\n    versions:\n      1:\n        source: m\n      # later: 2\n\n",
            '\n  "{0}":\n      versions: {{1: {{source: m,\n        backend: onnx}}}}   # trailing\n',
            "  ? {0}\n  : versions: {{1: {{source: m, backend: onnx}}}}\n",
        ]
        text = "models:\n" + "".join(data.draw(st.sampled_from(layouts)).format(name) for name in models)
        gone = data.draw(st.sampled_from(models))

        rest = without_model(text, gone)

        assert names(rest) == [name for name in models if name != gone]
        assert f"# of {gone}\n" not in rest


class TestSection:
    def test_is_the_text_of_one_model_with_its_comments(self) -> None:
        assert section(FLEET, "churn") == (
            "# Who will leave?\n# Trained monthly.\nchurn:\n  versions:\n"
            '    "1": {source: churn/1, backend: sklearn}   # the first\n  # "2" comes in May\n'
        )

    def test_is_cut_from_brackets(self) -> None:
        assert section("models: {a: {env: {A: b}}, b: {}}", "a") == "a: {env: {A: b}}\n"

    def test_names_the_models_that_there_are(self) -> None:
        with pytest.raises(NotFoundError, match="model 'x': not in the manifest; there are: churn, demand, prices"):
            section(FLEET, "x")
