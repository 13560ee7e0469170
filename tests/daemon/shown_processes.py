"""Processes written as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path


def show(
    proc: Path, pid: int, *, own_pid: int | None = None, parent: int = 1, uid: int = 1000, name: str = "vllm"
) -> None:
    """Have a process stand in ``proc``, as the kernel writes it; it began four seconds after the machine."""
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    numbers = f"{pid}" if own_pid is None else f"{pid}\t{own_pid}"
    escaped = name.replace("\n", "\\n")
    text = f"Name:\t{escaped}\nUmask:\t0022\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{numbers}\n"
    (folder / "status").write_text(text)
    started = 4 * os.sysconf("SC_CLK_TCK")
    (folder / "stat").write_text(f"{pid} ({name}) S {parent} " + "0 " * 17 + f"{started} 0 0\n")
