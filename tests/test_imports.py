"""The architecture holds: layers are kept, there are no cycles, and light parts load nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmpower

PACKAGE = Path(llmpower.__file__).parent

# Each layer may import those below it; packages of one layer do not import each other.
FLOORS = (
    ("exceptions", "phrases", "units", "types"),
    ("documents", "files", "places", "serving"),
    ("tables",),
    ("sampling", "spans", "attribution", "store", "metrics", "modelling", "service"),
    ("profiling", "routing", "daemon"),
    ("report", "inprocess", "gateways"),
    ("cli",),
    ("__main__",),
)
ALLOWED_ABOVE_THE_GROUND = {
    "profiling": {"spans", "store"},
    "routing": {"modelling"},
    "report": {"modelling", "routing"},
    "gateways": {"routing"},
    "inprocess": {"sampling", "spans", "store", "daemon"},
}
FLOORS_WITHIN = {
    "daemon": ("receiving", "otlp", "storing", "comparing", "accounting"),
    "modelling": ("rows", "screening", "regressing", "fitted", "judging", "streaming"),
    "routing": ("problem", "solving", "costing", "tradeoffs", "plans", "policies", "online", "replaying"),
}
TORCH_MAY_BE_IMPORTED_IN = ("spans/transformers/", "profiling/")
HEAVY = (
    "torch",
    "transformers",
    "pandas",
    "scipy",
    "statsmodels",
    "altair",
    "vl_convert",
    "pyarrow",
    "fsspec",
    "distributed",
    "pycparser",
    "google.protobuf",  # with the first request by OpenTelemetry
)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield parts[0] if parts[0] != "__init__" else "llmpower", path


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so at run time (not for type checkers alone)."""

    def walk(node: ast.AST, at_run_time: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_run_time) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield child.module or "", at_run_time
                yield from ((f"{child.module}.{alias.name}", at_run_time) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(child, False)
            else:
                yield from walk(child, at_run_time)

    return walk(ast.parse(path.read_text(encoding="utf-8")), True)


def floor_of(station: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if station in floor)


def test_every_station_stands_on_a_floor() -> None:
    stations = {station for station, _ in modules()} - {"llmpower"}
    assert stations == {station for floor in FLOORS for station in floor}


def test_floors_are_kept() -> None:
    wrong = []
    for station, path in modules():
        if station == "llmpower":
            continue
        for name, _ in imported(path):
            parts = name.split(".")
            if parts[0] != "llmpower" or len(parts) < 2 or parts[1] == station:
                continue
            other = parts[1]
            if other == "__version__":
                continue
            below = floor_of(other) < floor_of(station)
            ground = floor_of(other) < floor_of("sampling")
            allowed = ALLOWED_ABOVE_THE_GROUND.get(station)
            if not below or not (ground or allowed is None or other in allowed):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("station", FLOORS_WITHIN)
def test_floors_within_a_station_are_kept(station: str) -> None:
    """Each part imports those before it, for type checkers too; what lies beside the parts may use all of them."""
    place = {part: number for number, part in enumerate(FLOORS_WITHIN[station])}
    assert set(place) == {path.parent.name for path in (PACKAGE / station).glob("*/__init__.py")}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sorted((PACKAGE / station).glob("*/*.py"))
        for name, _ in imported(path)
        if name.startswith(f"llmpower.{station}.") and place.get(name.split(".")[2], -1) > place[path.parent.name]
    ]
    assert wrong == []


def test_there_is_no_circle() -> None:
    """Among modules that are loaded together: imports inside functions are the way to break one, and count too."""
    edges: dict[str, set[str]] = {}
    names = {
        ".".join(("llmpower", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for _, path in modules()
    }
    for name, path in names.items():
        # A package's __init__ re-exports what its modules define: it is not a stage of its own.
        edges[name] = {
            target
            for target, at_run_time in imported(path)
            if at_run_time and target in names and target != name and names[target].name != "__init__.py"
        }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in edges[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in names:
        visit(name, ())


def test_torch_is_imported_in_two_places_only() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for _, path in modules()
        for name, at_run_time in imported(path)
        if at_run_time and name.split(".")[0] in ("torch", "transformers")
    }
    assert found
    assert [path for path in found if not path.startswith(TORCH_MAY_BE_IMPORTED_IN)] == []


@pytest.mark.parametrize(
    "statement",
    [
        "import llmpower",
        "import llmpower.daemon.loop, llmpower.store, llmpower.metrics, llmpower.spans, llmpower.spans.otlp",
        "import llmpower.cli.main, llmpower.cli.daemon, llmpower.cli.status",
        "import llmpower.inprocess",
        "import llmpower.modelling, llmpower.routing, llmpower.report",
    ],
)
def test_what_is_light_loads_nothing_heavy(statement: str) -> None:
    program = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_the_daemon_lets_blas_have_no_threads() -> None:
    program = (
        "import os, llmpower.cli.daemon, llmpower.exceptions\n"
        "try: llmpower.cli.daemon.command(['--config', '/no/such/file'], standalone_mode=False)\n"
        "except llmpower.exceptions.InputError: import numpy\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environ
    )
    assert done.stdout.split() == ["1"]


def test_what_measures_loads_no_masked_arrays() -> None:
    # NumPy loads them at the first median or set of values, and they are a sixth of the daemon's memory.
    program = (
        "import sys, time, llmpower\n"
        "monitor = llmpower.Monitor(backend='simulated')\n"
        "time.sleep(4)\n"  # calibration takes 3 s
        "with llmpower.span(model_name='m', input_tokens=1) as span: time.sleep(0.3)\n"
        "assert span.energy_j > 0\n"
        "monitor.close()\n"
        "print('numpy' in sys.modules, 'numpy.ma' in sys.modules)"
    )
    environ = os.environ | {"LLMPOWER_SIM_FAULT": "no_energy"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environ
    )
    assert done.stdout.split() == ["True", "False"]


def test_the_grid_of_a_slow_counter_is_found_without_masked_arrays() -> None:
    program = (
        "import sys\n"
        "from llmpower.attribution.ticks.grid import Grid\n"
        "grid = Grid()\n"
        "for number in range(9): grid.learn(number * 100_000_000, number * 100_000_000 + 1_000_000)\n"
        "print(round(grid.period_ns, -3), 'numpy.ma' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["100000000.0", "False"]


def test_importing_the_package_and_the_command_line_loads_not_even_numpy() -> None:
    program = "import llmpower, llmpower.cli.main, sys; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_each_extension_in_c_has_one_door() -> None:
    doors = {
        "sampling/low_level.py": "._sampler",
        "modelling/kernels.py": "._tally",
        "routing/pointers.py": "._exchange",
    }
    found = {
        str(path.relative_to(PACKAGE)): name
        for _, path in modules()
        for name, _ in imported(path)
        if name.endswith(tuple(doors.values()))
    }
    assert set(found) == set(doors)
    assert all(found[path].endswith(extension) for path, extension in doors.items())
    assert {
        str(path.relative_to(PACKAGE))
        for _, path in modules()
        for name, _ in imported(path)
        if name.split(".")[0] == "cffi"
    } == {"sampling/low_level.py"}
