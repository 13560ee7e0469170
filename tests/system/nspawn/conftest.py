"""A booted guest with the package at hand, for the tests of this folder; they skip where no package is named.

Puts this folder's helper modules on the path: tests are collected without packages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "daemon")]

from guest import Guest, base_image, booted  # noqa: E402 (found by the path above)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder boots a Debian, for which ``make test-nspawn`` names a package."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.nspawn)


@pytest.fixture(scope="session")
def image(package: Path) -> Path:
    """The base image, made once and kept in LLMPOWER_NSPAWN_CACHE."""
    assert package.is_file(), package
    cache = os.environ.get("LLMPOWER_NSPAWN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "/var/cache"), "llmpower")
    return base_image(Path(cache))


@pytest.fixture(scope="session")
def package() -> Path:
    """The package under test."""
    if "LLMPOWER_TEST_DEB" not in os.environ:
        pytest.skip("LLMPOWER_TEST_DEB names no package; 'make test-nspawn' does")
    return Path(os.environ["LLMPOWER_TEST_DEB"]).absolute()


@pytest.fixture(scope="session")
def newer_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program as version 99."""
    directory = tmp_path_factory.mktemp("newer")
    tree, newer = directory / "tree", directory / "newer.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True)
    (init,) = tree.glob("usr/lib/llmpower/lib/python3*/site-packages/llmpower/__init__.py")
    for path, version in ((tree / "DEBIAN/control", "Version: .*"), (init, '__version__ = ".*"')):
        newest = version.replace(".*", "99")
        path.write_text(re.sub(f"(?m)^{version}$", newest, path.read_text("utf-8")), "utf-8")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(newer)], check=True)
    return newer


@pytest.fixture
def bare(image: Path, package: Path, newer_package: Path, tmp_path: Path) -> Iterator[Guest]:
    """A booted guest with the packages at hand and none installed."""
    files = [(package, "/opt/llmpower.deb"), (newer_package, "/opt/newer.deb")]
    files += [(HERE / name, "/opt") for name in ("load.py", "probe.py")]
    with booted(image, tmp_path, files) as guest:
        guest.run("useradd", "--create-home", "alice")
        guest.run("useradd", "--create-home", "bob")
        yield guest
