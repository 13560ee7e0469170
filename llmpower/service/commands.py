"""Commands of the system, such as systemctl: run, waited for so long and no longer, and heard."""

from __future__ import annotations

import subprocess
import tempfile

from llmpower.exceptions import LlmpowerError


def call(*words: str, timeout_s: float) -> str:
    """Run a command and return what it printed; end it if it takes longer than ``timeout_s``.

    Raises:
        LlmpowerError: it cannot be run, failed, or did not end in time.
    """
    # Files, not pipes: a child of the command that lives on holds a pipe open for as long as it likes.
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        try:
            code = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=printed, stderr=said, check=False, timeout=timeout_s
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise LlmpowerError(f"{' '.join(words)} did not end within {timeout_s:g} s") from error
        except OSError as error:
            raise LlmpowerError(f"{words[0]} cannot be run ({error.strerror})") from error
        printed.seek(0)
        said.seek(0)
        output, errors = (file.read().decode("utf-8", "replace") for file in (printed, said))
    if code != 0:
        raise LlmpowerError(f"{' '.join(words)} failed with {code}: {' '.join((errors or output).split())}")
    return output
