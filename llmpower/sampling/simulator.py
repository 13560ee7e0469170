"""The simulated card, as Python sees it: where its library lies, how it is set up, what it truly used.

The library reads its settings from the environment when NVML is initialised (csrc/sim/settings.h lists them).
:func:`simulation` sets them for the length of a ``with`` block, for tests and benchmarks that run in one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmpower.exceptions import DeviceError
from llmpower.files import replacing
from llmpower.sampling import low_level

PREFIX = "LLMPOWER_SIM_"


def simulated_library() -> Path:
    """The shipped ``libnvidia-ml.so.1``.

    Raises:
        DeviceError: it was not built, which a wheel or an install with a compiler does.
    """
    path = Path(__file__).parent / "simulated" / "libnvidia-ml.so.1"
    if not path.is_file():
        raise DeviceError(
            "simulated NVML", path, "it is not there; install llmpower again (pip install --force-reinstall)"
        )
    return path


@contextmanager
def simulation(**settings: object) -> Iterator[Path]:
    """Set ``LLMPOWER_SIM_<NAME>`` for each setting, yield the library's path, put the environment back.

    Example:
        ``with simulation(preset="v100", load="square:60,280,1.5") as library: ...``
    """
    names = {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield simulated_library()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def library_without(symbols: Iterable[str], directory: Path) -> Path:
    """Write a copy of the simulated library that lacks these functions, as that of an old driver does.

    Their names are changed in the copy's string table, where the loader looks them up and nobody else does: for any
    function this needs neither a compiler nor a library built for the purpose.

    Args:
        symbols: names such as ``nvmlDeviceGetTotalEnergyConsumption``.
        directory: where ``libnvidia-ml.so.1`` is written.

    Raises:
        DeviceError: the library has no such function.
    """
    content = simulated_library().read_bytes()
    for symbol in symbols:
        name = b"\0" + symbol.encode() + b"\0"
        if name not in content:
            raise DeviceError("simulated NVML symbol", symbol, "the library exports no such function; see csrc/sim")
        content = content.replace(name, name[:-2] + b"~\0")
    path = directory / "libnvidia-ml.so.1"
    with replacing(path) as temporary:  # a process that has the old one mapped keeps it
        temporary.write_bytes(content)
    return path


def true_energy_j(gpu: int, time_ns: int, library: Path | None = None) -> float | None:
    """Joules that the simulated GPU has truly used from ``CLOCK_MONOTONIC`` zero to ``time_ns``.

    ``None`` when the moment lies in the future, or longer ago than the CPU drive remembers. The simulation must be
    open in this process (a :class:`~llmpower.sampling.Sampler` on it).
    """
    return low_level.true_energy_j(str(library or simulated_library()), gpu, time_ns)
