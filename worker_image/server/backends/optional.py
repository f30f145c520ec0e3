"""Modules that a framework imports when they are installed, and that most of its models never need.

scikit-learn imports pandas so: a third of its own import time and 31 MB, for nothing unless a model was trained on
DataFrames. Hidden here while the framework is imported, it is imported later by whoever needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Within, `import module` fails as if it were not installed, unless it was imported before."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own word for "not there"
    try:
        yield
    finally:
        del sys.modules[module]
