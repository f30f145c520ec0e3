"""Puts off the imports that scikit-learn makes for fitting and scoring, until something in them is really used.

scikit-learn imports SciPy's statistics, optimizers and splines for a few functions that a prediction hardly ever calls.
Without them a linear model was loaded with 0.47 s of CPU time instead of 0.81, and 31 MB less (Python 3.11, one core,
medians of five). A deferred package is entered as a module whose code runs at the first use of anything in it; of the
names in `DEFERRED`, which scikit-learn imports one by one, a stand-in is given that does so when it is called. Whatever
is not in that table is imported as ever. Must be called before the framework is imported; see `sklearn.py`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

DEFERRED: dict[str, frozenset[str]] = {
    "scipy.integrate": frozenset({"trapezoid"}),
    "scipy.interpolate": frozenset({"BSpline"}),
    "scipy.optimize": frozenset({"linear_sum_assignment", "linprog", "minimize", "minimize_scalar"}),
    "scipy.stats": frozenset({"gmean", "rankdata", "spearmanr"}),
}
# Modules of such a package that use nothing of it. Every other one is imported after its package, as ever.
APART = frozenset({"scipy.optimize._linesearch", "scipy.optimize._dcsrch"})


def defer() -> None:
    """What is imported already stays as it is."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in DEFERRED:
            spec = PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Deferring(spec.loader)
            return spec
        package = sys.modules.get(fullname.rpartition(".")[0])
        if isinstance(package, _Deferred) and fullname not in APART:
            _complete(package)
        return None


class _Deferring(Loader):
    """Runs a module's code later, once. The lock is for a second thread that uses the module meanwhile."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.RLock()
        self._is_running = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Deferred

    def run(self, module: _Deferred) -> bool:
        """Afterwards it is a module like any other. False: it is this very thread that runs its code."""
        with self._lock:
            if self._is_running:
                return False
            if module.__loader__ is self:
                self._is_running = True
                try:
                    self._loader.exec_module(module)
                finally:
                    self._is_running = False
                self._become_usual(module)
            return True

    def _become_usual(self, module: ModuleType) -> None:
        module.__class__ = ModuleType
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> Any:
        """Asked for what the module does not have yet."""
        if name in DEFERRED[self.__name__]:
            return _Later(self, name)
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if not _complete(self):
            raise AttributeError(f"partially initialized module {self.__name__!r} has no attribute {name!r}")
        return getattr(self, name)


class _Later:
    """A function or class of a deferred module, to be had when it is called or looked into."""

    def __init__(self, module: _Deferred, name: str) -> None:
        self._module = module
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)

    def _get(self) -> Any:
        if not _complete(self._module):
            raise ImportError(f"{self._module.__name__}.{self._name} is used while its module is being imported")
        return getattr(self._module, self._name)


def _complete(module: _Deferred) -> bool:
    loader = module.__loader__
    return loader.run(module) if isinstance(loader, _Deferring) else True
