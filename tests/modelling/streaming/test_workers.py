"""Real worker processes of Dask against one process; one of them is killed in the middle."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask import config
from distributed import Client, Worker
from pynvml import NVML_ERROR_UNINITIALIZED

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.streaming import fit_datasets
from llmpower.modelling.streaming.reading import KEEPING, keeps_pages
from llmpower.modelling.streaming.workers import local_client, on_workers, scanner_of
from llmpower.routing.problem.counting import count_datasets
from llmpower.sampling import Sampler, simulated_library

Make = Callable[..., pd.DataFrame]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_client(2) as client:
        yield client


def test_workers_give_what_one_process_gives_even_if_one_is_killed(client: Client, make: Make, write: Write) -> None:
    root = str(write(*(make(4000, seed=seed, traffic=True) for seed in range(6))))
    alone = fit_datasets([root])
    killed: list[int] = []
    heard: list[tuple[int, int]] = []

    def tell(read: int, rows: int) -> None:
        heard.append((read, rows))
        if not killed:
            # What it has read is lost with it, and what it was reading.
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    together = fit_datasets([root], scanner=scanner_of(client, tell, least_rows=1000))
    assert killed
    assert heard[-1] == (24000, 24000)
    for ours, theirs in zip(together.models, alone.models, strict=True):
        for one, other in ((ours.energy, theirs.energy), (ours.runtime, theirs.runtime)):
            assert (one.label, one.n_obs, one.n_cells) == (other.label, other.n_obs, other.n_cells)
            np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=1e-9)
            assert one.heldout.mape == pytest.approx(other.heldout.mape, rel=1e-9)
    assert together.screening == alone.screening


def test_workers_give_the_same_digits_every_time(client: Client, make: Make, write: Write) -> None:
    root = str(write(*(make(2000, seed=seed, traffic=True) for seed in range(6)), name="again"))
    once, again = (fit_datasets([root], scanner=scanner_of(client, least_rows=1000)) for _ in range(2))
    for ours, theirs in zip(once.models, again.models, strict=True):
        np.testing.assert_array_equal(ours.energy.coefficients, theirs.energy.coefficients)
        np.testing.assert_array_equal(ours.energy.covariance, theirs.energy.covariance)


def test_local_workers_keep_the_memory_of_arrays_and_one_thread(client: Client) -> None:
    for environment in client.run(lambda: dict(os.environ)).values():
        assert int(environment["MALLOC_TRIM_THRESHOLD_"]) > 1 << 25
        assert environment["OMP_NUM_THREADS"] == "1"
    backends = client.run(lambda: pa.default_memory_pool().backend_name).values()
    assert set(backends) == {KEEPING if keeps_pages() else pa.default_memory_pool().backend_name}


def test_local_workers_are_looked_at_by_the_second_and_their_stacks_never(client: Client) -> None:
    for periods_ms, profiled in client.run(looked_at).values():
        assert {"tick", "monitor", "memory_monitor"} <= periods_ms.keys()
        assert min(periods_ms[name] for name in ("tick", "monitor", "memory_monitor")) >= 1000
        assert not profiled


def looked_at(dask_worker: Worker) -> tuple[dict[str, float], bool]:
    periods_ms = {name: callback.callback_time for name, callback in dask_worker.periodic_callbacks.items()}
    return periods_ms, config.get("distributed.worker.profile.enabled")


def test_workers_count_a_plans_queries_as_one_process_does(client: Client, make: Make, write: Write) -> None:
    root = str(write(*(make(4000, seed=seed, traffic=True) for seed in range(3)), name="queries"))
    together, alone = count_datasets([root], scanner=scanner_of(client, least_rows=1000)), count_datasets([root])
    assert alone.n_queries == 12000
    for name in ("input_tokens", "output_tokens", "count"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))


def test_what_a_worker_refuses_is_refused_in_the_same_words(client: Client, make: Make, write: Write) -> None:
    bad = make(300, seed=2)
    bad.loc[7, "runtime_s"] = -1.0
    root = str(write(make(300), bad))
    with pytest.raises(FitError) as here:
        fit_datasets([root])
    with pytest.raises(FitError) as there:
        fit_datasets([root], scanner=scanner_of(client))
    assert str(there.value) == str(here.value)


def test_an_address_without_a_scheduler_is_refused() -> None:
    with pytest.raises(InputError, match="--dask"), on_workers("tcp://127.0.0.1:1", connect_s=1):
        pass


def test_the_port_of_dasks_dashboard_is_left_to_others() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody has it already
            other.bind(("127.0.0.1", 8787))
            other.listen()
        with warnings.catch_warnings(action="error"), local_client(1):
            pass


def test_workers_of_this_machine_leave_its_gpus_alone() -> None:
    # By its name in the process Dask would find the simulated library, as it would the driver's.
    with Sampler(backend="simulated", powercap_root=None), local_client(1):
        pass
    count = ctypes.CDLL(str(simulated_library())).nvmlDeviceGetCount_v2
    assert count(ctypes.byref(ctypes.c_uint())) == NVML_ERROR_UNINITIALIZED
