"""Builds the four pieces of C: the extension modules of sampling, modelling and routing, and a simulated NVML library.

``ffibuilder``, ``modelling`` and ``routing`` hand ``llmpower.h``, ``tally.h`` and ``routing.h`` to cffi as they stand;
only preprocessor lines are dropped, which is all that the headers use of the preprocessor. The simulated library is a
plain shared object that any NVML client can load, not a Python module, so :class:`BuildWithSimulator` gives it the name
and place that a loader expects.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI
from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError, LinkError

# cffi runs this file by exec, without __file__; builds always start in the project's root.
ROOT = Path(globals().get("__file__", "csrc/build.py")).resolve().parents[1]
SOURCES = (
    "budget.c",
    "deadlines.c",
    "nvml_gpu.c",
    "nvml_library.c",
    "nvml_processes.c",
    "phase.c",
    "punctual.c",
    "ring.c",
    "sampler.c",
    "source_nvml.c",
    "source_powercap.c",
    "statistics.c",
    "worker.c",
)
HEADERS = (
    "budget.h",
    "deadlines.h",
    "llmpower.h",
    "nvml_abi.h",
    "nvml_gpu.h",
    "nvml_library.h",
    "nvml_processes.h",
    "phase.h",
    "punctual.h",
    "ring.h",
    "source.h",
    "statistics.h",
    "worker.h",
)
SAMPLER = "llmpower.sampling._sampler"
MODELLING = "llmpower.modelling._tally"
ROUTING = "llmpower.routing._exchange"
SIMULATOR = "llmpower.sampling.simulated.libnvidia-ml"
SIMULATOR_SOURCES = (
    "nvml.c",
    "nvml_power.c",
    "nvml_constant.c",
    "nvml_processes.c",
    "driver.c",
    "settings.c",
    "fault.c",
    "latency.c",
    "sensor.c",
    "thermal.c",
    "ticks.c",
    "chance.c",
    "load.c",
    "preset.c",
)
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror=implicit-function-declaration", "-D_GNU_SOURCE"]
NEEDED = (
    "llmpower builds its sampler from C source and found no working C compiler with Python's headers: "
    "install them (Debian: apt install gcc python3-dev; Fedora: dnf install gcc python3-devel), or install the wheel"
)


def _declarations(header: str) -> str:
    lines = (ROOT / "csrc" / header).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


ffibuilder = FFI()
ffibuilder.cdef(_declarations("llmpower.h"))
ffibuilder.set_source(
    SAMPLER,
    '#include "llmpower.h"',
    sources=[f"csrc/{name}" for name in SOURCES],
    include_dirs=["csrc"],
    depends=[f"csrc/{name}" for name in HEADERS],
    extra_compile_args=FLAGS,
    libraries=["pthread", "dl", "m"],
    py_limited_api=True,
)

modelling = FFI()
modelling.cdef("".join(_declarations(f"modelling/{name}.h") for name in ("tally", "normal", "folds")))
modelling.set_source(
    MODELLING,
    '#include "tally.h"\n#include "normal.h"\n#include "folds.h"',
    sources=[
        f"csrc/modelling/{name}.c" for name in ("folds", "judged", "models", "normal", "strata", "stretch", "tally")
    ],
    include_dirs=["csrc/modelling"],
    depends=[
        f"csrc/modelling/{name}.h"
        for name in ("folds", "judged", "lanes", "models", "normal", "strata", "stretch", "tally")
    ],
    # Its loops are short, and gain a quarter where they are unrolled.
    extra_compile_args=[*FLAGS, "-O3"],
    libraries=["m"],
    py_limited_api=True,
)

routing = FFI()
routing.cdef(_declarations("routing/routing.h"))
routing.set_source(
    ROUTING,
    '#include "routing.h"',
    sources=[f"csrc/routing/{name}.c" for name in ("cells", "pricing", "exchange", "sums")],
    include_dirs=["csrc/routing"],
    depends=["csrc/routing/routing.h"],
    extra_compile_args=FLAGS,
    libraries=["m"],
    py_limited_api=True,
)

GENERATED = {SAMPLER: ffibuilder, MODELLING: modelling, ROUTING: routing}

simulator = Extension(
    SIMULATOR,
    sources=[f"csrc/sim/{name}" for name in SIMULATOR_SOURCES],
    include_dirs=["csrc", "csrc/sim"],
    depends=["csrc/nvml_abi.h", *(f"csrc/sim/{path.name}" for path in sorted((ROOT / "csrc/sim").glob("*.h")))],
    # Only the functions marked for export may be seen: a program can then hold the real library beside this one.
    extra_compile_args=[*FLAGS, "-fvisibility=hidden"],
    extra_link_args=["-Wl,-soname,libnvidia-ml.so.1"],
    libraries=["m", "pthread"],
)


class BuildWithSimulator(build_ext):
    """Adds the simulated NVML to the extensions and says what is missing when there is no compiler."""

    def finalize_options(self) -> None:
        """Take the simulator in before setuptools settles names and places."""
        if simulator not in self.distribution.ext_modules:
            self.distribution.ext_modules.append(simulator)
        super().finalize_options()

    def run(self) -> None:
        """Write the modules around our C in C, then compile.

        cffi_modules installs a build_ext of its own for the first half, with a placeholder among the sources; the
        class named in pyproject.toml takes its place, so the duty passes to us.
        """
        for ext in self.extensions:
            if ext.name in GENERATED:
                generated = Path(self.build_temp) / f"{ext.name.rpartition('.')[2]}.c"
                generated.parent.mkdir(parents=True, exist_ok=True)
                GENERATED[ext.name].emit_c_code(str(generated))
                ext.sources[0] = str(generated)
        super().run()

    def get_ext_filename(self, fullname: str) -> str:
        """``…/simulated/libnvidia-ml.so.1`` for the simulator; Python's own naming for the rest."""
        if fullname.endswith(SIMULATOR.rpartition(".")[2]):
            return f"{fullname.replace('.', '/')}.so.1"
        return super().get_ext_filename(fullname)

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None for the simulator: it has no PyInit function to export."""
        return [] if ext.name == SIMULATOR else super().get_export_symbols(ext)

    def build_extension(self, ext: Extension) -> None:
        """Build one; a compiler that is missing or fails becomes one sentence."""
        try:
            super().build_extension(ext)
        except (CCompilerError, CompileError, LinkError) as error:
            raise BaseError(f"{NEEDED} ({error})") from error
