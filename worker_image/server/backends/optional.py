"""Modules that a framework imports when they are installed, and that most of its models never need.

scikit-learn imports pandas so: a third of its own import time and 31 MB, for nothing unless a model was trained on
DataFrames. Hidden here while the framework is imported, it is imported later by whoever needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def hidden(module: str, *classes: str) -> Iterator[None]:
    """Within, `import module` fails as if it were not installed, unless it was imported before. With `classes` it gives
    a module with these names and no more, for a framework that asks of all that it gets whether it is one of them.
    """
    if module in sys.modules:
        yield
        return
    # None is the import system's own word for "not there".
    sys.modules[module] = _empty(module, classes) if classes else None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def _empty(name: str, classes: tuple[str, ...]) -> ModuleType:
    module = ModuleType(name)
    for each in classes:
        setattr(module, each, type(each, (), {}))
    return module
