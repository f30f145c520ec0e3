"""Finds the models in a folder and writes a first manifest of them, for `modelfleet init`.

A format is recognised by its file name and by its first bytes together; nothing is ever unpickled, imported or run.
Names come from the usual layouts (`iris/1/model.joblib`, `iris/model.py`, `iris-v2.onnx`, `iris.joblib`) and are made
legal. What is not recognised is listed with the reason: leaving a model out in silence would be worse than a long list.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.core.errors import UserError

MAX_FILES = 20_000
_HEAD_BYTES = 64 * 1024
# `{"learner":{` and what a printer may put between.
_XGBOOST_START_BYTES = 64
_LISTED_UNRECOGNISED = 20

_PICKLE_SUFFIXES = frozenset({".joblib", ".pkl", ".pickle"})
_LIGHTGBM_SUFFIXES = frozenset({".txt", ".lgb", ".lightgbm"})
_TORCH_SUFFIXES = frozenset({".pt2", ".pt", ".pth"})
_XGBOOST_SUFFIXES = frozenset({".ubj", ".json"})
# What a file of each format begins with, where that is all that there is to see.
_SIGNATURES = {
    ".skops": ("sklearn", b"PK\x03\x04", "a skops file"),
    ".cbm": ("catboost", b"CBM1", "a CatBoost model"),
}
# What belongs to the model that it lies beside.
_COMPANIONS = frozenset({"warmup.json", "labels.json", "signature.json", "pipeline.py"})
# gzip, bzip2, xz and lzma as joblib writes them: what is inside cannot be seen cheaply.
_OPAQUE_COMPRESSIONS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00")
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})

# File names that say nothing of the model: its folder's name is the better one.
_GENERIC_STEMS = frozenset({"model", "pipeline", "estimator", "classifier", "regressor"})
_VERSION = re.compile(r"v?(\d+(?:[._-]\d+)*)")
_NAME_WITH_VERSION = re.compile(r"(.+?)[-_.@ ]v(\d+(?:[._-]\d+)*)")


@dataclass(frozen=True, slots=True)
class Found:
    """One file or folder. `backend` is "" where it is not recognised, and then `reason` says why.

    `path` is relative to the folder that was searched, `source` to the place of the manifest.
    """

    path: str
    source: str = ""
    model: str = ""
    version: str = ""
    backend: str = ""
    reason: str = ""


def recognise(folder: Path, relative_to: Path | None = None) -> list[Found]:
    """Everything in `folder`, models first, each by its name. `relative_to`: where the manifest will be.

    Raises `UserError` for what is no folder. Blocks on the file system.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; models are looked for in a folder; name one that holds them")
    root = folder.resolve()
    found = _without_repeats([_look(root, path, (relative_to or root).resolve()) for path in _candidates(root)])
    return sorted(found, key=_order)


def render_manifest(found: list[Found], cluster: str) -> str:
    """A commented manifest of the recognised models, which `manifest.load` accepts as it is."""
    parts = [_HEAD.format(cluster=_scalar(legal_name(cluster).replace(".", "-").replace("_", "-")[:40].strip("-")))]
    models: dict[str, list[Found]] = {}
    for each in found:
        if each.backend:
            models.setdefault(each.model, []).append(each)
    parts.append("models:\n" if models else "models: {}                      # no model was recognised\n")
    parts += [_rendered_model(name, versions) for name, versions in models.items()]
    parts.append(_rendered_reasons([each for each in found if not each.backend]))
    return "".join(parts)


def legal_name(text: str) -> str:
    """`text` as a model's name: lower case, with a dash for what is not allowed."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:63].strip("._-") or "model"


def _order(each: Found) -> tuple[bool, str, list[int], str]:
    return not each.backend, each.model, [int(number) for number in re.findall(r"[0-9]+", each.version)], each.path


def _candidates(root: Path) -> Iterator[Path]:
    """Models that are whole folders as those, everything else as files. Hidden ones and virtual environments are passed
    over.
    """
    seen = 0
    for directory, folders, files in os.walk(root):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        if _backend_of_folder(files):
            folders.clear()
            yield Path(directory)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        seen += len(files)
        if seen > MAX_FILES:
            raise UserError(f"{root}: more than {MAX_FILES:,} files; that is no folder of models; name a smaller one")
        yield from (
            Path(directory, name) for name in sorted(files) if not name.startswith(".") and name not in _COMPANIONS
        )


def _look(root: Path, path: Path, relative_to: Path) -> Found:
    shown = os.path.relpath(path, root)
    source = os.path.relpath(_source_of(path), relative_to)
    if not source.isprintable() or "::" in source or source.startswith("~"):
        return Found(ascii(shown), reason="its name has characters that a manifest cannot hold; rename it")
    try:
        backend, reason = (_backend_of_folder(os.listdir(path)), "") if path.is_dir() else _format_of(path)
    except OSError as exc:
        backend, reason = "", f"cannot be read: {exc.strerror}"
    if not backend:
        return Found(shown, reason=reason)
    model, version = _names(root, path)
    # A leading file: would be read as a URL.
    source = f"./{source}" if source.startswith("file:") else source
    return Found(shown, source, model, version, backend)


def _backend_of_folder(files: list[str]) -> str:
    """By the file that says what the folder is; "" where none does."""
    if "model.py" in files:
        return "python"
    if "MLmodel" in files:
        return "mlflow"
    has_weights = any(name.endswith(".safetensors") or name.startswith("pytorch_model") for name in files)
    return "transformers" if "config.json" in files and has_weights else ""


def _format_of(path: Path) -> tuple[str, str]:
    """(backend, "") or ("", why not)."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return "", "not a regular file"
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        return "", "empty"
    if suffix in _PICKLE_SUFFIXES:
        reason = _why_no_sklearn(head)
        return ("", reason) if reason else ("sklearn", "")
    if suffix == ".onnx":
        # The first field of an ONNX file is its ir_version: tag 0x08 and a small number.
        is_onnx = len(head) > 1 and head[0] == 0x08 and 0 < head[1] < 0x80
        return ("onnx", "") if is_onnx else ("", "ends in .onnx, but does not begin like an ONNX file")
    if suffix in _LIGHTGBM_SUFFIXES:
        is_tree = head.split(b"\n", 1)[0].rstrip(b"\r") == b"tree"
        return ("lightgbm", "") if is_tree else ("", "a text, but not a LightGBM model: its first line is not `tree`")
    if suffix in _TORCH_SUFFIXES:
        reason = _why_no_torch(path)
        return ("", reason) if reason else ("pytorch", "")
    if suffix in _XGBOOST_SUFFIXES:
        is_xgboost = head[:1] == b"{" and b"learner" in head[:_XGBOOST_START_BYTES]
        return ("xgboost", "") if is_xgboost else ("", f"ends in {suffix}, but does not begin like an XGBoost model")
    if suffix in _SIGNATURES:
        backend, start, what = _SIGNATURES[suffix]
        return (backend, "") if head.startswith(start) else ("", f"ends in {suffix}, but does not begin like {what}")
    return "", f"{suffix or 'no suffix'}: not a format of a model that is known here"


def _why_no_sklearn(head: bytes) -> str:
    """Looks at bytes alone: a pickle is a program, and reading it would run it."""
    if head.startswith(_OPAQUE_COMPRESSIONS):
        return ""
    if head[:1] == b"\x78":
        try:
            head = zlib.decompressobj().decompress(head, _HEAD_BYTES)
        except zlib.error:
            return "does not begin like a pickle"
    if head[:1] != b"\x80" or head[1:2] > b"\x05":
        return "does not begin like a pickle"
    if library := next((name for name in ("xgboost", "lightgbm", "catboost") if name.encode() in head), ""):
        return f"a pickle of {library}; save it with save_model(), or serve it as sklearn with a requirements.txt"
    if b"sklearn" not in head:
        return "a pickle, but not of scikit-learn; load it in a model.py of your own (backend python)"
    return ""


def _why_no_torch(path: Path) -> str:
    """TorchScript and exported programs hold their code; the names in the archive say whether it is one of them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return "not a file that PyTorch wrote, or not a whole one"
    if "constants.pkl" in names or any(name.startswith("models/") for name in names):
        return ""
    if "data.pkl" in names:
        return "weights or a pickled module without its code; export it (docs/models/pytorch.md says how)"
    return "a zip archive, but not of PyTorch"


def _source_of(path: Path) -> Path:
    """A folder of one model is the source when it is one of a version or holds what belongs to the model; else the file
    by itself.
    """
    if path.is_dir():
        return path
    beside = [each for each in path.parent.iterdir() if each != path]
    if not _VERSION.fullmatch(path.parent.name) and not any(_belongs_to(each, path) for each in beside):
        return path
    suffixes = _PICKLE_SUFFIXES | _TORCH_SUFFIXES | _SIGNATURES.keys() | {".onnx", ".ubj", path.suffix.lower()}
    others = [each for each in beside if each.suffix.lower() in suffixes and each.name not in _COMPANIONS]
    return path if others else path.parent


def _belongs_to(file: Path, model: Path) -> bool:
    """An ONNX model's weights may lie in files of their own, mostly `model.onnx.data` or `model.onnx_data`."""
    return file.name in _COMPANIONS or (model.suffix.lower() == ".onnx" and file.name.startswith(model.name))


def _names(root: Path, path: Path) -> tuple[str, str]:
    """(model, version) from the names of the file and its folders, `root` the outermost of them."""
    is_file = path.is_file()
    relative = path.relative_to(root)
    parts = [root.name, *(relative.with_suffix("") if is_file else relative).parts]
    own = parts[-1]
    if (version := _VERSION.fullmatch(own)) and len(parts) > 1:
        return legal_name(parts[-2]), version[1]
    if is_file and len(parts) > 2 and (version := _VERSION.fullmatch(parts[-2])):
        return legal_name(parts[-3]), version[1]
    number = "1"
    if named := _NAME_WITH_VERSION.fullmatch(own):
        own, number = named[1], named[2]
    if own.lower() in _GENERIC_STEMS and len(parts) > 1:
        own = parts[-2]
    return legal_name(own), number


def _without_repeats(found: list[Found]) -> list[Found]:
    """The first of each name and version stays; the others are listed, for only their author knows which is meant."""
    taken: dict[tuple[str, str], str] = {}
    checked = []
    for each in found:
        first = taken.setdefault((each.model, each.version), each.path) if each.backend else each.path
        reason = f"would be a second version {each.version} of {each.model}, beside {first}; rename one"
        checked.append(each if first == each.path else replace(each, backend="", reason=reason))
    return checked


_HEAD = """\
# Made by `modelfleet init`. docs/MANIFEST.md has every field; `modelfleet validate` checks, `modelfleet apply` applies.
cluster: {cluster}
# engine: docker                # or process: the same as local subprocesses, without Docker

gateway:
  port: 8080

# Latency, replicas and alerts at http://localhost:9090, dashboards at http://localhost:3000.
# observability: {{prometheus: managed, grafana: managed}}

# What each version gets unless it says otherwise.
defaults:
  resources: {{cpus: 1, memory: 512Mi}}
  scaling: {{min: 1}}             # how many replicas of each version

"""


def _rendered_model(name: str, versions: list[Found]) -> str:
    lines = [f"  {_scalar(name)}:\n", "    versions:\n"]
    lines += [
        f"      {json.dumps(each.version)}: {{source: {_scalar(each.source)}, backend: {each.backend}}}\n"
        for each in versions
    ]
    if len(versions) > 1:
        lines.append('    # traffic: percent for each version, as {"1": 90, "2": 10}; without it the newest gets all\n')
    return "".join(lines) + "\n"


def _rendered_reasons(unrecognised: list[Found]) -> str:
    if not unrecognised:
        return ""
    lines = [f"#   {each.path}: {each.reason}\n" for each in unrecognised[:_LISTED_UNRECOGNISED]]
    more = len(unrecognised) - len(lines)
    return "".join(["# Not recognised:\n", *lines, f"#   and {more} more\n" if more else ""])


def _scalar(text: str) -> str:
    """`text` as YAML: plain where no reader could take it for anything else."""
    is_plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS
    return text if is_plain else json.dumps(text, ensure_ascii=False)


_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
