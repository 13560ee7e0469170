"""Puts this folder's helper module on the path: tests are collected without packages."""

import sys
from pathlib import Path

import pytest
import trustme

sys.path.insert(0, str(Path(__file__).parent))

from certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Issues certificates into the test's directory."""
    return Authority(tmp_path, trustme.CA())
