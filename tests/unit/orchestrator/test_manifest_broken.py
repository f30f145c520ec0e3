"""Every broken manifest of `manifests/` says exactly what its `.txt` holds: a change of words shows in a diff.

`NAME.yaml` is the manifest, `NAME.txt` its messages, one a line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.manifest import ManifestError, load

BROKEN = sorted((Path(__file__).parent / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_says_all_that_is_wrong_with(path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load(path.read_text(), file="models.yaml", base_dir=Path("/"))

    assert str(caught.value).splitlines() == path.with_suffix(".txt").read_text().splitlines()


def test_there_are_broken_manifests_and_each_has_its_messages() -> None:
    assert len(BROKEN) >= 60
    assert {path.stem for path in BROKEN} == {path.stem for path in BROKEN[0].parent.glob("*.txt")}
