"""Every check can say no: one line of harm for each, and the check's own command fails.

How `lab stages` and `lab pages` judge is in test_stages.py and test_pages.py; links, commands and
the lock are in test_lessons.py. Here are the commands themselves, and what calls them.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import sabotage

from .conftest import ROOT

CHAPTERS = ["01_first", "02_second"]
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
test "$(wc -l < "$LOG")" != "$FAILS"
"""
"""A program that writes down how it is called, and fails when it is the nth call."""


def run(command: list[str], cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=100
    )


def recipe(place: Path, target: str) -> list[str]:
    """The lines that `make` hands to the shell, as if all were installed."""
    installed = ["-o", ".venv/.test"]
    return run(["make", "-n", *installed, target], place).stdout.splitlines()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of some lines with our Makefile and our settings: nothing is wrong with it."""
    place = tmp_path_factory.mktemp("small")
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, place)
    (place / ".venv").symlink_to(ROOT / ".venv")
    for folder in ("lab", "tests", *CHAPTERS):
        (place / folder).mkdir()
        if folder not in CHAPTERS:
            (place / folder / "__init__.py").touch()
        (place / folder / "requirements.txt").touch()
        (place / folder / "good.py").write_text("def double(x: int) -> int:\n    return 2 * x\n")
    return place


UNUSED = "import os\n"
LOOSE = "x = [1,2]\n"
UNTYPED = "def double(x):\n    return 2 * x\n"


@functools.cache
def passes(command: str, place: Path) -> bool:
    """Whether a check has nothing to say while no harm is done. Asked once: it takes seconds."""
    return run(["sh", "-c", command], place).returncode == 0


@pytest.mark.parametrize(
    ("line", "file", "harm"),
    [
        ("ruff check", "lab/harm.py", UNUSED),
        ("ruff check", "02_second/harm.py", UNUSED),
        ("ruff check", "notebooks/harm.py", UNUSED),
        ("ruff format", "lab/harm.py", LOOSE),
        ("ruff format", "01_first/harm.py", LOOSE),
        ("mypy lab tests", "lab/harm.py", UNTYPED),
        ("mypy lab tests", "lab/troubled/harm.py", UNTYPED),
        ("mypy lab tests", "tests/harm.py", UNTYPED),
        ("mypy .", "01_first/harm.py", UNTYPED),
        ("mypy .", "02_second/harm.py", UNTYPED),
    ],
    ids=lambda value: value.partition("/")[0] if "harm.py" in value else value.partition("\n")[0],
)
def test_style_and_types_can_fail(line: str, file: str, harm: str, small: Path) -> None:
    (command,) = (each for each in recipe(small, "check") if line in each)
    assert passes(command, small)
    harmed = small / file
    harmed.parent.mkdir(exist_ok=True)
    harmed.write_text(harm)
    try:
        done = run(["sh", "-c", command], small)
    finally:
        harmed.unlink()
    assert done.returncode != 0
    assert "harm.py" in done.stdout


# --- `make check` ---------------------------------------------------------------------


def test_every_line_of_the_check_is_known_here(small: Path) -> None:
    """A new one needs its harm, above or below."""
    known = [
        "ruff check .",
        "ruff format --check .",
        "mypy lab tests",
        "mypy .",
        "lab stages",
        "lab pages",
    ]
    lines = recipe(small, "check")
    assert len(lines) == len(known)
    assert all(words in line for words, line in zip(known, lines, strict=True))


def test_the_check_fails_whichever_of_its_commands_does(small: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    shutil.copytree(small, place, ignore=shutil.ignore_patterns(".*"))
    (place / ".venv" / "bin").mkdir(parents=True)
    for program in ("ruff", "mypy", "python"):
        stub(place / ".venv" / "bin" / program)
    commands = 5 + len(CHAPTERS)
    for fails in range(1, commands + 1):
        done, called = with_stubs(["make", "-o", ".venv/.test", "check"], place, fails)
        assert done.returncode != 0, called[-1]
        assert len(called) == fails
    done, called = with_stubs(["make", "-o", ".venv/.test", "check"], place, fails=0)
    assert done.returncode == 0
    assert len(called) == commands


def stub(path: Path) -> None:
    path.write_text(STUB)
    path.chmod(0o755)


def with_stubs(
    command: list[str], place: Path, fails: int, **environment: str
) -> tuple["subprocess.CompletedProcess[str]", list[str]]:
    """Run a command; and what it called, of which call number `fails` fails."""
    log = place / "log"
    log.write_text("")
    done = run(command, place, LOG=str(log), FAILS=str(fails), **environment)
    return done, log.read_text().splitlines()


@pytest.mark.parametrize(
    ("command", "file", "old", "new"),
    [
        ("stages", "03_celery/work.py", "\n", "\n# One line more.\n"),
        ("pages", "README.md", "## For whom\n", "## For whom\n\nA visitor waits 37 ms.\n"),
        ("pages", "results/tour.json", '"twice": ', '"twice": 1'),
    ],
    ids=["a file that differs", "a number typed into prose", "a result that is not in its table"],
)
def test_a_command_of_the_lab_can_fail(
    command: str, file: str, old: str, new: str, copy: Path
) -> None:
    """That all is well without the harm is seen in test_stages.py and test_pages.py."""
    (line,) = (each for each in recipe(ROOT, "check") if each.endswith(f"lab {command}"))
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    done = run(["sh", "-c", line], copy)
    (copy / file).write_text(text)
    assert done.returncode == 1, done.stderr
    assert len(done.stdout.splitlines()) >= 1


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """A copy of this repository, with our environment."""
    with sabotage.copy() as place:
        (place / ".venv").symlink_to(ROOT / ".venv")
        yield place


# --- What calls the checks ------------------------------------------------------------


def test_ci_fails_whichever_of_its_commands_does(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "bin").mkdir()
    for program in ("make", "apt-get", "npm"):
        stub(tmp_path / "bin" / program)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    _, called = with_stubs([".ci/run"], tmp_path, 0, PATH=path)
    assert called[-3:] == ["make check", "make tour", "make test"]
    for fails in range(1, len(called) + 1):
        done, reached = with_stubs([".ci/run"], tmp_path, fails, PATH=path)
        assert done.returncode != 0, called[fails - 1]
        assert len(reached) == fails


def test_a_commit_and_a_push_run_the_checks() -> None:
    assert "entry: make check\n" in (ROOT / ".pre-commit-config.yaml").read_text()
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


SKIPPED = "import pytest\n\ndef test_it() -> None:\n    pytest.skip('something is missing')\n"


@pytest.mark.parametrize(
    ("ci", "workers", "code"), [("true", "1", 1), ("", "0", 0)], ids=["in CI", "elsewhere"]
)
def test_in_ci_a_skipped_test_is_a_failure(
    ci: str, workers: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPED)
    (tmp_path / "pytest.ini").touch()
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", workers]
    done = run(command, tmp_path, CI=ci, PYTHONPATH=str(ROOT))
    assert done.returncode == code, done.stdout
    assert "1 skipped" in done.stdout
