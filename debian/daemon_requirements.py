"""Prints what the daemon needs of the dependencies in pyproject.toml, one a line.

Usage: daemon_requirements.py pyproject.toml
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

MODELLING = {"pandas", "scipy", "statsmodels"}
"""What fitting models needs, which no daemon does; tests/test_imports.py keeps it so."""


def daemon_requirements(pyproject: Path) -> list[str]:
    """The requirements, such as ``numpy>=1.26``, in the file's order."""
    requirements = tomllib.loads(pyproject.read_text("utf-8"))["project"]["dependencies"]
    return [wanted for wanted in requirements if re.split(r"[^\w.-]", wanted)[0] not in MODELLING]


if __name__ == "__main__":
    print("\n".join(daemon_requirements(Path(sys.argv[1]))))
