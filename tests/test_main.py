"""The program's first moments: SIGINT that comes while the command line is imported."""

from __future__ import annotations

import signal
import subprocess
import sys

# Click is the first that is imported, and what most of the time goes by with.
INTERRUPTED = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["llmpower", *{arguments}]
signal.signal(signal.SIGINT, signal.{handler})
runpy.run_module("llmpower", run_name="__main__")
"""


def interrupted(module: str, *arguments: str, handler: str = "default_int_handler") -> subprocess.CompletedProcess[str]:
    program = INTERRUPTED.format(module=module, arguments=arguments, handler=handler)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)


def test_ctrl_c_while_click_is_imported_ends_it_without_a_word() -> None:
    done = interrupted("click", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_that_is_ignored_stays_so() -> None:
    done = interrupted("click", "--version", handler="SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("llmpower, version")


def test_ctrl_c_while_a_command_is_imported_is_said() -> None:
    done = interrupted("llmpower.cli.export", "export", "--help")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "llmpower: interrupted")
