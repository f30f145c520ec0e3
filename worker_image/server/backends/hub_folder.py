"""A folder as Hugging Face's hub has it: whether it is whole, and for which task its model was made.

Reads files alone and imports no framework; `transformers.py` loads what this found. The task is the one that the
version names (`env: {TRANSFORMERS_TASK: …}`), else that of the model card, else the one that the model's class is for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from worker_image.server.backends.base import forbidden, unreadable
from worker_image.server.errors import ModelFailed, one_line

TASK_VARIABLE = "TRANSFORMERS_TASK"
TASKS = (
    "text-classification",
    "token-classification",
    "feature-extraction",
    "fill-mask",
    "text-generation",
    "zero-shot-classification",
    "question-answering",
)
# Other names for the same, on model cards and in older releases.
_ALIASES = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "sentence-similarity": "feature-extraction",
}
_BY_CLASS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForQuestionAnswering": "question-answering",
    "Model": "feature-extraction",
}
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")
_POINTER = b"version https://git-lfs"
_CARD = re.compile(r"\A---\s*\n.*?^pipeline_tag:\s*[\"']?([\w-]+)", re.DOTALL | re.MULTILINE)
_FETCH = "fetch the whole folder again (save_pretrained() of model and tokenizer writes one)"


class Folder(NamedTuple):
    """`config` is config.json as it is."""

    directory: Path
    config: Mapping[str, Any]
    task: str


def read(directory: Path, environ: Mapping[str, str]) -> Folder:
    config = _json(directory / "config.json")
    weights = [file for pattern in _WEIGHTS for file in sorted(directory.glob(pattern))]
    if not weights:
        raise _missing(directory, "no weights (*.safetensors, pytorch_model.bin)")
    if not any(any(directory.glob(pattern)) for pattern in _TOKENIZERS):
        raise _missing(directory, "no tokenizer (tokenizer.json)")
    try:
        for file in weights:
            _check_weights(file)
    except PermissionError as exc:
        # safetensors writes its files so that their owner alone can read them.
        raise forbidden(exc) from exc
    return Folder(directory, config, _task(directory, config, environ.get(TASK_VARIABLE, "")))


def _task(directory: Path, config: Mapping[str, Any], asked: str) -> str:
    if asked:
        task = _ALIASES.get(asked, asked)
        if task not in TASKS:
            reason = f"{TASK_VARIABLE}: {asked!r}; the tasks are {', '.join(TASKS)}; set one of them in `env`"
            raise ModelFailed("BAD_SETTINGS", reason)
        return task
    named = _on_card(directory / "README.md")
    if (task := _ALIASES.get(named, named)) in TASKS:
        return task
    classes = config.get("architectures") or []
    for name in classes:
        for ending, task in _BY_CLASS.items():
            if str(name).endswith(ending):
                return task
    problem = f"is for {named or (classes[0] if classes else 'no task that it names')}"
    advice = (
        f"the tasks served are {', '.join(TASKS)}; name one with `env: {{{TASK_VARIABLE}: …}}`, or write a model.py"
    )
    raise unreadable(directory / "config.json", problem, advice)


def _on_card(file: Path) -> str:
    try:
        match = _CARD.match(file.read_text(errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError as exc:
        raise _missing(file.parent, "no config.json") from exc
    except (OSError, ValueError) as exc:
        raise unreadable(file, f"cannot be read as JSON ({one_line(exc)})", _FETCH) from exc
    if not isinstance(content, dict):
        raise unreadable(file, "holds no JSON object", _FETCH)
    return content


def _check_weights(file: Path) -> None:
    """A pointer where the file itself should be, or a file that ends too early: both are common after a clone."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(32)
        if head.startswith(_POINTER):
            raise unreadable(file, "is a Git LFS pointer, not the weights", "run `git lfs pull` where it was cloned")
        if file.suffix == ".safetensors":
            wanted = _safetensors_bytes(head, stream.read)
            if wanted is None or size < wanted:
                said = f"is no whole safetensors file ({size} bytes{f' of {wanted}' if wanted else ''})"
                raise unreadable(file, said, _FETCH)


def _safetensors_bytes(head: bytes, more: Any) -> int | None:
    """How long such a file is by its own header: eight bytes of length, and JSON with each tensor's place."""
    length = int.from_bytes(head[:8], "little")
    if not 1 < length < 100_000_000:
        return None
    try:
        header = json.loads((head[8:] + more(max(0, length - len(head) + 8)))[:length])
        ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        return int(8 + length + max(ends, default=0))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _missing(directory: Path, what: str) -> ModelFailed:
    names = ", ".join(sorted(entry.name for entry in directory.iterdir())[:8]) if directory.is_dir() else "nothing"
    wanted = "the transformers backend reads a folder with config.json, weights and tokenizer"
    return ModelFailed("ARTIFACT_MISSING", f"{directory}: {what}, but {names or 'nothing'}; {wanted}; {_FETCH}")
