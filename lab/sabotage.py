"""Harm a copy of the repository, one line at a time, and see whether the tests notice.

A harm is a patch in `tests/sabotage/`. Above its `diff --git` stand what it does and the tests
that must fail:

    Harm: the mail worker acknowledges a task when it starts.
    Test: tests/test_faults.py::test_nothing_is_lost_and_nothing_comes_twice
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lab.chapters import ROOT, LabError

FOLDER = ROOT / "tests" / "sabotage"
TIMEOUT = 600  # seconds that the tests of one harm may take
CAUGHT, SURVIVED = "caught", "survived"


@dataclass(frozen=True)
class Harm:
    """One patch: what it does, and the tests that must fail under it."""

    path: Path
    text: str
    tests: tuple[str, ...]


def harms(names: list[str] | None = None) -> list[Harm]:
    """All harms in order, or those whose file begins with one of `names`.

    Raises LabError for a patch that says no harm or no test.
    """
    found = [read(path) for path in sorted(FOLDER.glob("*.patch"))]
    return [harm for harm in found if not names or harm.path.name.startswith(tuple(names))]


def read(path: Path) -> Harm:
    head = path.read_text().partition("diff --git")[0]
    text = re.search(r"^Harm: (.+)$", head, re.MULTILINE)
    tests = tuple(re.findall(r"^Test: (.+)$", head, re.MULTILINE))
    if text is None or not tests:
        raise LabError(f"{path.name} must begin with a line Harm: … and a line Test: …")
    return Harm(path, text[1], tests)


def sabotage(names: list[str]) -> int:
    """Apply each harm to a copy, run its tests there, and print what became of it.

    Returns 1 if a harm survived: its tests passed.
    """
    console = Console(highlight=False)
    survived = 0
    for harm in harms(names):
        begun = time.monotonic()
        with copy() as place:
            apply(harm, place)
            verdict = CAUGHT if fails(harm, place) else SURVIVED
        survived += verdict == SURVIVED
        seconds = time.monotonic() - begun
        console.print(f"{verdict:>8}  {harm.path.stem}: {harm.text} ({seconds:.0f} s)")
    console.print(f"{len(harms(names)) - survived} of {len(harms(names))} caught.")
    return 1 if survived else 0


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of what git would commit, in a folder that is thrown away."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place:
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (Path(place) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, Path(place) / name)
        for modules in ROOT.glob("0*/node_modules"):
            (Path(place) / modules.relative_to(ROOT)).symlink_to(modules)
        git("init", "--quiet", cwd=Path(place))
        git("add", "--all", cwd=Path(place))
        yield Path(place)


def apply(harm: Harm, place: Path) -> None:
    """Raises LabError if the patch does not fit any more."""
    done = git("apply", str(harm.path), cwd=place, check=False)
    if done.returncode:
        raise LabError(f"{harm.path.name} does not fit any more:\n{done.stderr}")


def fails(harm: Harm, place: Path) -> bool:
    """Whether a test of this harm fails. Raises LabError if one was skipped, or could not run."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *harm.tests]
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "PYTHONPATH")}
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    if done.returncode not in (0, 1) or " skipped" in done.stdout:
        raise LabError(f"{harm.path.name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.returncode == 1


def git(*arguments: str, cwd: Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
    command = ["/usr/bin/env", "git", *arguments]
    return subprocess.run(command, cwd=cwd, check=check, capture_output=True, text=True)
