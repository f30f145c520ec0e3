"""Cutting a model out of a manifest's text must change nothing else, comments and line ends included."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import NotFoundError, UserError
from orchestrator.manifest import (
    ManifestError,
    load,
    load_file,
    section,
    with_all_traffic,
    with_model,
    without_model,
)

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


def shares(text: str, model: str) -> dict[str, int]:
    return dict(load(text, file="models.yaml", base_dir=Path("/")).models[model].traffic)


TWO = """\
models:
  iris:
    # Two of them.
    versions:
      "1": {source: a, backend: sklearn}   # the old one
      "2": {source: b, backend: sklearn}
TRAFFIC
  other: {versions: {1: {source: c, backend: onnx}}}   # is left alone
"""


class TestWithAllTraffic:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ('    traffic: {"1": 90, "2": 10}  # for now', '    traffic: {"1": 0, "2": 100}  # for now'),
            (
                '    traffic:\n      "1": 90   # most\n      # a try\n      2: 10\n',
                '    traffic:\n      "1": 0   # most\n      # a try\n      2: 100\n',
            ),
            ('    traffic: {"1": 100}', '    traffic: {"2": 100, "1": 0}'),
            ('    traffic:\n      "1": 100\n', '    traffic:\n      "2": 100\n      "1": 0\n'),
            ("    traffic: {}", '    traffic: {"2": 100}'),
        ],
    )
    def test_moves_shares_where_they_stand(self, before: str, after: str) -> None:
        text = TWO.replace("TRAFFIC", before)

        found = with_all_traffic(text, "iris", "2")

        assert found == TWO.replace("TRAFFIC", after)
        assert {version: share for version, share in shares(found, "iris").items() if share} == {"2": 100}

    def test_writes_traffic_where_there_is_none(self) -> None:
        found = with_all_traffic(TWO.replace("TRAFFIC\n", ""), "iris", "1")

        assert '  iris:\n    traffic: {"1": 100}\n    # Two of them.\n    versions:' in found
        assert shares(found, "iris") == {"1": 100}

    def test_writes_it_into_a_model_on_one_line(self) -> None:
        text = 'models: {iris: {versions: {"1": {source: a, backend: onnx}, "2": {source: b, backend: onnx}}}}\n'

        assert with_all_traffic(text, "iris", "1").startswith('models: {iris: {traffic: {"1": 100}, versions:')

    def test_refuses_shares_that_another_model_has_too(self) -> None:
        text = TWO.replace("TRAFFIC", '    traffic: &same {"1": 90, "2": 10}').replace(
            "  other: {versions: {1: {source: c, backend: onnx}}}",
            '  other: {traffic: *same, versions: {"1": {source: c, backend: onnx}, "2": {source: c, backend: onnx}}}',
        )

        with pytest.raises(UserError, match="by hand"):
            with_all_traffic(text, "iris", "2")

    @pytest.mark.parametrize("model", ["nobody", ""])
    def test_names_the_models_there_are(self, model: str) -> None:
        with pytest.raises(NotFoundError, match="iris"):
            with_all_traffic(TWO.replace("TRAFFIC", ""), model, "2")

    @given(st.lists(st.sampled_from(["1", "2", "1.10", "08", "on"]), min_size=1, max_size=4, unique=True), st.data())
    def test_any_split_becomes_one_version_alone(self, names: list[str], data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(names))
        split = data.draw(st.sampled_from(names))
        style = data.draw(st.sampled_from(["{%s}", "\n      %s"]))
        joint = ", " if style == "{%s}" else "\n      "
        listed = joint.join(f'"{name}": {100 if name == split else 0}' for name in names)
        versions = ", ".join(f'"{name}": {{source: a, backend: onnx}}' for name in names)
        text = f"models:\n  iris:\n    traffic: {style % listed}\n    versions: {{{versions}}}\n"

        found = shares(with_all_traffic(text, "iris", chosen), "iris")

        assert {version: share for version, share in found.items() if share} == {chosen: 100}


class TestWithModel:
    def test_puts_a_model_in_the_place_of_another(self) -> None:
        churn = section(FLEET, "churn").replace("churn/1", "churn/0")

        found = with_model(FLEET, "churn", churn)

        assert found == FLEET.replace("churn/1", "churn/0")

    def test_a_model_that_was_cut_out_comes_back_after_the_others(self) -> None:
        for name in ("churn", "demand", "prices"):
            found = with_model(without_model(FLEET, name), name, section(FLEET, name))

            assert set(names(found)) == set(names(FLEET))
            assert section(found, name).strip() == section(FLEET, name).strip()

    def test_refuses_what_needs_an_anchor_elsewhere(self) -> None:
        with pytest.raises((UserError, ManifestError)):
            with_model(FLEET, "churn", 'churn: {versions: {"1": *elsewhere}}\n')

    def test_puts_one_into_models_on_one_line(self) -> None:
        text = '{"models": {"a": {"versions": {"1": {"source": "a"}}}, "b": {"versions": {"1": {"source": "b"}}}}}'
        other = section(text.replace('"source": "a"', '"source": "c"'), "a")

        assert with_model(text, "a", other) == text.replace('"source": "a"', '"source": "c"')
        assert with_model(without_model(text, "b"), "b", section(text, "b")) == text

    def test_refuses_lines_where_models_stand_on_one_line(self) -> None:
        with pytest.raises(UserError, match="by hand"):
            with_model('models: {x: {versions: {"1": {source: a}}}}\n', "churn", section(FLEET, "churn"))

    def test_refuses_where_there_is_no_model_yet(self) -> None:
        with pytest.raises(UserError, match="by hand"):
            with_model("models: {}\n", "churn", section(FLEET, "churn"))
