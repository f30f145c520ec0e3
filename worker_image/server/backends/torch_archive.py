"""What a file of PyTorch's holds, by its bytes alone: nothing of it is run, and PyTorch is not imported.

Two kinds can be served, for they hold the model's code: TorchScript and exported programs. Weights alone and pickled
modules need Python source that is not here, so they are refused with the sentence that says how to export them.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path

from worker_image.server.backends.base import unreadable
from worker_image.server.errors import ModelFailed

# The record that ends a zip archive without a comment; PyTorch writes none.
_END_BYTES = 22

SCRIPT = "torchscript"
EXPORTED = "exported"

HOW_TO_EXPORT = (
    "export it where its class is: torch.export.save(torch.export.export(model.eval(), (example,), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), 'model.pt2'), or torch.jit.script(model.eval()).save('model.pt')"
)
# The first bytes of a pickle, of any protocol that torch.save has ever written.
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
# What a state_dict is made of; any other name is that of a class.
_OF_WEIGHTS = re.compile(r"(collections|builtins|__builtin__|torch\.nn\.parameter|torch\._utils) |torch \w+$|numpy")


def kind_of(file: Path) -> str:
    """`SCRIPT` or `EXPORTED`; raises `ModelFailed` for everything else."""
    if not _ends_as_archive(file):
        raise _no_archive(file)
    try:
        with zipfile.ZipFile(file) as archive:
            return _kind(file, archive)
    except zipfile.BadZipFile as exc:
        raise _no_archive(file) from exc


def _ends_as_archive(file: Path) -> bool:
    """An exported program has an archive inside, which a reader of zip files takes for the whole of a truncated one."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _END_BYTES))
        return stream.read(4) == b"PK\x05\x06"


def _kind(file: Path, archive: zipfile.ZipFile) -> str:
    # All names lie below one folder, whose name is the file's when it was saved.
    names = {name.partition("/")[2] or name for name in archive.namelist()}
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return SCRIPT
    if any(re.fullmatch(r"models/.+\.json", name) for name in names) or "serialized_exported_program.json" in {
        name.rpartition("/")[2] for name in archive.namelist()
    }:
        return EXPORTED
    if any(name.startswith("data/aotinductor/") for name in names):
        advice = "save the exported program itself with torch.export.save()"
        raise unreadable(file, "holds a program that AOTInductor compiled for one kind of machine", advice)
    if "data.pkl" in names:
        (pickled,) = (name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
        raise _pickled(file, archive.read(pickled))
    raise unreadable(file, "is a zip archive, but none that PyTorch wrote", HOW_TO_EXPORT)


def _no_archive(file: Path) -> ModelFailed:
    with file.open("rb") as stream:
        head = stream.read(2)
    size = file.stat().st_size
    if head == b"PK":
        return unreadable(file, f"is no whole file ({size} bytes, its end is missing)", "copy or save it again")
    if _PICKLE.match(head):
        return unreadable(file, "holds pickled Python objects of a PyTorch before 1.6", HOW_TO_EXPORT)
    return unreadable(file, f"is no file that PyTorch wrote ({size} bytes)", HOW_TO_EXPORT)


def _pickled(file: Path, content: bytes) -> ModelFailed:
    named = _classes(content)
    if named:
        problem = f"holds a pickled {named[0]}, whose Python source is not in the file"
        return unreadable(file, problem, HOW_TO_EXPORT)
    return unreadable(file, "holds weights alone (a state_dict), no model that could be run", HOW_TO_EXPORT)


def _classes(content: bytes) -> list[str]:
    """The names of classes in a pickle that are not those of plain weights."""
    try:
        globals_ = [str(argument) for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"]
    except ValueError:
        return []
    return [name.replace(" ", ".") for name in globals_ if not _OF_WEIGHTS.match(name)]
