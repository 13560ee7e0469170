"""Puts this folder's helper modules on the path: tests are collected without packages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
