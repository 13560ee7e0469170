"""What is shipped: one wheel for every Python from 3.11 on, and a clear sentence where it cannot be built."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build_wheel(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    source = directory / "source"
    for name in ("csrc", "llmpower", "systemd"):
        built = shutil.ignore_patterns("*.so", "*.so.*", "__pycache__", "bin")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=built)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(directory), "."]
    return subprocess.run(
        command, cwd=source, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=200
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    done = build_wheel(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = directory.glob("*.whl")
    return found


def test_the_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    assert "-cp311-abi3-linux_" in wheel.name


def test_the_wheel_holds_what_runs_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "llmpower/py.typed",
        "llmpower/modelling/_tally.abi3.so",
        "llmpower/routing/_exchange.abi3.so",
        "llmpower/sampling/_sampler.abi3.so",
        "llmpower/sampling/simulated/libnvidia-ml.so.1",
        "llmpower/store/migrations/001_measurements.sql",
        "llmpower/spans/autoload/sitecustomize.py",
        "llmpower/report/page.css",
        "llmpower/report/page.html",
        "llmpower/report/page.js",
        "llmpower/service/systemd/llmpower.service",
        "llmpower/service/systemd/drop-ins/metrics-port.conf",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "csrc/"))]


def test_the_wheel_runs_from_where_it_was_unpacked(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import llmpower.sampling as s; assert s.__file__.startswith(__import__('sys').argv[1]), s.__file__;"
        "sampler = s.Sampler(backend='simulated'); print(sampler.devices[0].name)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Simulated")


def test_without_a_compiler_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    done = build_wheel(tmp_path, CC=str(tmp_path / "none"))
    assert done.returncode != 0
    assert "install them (Debian: apt install gcc python3-dev" in done.stdout + done.stderr


@pytest.mark.parametrize("command", [["devices"], ["fit", "m.csv"], ["route", "--models", "m", "--workload", "w"]])
def test_a_checkout_that_was_not_built_says_how(command: list[str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "llmpower", tmp_path / "llmpower", ignore=shutil.ignore_patterns("*.so", "*.so.*"))
    done = subprocess.run(
        [sys.executable, "-m", "llmpower", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    told = f"{tmp_path} = not built: its C extension is missing; pip install -e {tmp_path} builds it"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"llmpower: error: {told}\n")


def test_the_debian_package_takes_every_dependency_but_those_of_models() -> None:
    debian = runpy.run_path(str(ROOT / "debian/daemon_requirements.py"))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    taken = debian["daemon_requirements"](ROOT / "pyproject.toml")
    left_out = {re.split("[<>=!~;[ ]", requirement)[0] for requirement in declared if requirement not in taken}
    assert left_out == debian["MODELLING"]


def test_the_debian_package_takes_every_file_of_the_service() -> None:
    # Its environment has no pyarrow, which shipping data sets needs: docs/decisions/065.
    shipping = {"llmpower-export.service", "llmpower-export.timer"}
    files = {path.name: path.read_bytes() for path in (ROOT / "systemd").iterdir() if path.is_file()}
    debian = ROOT / "debian"
    # debhelper takes llmpower.service, .sysusers and the like from debian/, where they are links.
    linked = {
        name for name, content in files.items() if (debian / name).exists() and (debian / name).read_bytes() == content
    }
    listed = {Path(line.split()[0]).name for line in (debian / "llmpower.install").read_text("utf-8").splitlines()}
    assert linked | listed == files.keys() - shipping
