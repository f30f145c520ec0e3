"""What a file of PyTorch's is, told from its bytes: needs no PyTorch. test_pytorch.py has files that PyTorch wrote."""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path

import pytest

from worker_image.server.backends.torch_archive import EXPORTED, SCRIPT, kind_of
from worker_image.server.errors import ModelFailed


class Net:
    """A class of somebody's training script."""


def archive(tmp_path: Path, **members: bytes) -> Path:
    file = tmp_path / "model.pt"
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members.items():
            made.writestr(f"model/{name.replace('__', '/').replace('_dot_', '.')}", content)
    return file


class TestKindOf:
    def test_tells_the_two_kinds_that_hold_their_code(self, tmp_path: Path) -> None:
        assert kind_of(archive(tmp_path, data_dot_pkl=b"", constants_dot_pkl=b"", code__net_dot_py=b"")) == SCRIPT
        assert kind_of(archive(tmp_path, archive_format=b"pt2", models__model_dot_json=b"{}")) == EXPORTED

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (collections.OrderedDict(weight=1.0), "holds weights alone (a state_dict)"),
            ({"model": collections.OrderedDict(), "epoch": 1}, "holds weights alone (a state_dict)"),
            (Net(), "holds a pickled test_torch_archive.Net"),
        ],
    )
    def test_pickled_objects_are_named_and_never_loaded(self, tmp_path: Path, content: object, said: str) -> None:
        file = archive(
            tmp_path,
            data_dot_pkl=pickle.dumps(content, protocol=2).replace(Net.__module__.encode(), b"test_torch_archive"),
        )

        with pytest.raises(ModelFailed) as failed:
            kind_of(file)

        assert said in failed.value.reason
        assert "torch.jit.script(model.eval()).save('model.pt')" in failed.value.reason

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is no file that PyTorch wrote (0 bytes)"),
            (b"hello", "is no file that PyTorch wrote (5 bytes)"),
            (b"PK\x03\x04 and no end", "is no whole file (15 bytes, its end is missing)"),
            (pickle.dumps({}, protocol=2), "holds pickled Python objects of a PyTorch before 1.6"),
        ],
    )
    def test_what_is_no_archive_is_refused(self, tmp_path: Path, content: bytes, said: str) -> None:
        (tmp_path / "model.pt").write_bytes(content)

        with pytest.raises(ModelFailed) as failed:
            kind_of(tmp_path / "model.pt")

        assert failed.value.exit_code == 65
        assert said in failed.value.reason

    def test_other_archives_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFailed, match="none that PyTorch wrote"):
            kind_of(archive(tmp_path, readme=b""))
        with pytest.raises(ModelFailed, match="AOTInductor compiled for one kind of machine"):
            kind_of(archive(tmp_path, data__aotinductor__model__x_dot_so=b""))

    def test_a_truncated_archive_is_not_taken_for_one_that_lies_inside_it(self, tmp_path: Path) -> None:
        inner = archive(tmp_path, data_dot_pkl=b"").read_bytes()
        file = archive(tmp_path, models__model_dot_json=b"{}", data__sample_inputs__model_dot_pt=inner)
        whole = file.read_bytes()
        file.write_bytes(whole[: whole.rindex(b"PK\x01\x02", 0, whole.index(b"sample_inputs") + len(inner) + 200)])

        with pytest.raises(ModelFailed, match="is no whole file"):
            kind_of(file)
