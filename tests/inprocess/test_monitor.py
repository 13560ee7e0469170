"""Measuring in the program itself, on the simulated card, whose true joules are known in this process."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llmpower
from llmpower.exceptions import DeviceError
from llmpower.inprocess import Monitor
from llmpower.sampling import simulation, true_energy_j
from llmpower.spans import OpenSpan, SpanClient, current_sink
from llmpower.types import Span


@contextmanager
def monitoring(**settings: Any) -> Iterator[Monitor]:
    with simulation(**{"load": "cpu", **settings}), Monitor(backend="simulated", powercap_root=None) as monitor:
        yield monitor


@pytest.fixture(scope="module")
def monitor() -> Iterator[Monitor]:
    with monitoring() as monitor:
        yield monitor


def work(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


def true_j(call: OpenSpan) -> float:
    found = call.measurement()
    assert found is not None
    start_j, end_j = true_energy_j(0, found.span.start_ns), true_energy_j(0, found.span.end_ns)
    assert start_j is not None
    assert end_j is not None
    return end_j - start_j


@pytest.mark.usefixtures("monitor")
def test_one_may_wait_for_as_long_as_it_takes() -> None:
    with llmpower.span(model_name="llama") as call:
        work(0.05)
    assert call.measurement(float("inf")) is not None


def test_blocks_cost_what_the_card_truly_used(monitor: Monitor) -> None:
    calls = []
    for _ in range(4):
        with llmpower.span(model_name="llama", input_tokens=5) as call:
            work(0.4)
        calls.append(call)
        time.sleep(0.2)
    for call in calls:
        assert call.energy_j == pytest.approx(true_j(call), rel=0.15)
        assert call.energy_std_j is not None
        assert 0 < call.energy_std_j < 0.2 * true_j(call)
        assert call.quality == "interpolated"
    assert sum(call.energy_j or 0.0 for call in calls) == pytest.approx(sum(map(true_j, calls)), rel=0.05)
    found = [measurement.span.span_id for measurement in monitor.measurements()]
    assert found[-4:] == [call.span_id for call in calls]
    last = calls[-1].measurement()
    assert last is not None
    assert last.simulated
    assert last.cpu_energy_j is None
    assert (last.span.model_name, last.span.input_tokens, last.span.device_uuids) == (
        "llama",
        5,
        tuple(device.uuid for device in monitor.devices),
    )


def test_what_is_shown_of_a_span(monitor: Monitor) -> None:
    with monitor.span(model_name="llama") as call:
        assert (str(call), call.energy_j, call.quality) == ("still running", None, "unavailable")
        work(0.3)
    assert repr(call) == "<span of llama: no joules yet>", "a repr does not wait"
    shown = str(call)
    assert shown.endswith(" J (interpolated, SIMULATED)")
    assert " ± " in shown
    assert repr(call) == f"<span of llama: {shown}>"
    said: list[str] = []
    call._repr_pretty_(SimpleNamespace(text=said.append), False)
    assert said == [shown]
    assert "SIMULATED" in repr(monitor)
    with pytest.raises(KeyError), monitor.span(model_name="llama") as failed:
        raise KeyError
    assert (str(failed), failed.energy_j) == ("withdrawn", None)
    with monitor.span(model_name="llama") as later:
        work(0.05)
    assert later.energy_j is not None, "what failed keeps nobody waiting"


def test_a_span_that_begins_wakes_a_monitor_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmpower.inprocess.meter.REST_AFTER_S", 0.0)
    monkeypatch.setattr("llmpower.inprocess.meter.RESTING_STEP_S", 600.0)
    with monitoring() as monitor:
        time.sleep(0.2)  # it has looked about and rests
        deadline_s = time.monotonic() + 30
        with monitor.span(model_name="llama"):
            while not monitor._meter._engine.snapshot.spans_running:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)


def test_overlapping_blocks_of_threads_share_what_was_used_in_all(monitor: Monitor) -> None:
    calls: list[OpenSpan] = []

    def run() -> None:
        with monitor.span(model_name="llama") as call:
            call.output_tokens = 4
            time.sleep(0.5)
        calls.append(call)

    with monitor.span(model_name="around") as around:
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [call.measurement() for call in (*calls, around)]
    assert all(measurement is not None and measurement.allocated for measurement in found)
    whole_j = sum(measurement.energy_j or 0.0 for measurement in found if measurement is not None)
    assert whole_j == pytest.approx(true_j(around), rel=0.15)


def test_a_span_that_cannot_be_is_not_measured_and_nobody_waits_for_it(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    with monitor.span(model_name="llama") as call:
        call.output_tokens = "many"  # type: ignore[assignment] # what the test is about
    before_s = time.monotonic()
    assert call.measurement(30.0) is None
    assert time.monotonic() - before_s < 10
    assert "output_tokens = 'many'" in caplog.text
    with monitor.span(model_name="llama") as call:
        call.attributes = None  # type: ignore[assignment]
    assert "attributes = None" in caplog.text
    now_ns = time.monotonic_ns()
    future = Span("future", "llama", None, now_ns, None, now_ns + 10**12, 1, 1, 1, "host", 1)
    monitor.finish(future)
    assert monitor.measurement(future, 30.0) is None
    assert time.monotonic() - before_s < 20


def test_generate_calls_inside_a_block_belong_to_it(monitor: Monitor, tiny_llama: Any) -> None:
    import torch

    prompt = torch.arange(3, 9).unsqueeze(0)
    llmpower.instrument(tiny_llama)
    try:
        with monitor.span(model_name="around") as around:
            tiny_llama.generate(prompt, max_new_tokens=2, do_sample=False)
        assert llmpower.last_span() is around
        tiny_llama.generate(prompt, max_new_tokens=8, do_sample=False)
        call = llmpower.last_span()
    finally:
        llmpower.uninstrument(tiny_llama)
    assert call is not None
    assert call is not around
    found = call.measurement()
    assert found is not None
    assert found.energy_j is not None
    assert (found.span.input_tokens, found.span.output_tokens) == (6, 8)
    assert found.prefill_energy_j is not None


def test_a_thread_sees_its_own_last_span(monitor: Monitor) -> None:
    seen = []
    with monitor.span(model_name="mine") as mine:
        pass
    thread = threading.Thread(target=lambda: seen.append(llmpower.last_span()))
    thread.start()
    thread.join()
    assert seen == [None]
    assert llmpower.last_span() is mine


def test_a_forked_child_measures_nothing_and_breaks_nothing(monitor: Monitor) -> None:
    with monitor.span(model_name="llama") as call:
        child = os.fork()
        if child == 0:
            # Leaves its parent's block, then has one of its own; its Monitor is none, and closing it is harmless.
            status = 1
            try:
                with llmpower.span(model_name="child") as own:
                    pass
                monitor.close()
                status = 0 if (own.energy_j, call.energy_j) == (None, None) else 2
            finally:
                os._exit(status)
        work(0.3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call.energy_j == pytest.approx(true_j(call), rel=0.2)


def _measure_in_child(queue: Any) -> None:
    with monitoring() as monitor, monitor.span(model_name="child") as call:
        work(0.3)
    queue.put((call.energy_j, true_j(call)))


def test_a_forked_child_may_open_its_own(monitor: Monitor) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_measure_in_child, args=(queue,))
    child.start()
    energy_j, truly_j = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert energy_j == pytest.approx(truly_j, rel=0.2)
    assert monitor.devices


def test_a_gpu_that_is_not_here_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """As where somebody gives CUDA's number of it instead of its UUID."""
    with monitoring(load="constant:100") as monitor, caplog.at_level(logging.WARNING, "llmpower"):
        for name in ("0", "GPU-elsewhere"):
            with monitor.span(model_name="llama", device_uuids=[name]) as call:
                work(0.01)
            assert call.energy_j is None
        monitor.close()
    assert caplog.text.count("is the UUID of no GPU here") == 1
    assert "a span names '0', which is the UUID of no GPU here, and has no joules of it; there are: GPU-" in caplog.text


def test_closing_measures_what_has_ended_and_then_nothing(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    threads = threading.active_count()
    with monitoring() as second:
        assert current_sink() is second
        with second.span(model_name="llama") as call:
            work(0.3)
    assert current_sink() is monitor
    assert threading.active_count() == threads
    assert call.energy_j == pytest.approx(true_j(call), rel=0.2)
    with second.span(model_name="late") as late:
        pass
    assert (late.energy_j, str(late)) == (None, "no joules (unavailable)")
    assert "this Monitor is closed" in caplog.text
    second.close()


def test_a_span_that_ends_while_another_thread_closes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with monitoring() as monitor:
        meter, tell = monitor._meter, monitor._meter._tell
        now_ns = time.monotonic_ns()

        def tell_late(message: Span) -> None:
            meter.end(finish=True, timeout_s=0.0)
            tell(message)

        monkeypatch.setattr(meter, "_tell", tell_late)
        monitor.finish(Span("late", "llama", None, now_ns - 10**8, None, now_ns, 1, 1, 1, "host", 1))
        assert not meter._awaited


def test_the_latest_one_open_is_where_spans_go_and_one_that_nobody_holds_ends(monitor: Monitor, tmp_path: Path) -> None:
    threads = threading.active_count()
    with simulation(load="constant:100"):
        second = Monitor(backend="simulated", powercap_root=None)
    assert current_sink() is second
    assert threading.active_count() == threads + 1
    del second
    gc.collect()
    assert current_sink() is monitor
    assert threading.active_count() == threads
    explicit = SpanClient(tmp_path / "none.sock")
    with llmpower.span(model_name="llama", client=explicit) as call:
        pass
    assert call.measurement(0.0) is None
    with llmpower.span(model_name="llama") as call:
        pass
    assert call.measurement() in monitor.measurements()


def test_a_simulated_card_that_nobody_asked_for_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    with simulation(load="constant:100") as library, caplog.at_level(logging.WARNING, "llmpower"):
        Monitor(nvml_library=Path(library), powercap_root=None).close()
        assert "SIMULATED" in caplog.text
        caplog.clear()
        Monitor(backend="simulated", powercap_root=None).close()
        assert caplog.text == ""


def test_a_span_that_does_not_say_on_which_of_several_cards_it_ran_is_told_their_names(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    with monitoring() as second:
        # As real ones: all of the simulated cards are this machine's processor.
        second.simulated = False
        second.devices = (*monitor.devices, replace(monitor.devices[0], uuid="GPU-b"))
        for uuids in (None, ["GPU-b"], None):
            with second.span(model_name="llama", device_uuids=uuids):
                pass
    assert caplog.text.count("on which of 2 GPUs it ran") == 1
    assert f"{monitor.devices[0].uuid}, GPU-b" in caplog.text


def test_when_it_is_closed_its_thread_is_gone() -> None:
    def threads() -> int:
        return sum(thread.name == "llmpower" for thread in threading.enumerate())

    before = threads()
    with monitoring():
        assert threads() == before + 1
    assert threads() == before


def test_without_a_driver_it_says_what_to_do_and_leaves_nothing_behind(tmp_path: Path) -> None:
    threads, before = threading.active_count(), current_sink()
    with pytest.raises(DeviceError, match=r"none\.so.* install the NVIDIA driver.* or use --backend simulated"):
        Monitor(backend="nvml", nvml_library=str(tmp_path / "none.so"))
    with pytest.raises(DeviceError, match="samples a second"):
        Monitor(backend="simulated", rate_hz=0)
    assert (threading.active_count(), current_sink()) == (threads, before)


def test_a_card_that_tells_nothing_has_no_joules_and_not_zero() -> None:
    done = python(PROGRAM, LLMPOWER_SIM_FAULT="no_energy,no_power")
    assert (done.stdout, done.returncode) == ("None None no joules (unavailable)\n", 0)


def test_a_program_may_end_without_closing_it() -> None:
    done = python(PROGRAM)
    energy_j, energy_std_j, _ = done.stdout.split(" ", 2)
    assert float(energy_j) > float(energy_std_j) > 0
    assert (done.stderr, done.returncode) == ("", 0)


def python(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    environ = {**os.environ, "LLMPOWER_SIM_LOAD": "constant:100", **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


PROGRAM = """
import time
import llmpower

monitor = llmpower.Monitor(backend="simulated", powercap_root=None)
with llmpower.span(model_name="llama") as call:
    time.sleep(0.3)
print(call.energy_j, call.energy_std_j, call)
with llmpower.span(model_name="llama"):
    pass
"""


def test_where_none_is_open_spans_go_to_the_daemon() -> None:
    done = python("import llmpower.spans as s; print(s.current_sink() is s.default_client())")
    assert done.stdout == "True\n"
