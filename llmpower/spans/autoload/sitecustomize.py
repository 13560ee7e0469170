"""Instruments transformers in a program that knows nothing of llmpower, should the program ever import it.

Python imports a module of this name from the path when it starts, so it runs in every Python that ``llmpower run``
starts, directly or through a shell or a launcher, and in the processes that those start. It imports nothing but the
standard library, and llmpower only once ``transformers.generation.utils`` has been executed. An environment that has
no llmpower of its own (a service's user rarely installs into the programs' environments) takes the one that this file
belongs to and the one library that sending spans needs, and nothing else from beside it. A ``sitecustomize`` that the
machine already had, and that this one hides, runs afterwards as if it had been found first. Nothing in here may stop
the program: what cannot be instrumented is said in one line and runs as it would have.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

_TARGET = "transformers.generation.utils"
_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib is slow to import at every start)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the one module it waits for, by way of the other finders, and then withdraws."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _instrument_after(spec)
                return spec
        return None


def _instrument_after(spec: importlib.machinery.ModuleSpec) -> None:
    """Have the module instrumented once it is executed; its loader stays what it is for everybody else."""
    loader = spec.loader
    if loader is None:
        return
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        try:
            _find_llmpower()
            from llmpower.spans import instrument

            instrument()
        except Exception as error:
            print(f"llmpower: spans are not recorded, {sys.executable}: {error}", file=sys.stderr)  # noqa: T201

    try:
        loader.exec_module = exec_module  # type: ignore[method-assign]
    except AttributeError:
        print(f"llmpower: spans are not recorded, {loader} cannot be followed", file=sys.stderr)  # noqa: T201


def _find_llmpower() -> None:
    """See to it that ``import llmpower`` finds one: the program's own, or the package around this file."""
    packages = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))  # noqa: PTH120 (as above)
    for name in ("msgspec", "llmpower"):
        if importlib.util.find_spec(name) is None:
            spec = importlib.machinery.PathFinder.find_spec(name, [packages])
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                spec.loader.exec_module(module)


def _run_hidden() -> None:
    """Run the ``sitecustomize`` further down the path, under its own name."""
    path = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]  # noqa: PTH100 (as above)
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _Finder())
    _run_hidden()
