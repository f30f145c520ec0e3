"""Models of Hugging Face's transformers, from a local folder: text in, and tensors with a row for each text out.

Owns loading (never from the hub, never code of the folder's own) and which parameters of a request reach the model.
`hub_folder.py` says what the folder holds, `text_tasks.py` what each task makes of it.
"""

from __future__ import annotations

import os

# Before the import, which reads them: a replica reaches nothing, and must not wait to find that out.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
# Its threads would come on top of those that the CPU limit allows.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from worker_image.server.backends import hub_folder
from worker_image.server.backends.base import missing_module, unreadable
from worker_image.server.backends.hub_folder import Folder
from worker_image.server.backends.pytorch import choose_device, limit_threads
from worker_image.server.backends.steps import Steps
from worker_image.server.backends.text_task import Task
from worker_image.server.backends.text_tasks import TASKS
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Signature, Tensors

_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "zero-shot-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "question-answering": "AutoModelForQuestionAnswering",
    "feature-extraction": "AutoModel",
}


def load(directory: Path, threads: int) -> TransformersModel:
    folder = hub_folder.read(directory, os.environ)
    limit_threads(threads)
    device = choose_device()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    model, tokenizer = _read(folder)
    task = TASKS[folder.task](model.to(device).eval(), tokenizer, folder)
    return TransformersModel(task, folder, device)


class TransformersModel:
    # Time goes with the length of the texts.
    is_steady = False
    # They share the CPU limit with each other and with predictions.
    max_streams = 4

    def __init__(self, task: Task, folder: Folder, device: str) -> None:
        self._task = task
        outputs = task.outputs()
        self.signature = Signature(
            platform="transformers_pytorch",
            inputs=task.inputs,
            outputs=outputs,
            default_outputs=task.default_outputs or tuple(spec.name for spec in outputs),
            scores=task.scores,
            labels=task.labels,
            takes_parameters=bool(task.options),
            facts=(("task", folder.task), ("device", device)),
            verbs=frozenset({"predict", "stream"} if task.can_stream else {"predict"}),
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        return self.predict_with(inputs, outputs, NO_PARAMETERS)

    def predict_with(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        with torch.inference_mode():
            answer = self._task.answer(inputs, self._options(parameters))
        return {name: answer[name] for name in outputs}

    def open_stream(self, inputs: Tensors, _outputs: tuple[str, ...], parameters: Parameters) -> Steps:
        return self._task.stream(inputs, self._options(parameters))

    def warmup(self) -> Tensors | None:
        return self._task.example()

    def _options(self, parameters: Parameters) -> dict[str, Any]:
        return {name: self._option(name, value) for name, value in parameters.items()}

    def _option(self, name: str, value: Any) -> Any:
        option = self._task.options.get(name)
        if option is None:
            known = ", ".join(self._task.options)
            raise ValueError(f"parameter {name!r} is not known to this task; it takes {known}")
        return option.check(name, value)


def _read(folder: Folder) -> tuple[Any, Any]:
    how = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder.directory, **how)
        model = getattr(transformers, _CLASSES[folder.task]).from_pretrained(folder.directory, **how)
    except MemoryError:
        raise
    except ModuleNotFoundError as exc:
        raise missing_module(folder.directory, exc) from exc
    except Exception as exc:
        raise _load_error(folder, exc) from exc
    return model, _padding(tokenizer, model)


def _padding(tokenizer: Any, model: Any) -> Any:
    """A tokenizer that can make a grid of texts: generative ones often have no token for what is beyond an end."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer


def _load_error(folder: Folder, exc: Exception) -> ModelFailed:
    said, here = one_line(exc), transformers.__version__
    if "trust_remote_code" in str(exc):
        problem = "brings Python code of its own, which a model's folder may not run here"
        return unreadable(folder.directory, problem, "serve it with a model.py of yours (backend python)")
    if isinstance(exc, ImportError):
        advice = "name the package in a requirements.txt beside config.json"
        return ModelFailed("MODULE_MISSING", f"{folder.directory}: {said}; {advice}")
    if "does not recognize this architecture" in str(exc) or "Unrecognized" in str(exc):
        kind, wrote = folder.config.get("model_type"), folder.config.get("transformers_version", "another release")
        reason = (
            f"{folder.directory}: model type {kind!r}, written by transformers {wrote}; {here} here does not know it"
        )
        advice = f"put `transformers=={wrote}` into a requirements.txt beside config.json"
        return ModelFailed("VERSION_SKEW", f"{reason}; {advice}")
    problem = f"cannot be read by transformers {here} for {folder.task} ({said})"
    return unreadable(folder.directory, problem, "fetch the folder again, or name its task with TRANSFORMERS_TASK")
