"""Each chapter stands alone: copied to an empty folder, with its own packages, it works.

There it is installed and imported, and sends one newsletter and makes one report with all its
processes. Its own tests are run in its own folder: see `test_chapters.py`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import chapters
from lab.chapters import folder, free_ports
from lab.stages import tracked

from .conftest import ROOT

WHOLE = {
    "01": ("everyone_gets_one_mail", "an_uploaded_log_is_summarised", "slots_decide_who_waits"),
    "02": (
        "the_answer_comes_before_the_mail",
        "an_uploaded_log_is_summarised",
        "a_visitor_does_not_wait_for_a_newsletter",
    ),
}
"""Tests of a chapter in which it starts, sends a newsletter and makes a report."""
WITH_WORKERS = (
    "the_answer_comes_before_the_mail",
    "an_uploaded_log_is_summarised_and_its_file_removed",
)


def call(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command with no environment of ours; fail with all that it printed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "CI"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment | {"FREE_PORTS": " ".join(map(str, free_ports(30)))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", chapters())
def test_a_chapter_alone_is_whole(number: str, tmp_path: Path) -> None:
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
    # Each of its processes would compile what it imports, all at the same time.
    modules = "app" if number in WHOLE else "app, tasks, celery.bin.celery"
    call(python, "-c", f"import {modules}", cwd=chapter)
    wanted = [f"test_chapter.py::test_{name}" for name in WHOLE.get(number, WITH_WORKERS)]
    printed = call(python, "-m", "pytest", "-p", "no:cacheprovider", "-q", *wanted, cwd=chapter)
    assert "skipped" not in printed


@pytest.mark.parametrize("number", chapters())
def test_a_chapter_imports_nothing_of_ours(number: str) -> None:
    for name, text in tracked(folder(number)).items():
        if name.endswith(".py"):
            assert b"import lab" not in text, name
            assert b"from lab" not in text, name
