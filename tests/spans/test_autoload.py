from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import msgspec

import llmpower

AUTOLOAD = Path(__file__).parents[2] / "llmpower" / "spans" / "autoload"

FAKE_TRANSFORMERS = "class GenerationMixin:\n    pass\n"


def python(code: str, *path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` with the autoload folder first on PYTHONPATH."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [AUTOLOAD, *path])), **environ}
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)


def test_a_program_without_transformers_is_left_alone() -> None:
    result = python("import sys; print(any(name.startswith(('llmpower', 'torch')) for name in sys.modules))")
    assert (result.stdout, result.stderr, result.returncode) == ("False\n", "", 0)


def test_a_sitecustomize_that_is_hidden_runs_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("value = __name__, __file__\n")
    result = python("import sitecustomize; print(*sitecustomize.value)", tmp_path)
    assert result.stdout == f"sitecustomize {tmp_path / 'sitecustomize.py'}\n"


def test_a_hidden_sitecustomize_that_fails_does_not_stop_the_program(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise RuntimeError('theirs')\n")
    result = python("print('ran')", tmp_path)
    assert (result.stdout, result.returncode) == ("ran\n", 0)
    assert "theirs" in result.stderr


def test_a_program_whose_transformers_cannot_be_instrumented_runs(tmp_path: Path) -> None:
    folder = tmp_path / "transformers" / "generation"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "utils.py").write_text(FAKE_TRANSFORMERS)
    result = python("import transformers.generation.utils as u; print(u.GenerationMixin.__name__)", tmp_path)
    assert (result.stdout, result.returncode) == ("GenerationMixin\n", 0)
    assert result.stderr.count("\n") == 1
    assert "spans are not recorded" in result.stderr


def test_an_environment_without_msgspec_is_lent_it_and_its_spans_arrive(tmp_path: Path, receiver: Any) -> None:
    # As a service's environment has them: side by side.
    ours = tmp_path / "ours"
    ours.mkdir()
    for package in (llmpower, msgspec):
        folder = Path(str(package.__file__)).parent
        (ours / folder.name).symlink_to(folder)
    utils = tmp_path / "theirs" / "transformers" / "generation" / "utils.py"
    utils.parent.mkdir(parents=True)
    for folder in (utils.parent, utils.parents[1]):
        (folder / "__init__.py").touch()
    utils.write_text(FAKE_TRANSFORMERS)
    venv.create(tmp_path / "venv", symlinks=True)
    program = """
import importlib.util, sys
print(*(importlib.util.find_spec(name) is None for name in ("msgspec", "llmpower", "click", "numpy")))
import transformers.generation.utils
import llmpower, msgspec
with llmpower.span(model_name="lent"):
    pass
print(msgspec.__file__, *(importlib.util.find_spec(name) is None for name in ("click", "numpy")))
"""
    run = f"import sys; sys.path.insert(0, {str(ours)!r}); from llmpower.cli.main import main; main()"
    command = [sys.executable, "-c", run, "run", f"--socket={receiver.path}", "--"]
    command += [str(tmp_path / "venv" / "bin" / "python"), "-c", program]
    environ = os.environ | {"PYTHONPATH": str(utils.parents[2])}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()
    assert before == "True True True True", "it has none of ours"
    assert after == f"{ours / 'msgspec' / '__init__.py'} True True", "and nothing else afterwards"
    assert [span.model_name for span in receiver.wait_for_spans(1)] == ["lent"]


def test_an_environment_without_llmpower_takes_ours_and_nothing_from_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "transformers" / "generation"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "utils.py").write_text(FAKE_TRANSFORMERS)
    code = "import transformers.generation.utils, llmpower, sys; print(llmpower.__file__, *sys.path, sep='\\n')"
    venv.create(tmp_path / "theirs", symlinks=True)
    environ = {"PYTHONPATH": os.pathsep.join([str(AUTOLOAD), str(tmp_path)]), "PATH": os.environ["PATH"]}
    command = [tmp_path / "theirs" / "bin" / "python", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, cwd=tmp_path)
    file, *path = done.stdout.splitlines()
    assert file == str(AUTOLOAD.parents[1] / "__init__.py")
    assert str(AUTOLOAD.parents[2]) not in path
    assert "spans are not recorded" in done.stderr
