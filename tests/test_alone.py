"""Each chapter stands alone: copied to an empty folder, with its own packages, it works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import chapters
from lab.chapters import folder
from lab.stages import tracked

from .conftest import ROOT


def call(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command with no environment of ours; fail with all that it printed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "CI"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(700)
@pytest.mark.parametrize("number", chapters())
def test_a_chapter_alone_passes_its_own_tests(number: str, tmp_path: Path) -> None:
    chapter = tmp_path / folder(number).name
    for name in tracked(folder(number)):
        (chapter / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder(number) / name, chapter / name)
    uv = Path(sys.executable).with_name("uv")
    here = {"VIRTUAL_ENV": str(tmp_path / "venv"), "UV_SYSTEM_CERTS": "true"}
    call(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv", cwd=chapter)
    lock = ROOT / "requirements.txt"
    install = [uv, "pip", "install", "--quiet", "--constraint", lock, "-r", "requirements.txt"]
    call(*install, cwd=chapter, **here)
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-c", "import app", cwd=chapter)
    printed = call(python, "-m", "pytest", "-p", "no:cacheprovider", "-q", cwd=chapter)
    assert " passed" in printed
    assert "skipped" not in printed


@pytest.mark.parametrize("number", chapters())
def test_a_chapter_imports_nothing_of_ours(number: str) -> None:
    for name, text in tracked(folder(number)).items():
        if name.endswith(".py"):
            assert b"import lab" not in text, name
            assert b"from lab" not in text, name
