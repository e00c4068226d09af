"""The chapters' own tests, file by file, each run in its folder as a reader runs it.

What a chapter has to the letter from the one before and hands on to the one behind runs in those
two chapters. `make test-all` runs it in between as well.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import proof
from lab.chapters import chapters, folder, free_ports

FILES = [
    (number, path.name)
    for number in chapters()
    for path in sorted(folder(number).glob("test_*.py"))
]


def read_tests(path: Path) -> dict[str, str]:
    """The source of each test in a file, by its name; none if the file is not there."""
    module = ast.parse(path.read_text() if path.exists() else "")
    return {
        node.name: ast.unparse(node)
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def handed_on(number: str, file: str) -> list[str]:
    """The tests in a chapter's file that the chapters before and behind have to the letter."""
    before, here, behind = (
        read_tests(path / file)
        for path in (
            folder(number).parent / neighbour(number, -1),
            folder(number),
            folder(number).parent / neighbour(number, +1),
        )
    )
    return [name for name, text in here.items() if before.get(name) == text == behind.get(name)]


def neighbour(number: str, step: int) -> str:
    """The name of the next folder in this direction, or one that does not exist."""
    found = f"{int(number) + step:02}"
    return folder(found).name if found in chapters() else "none"


HANDED_ON = [(number, file) for number, file in FILES if handed_on(number, file)]


def run(number: str, file: str, name: str, *arguments: str) -> None:
    """Run a chapter's own tests; fail with what they print if one fails, or is skipped.

    What their processes have logged is kept beside the report, if one fails.
    """
    report = proof.FOLDER / "chapters" / f"{number}_{file}_{name}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    logs = report.with_suffix("")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--junitxml={report}", f"--basetemp={logs}", *arguments],
        cwd=folder(number),
        env={**os.environ, "FREE_PORTS": " ".join(map(str, free_ports(100)))},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nTheir logs: {logs}"
    assert "skipped" not in done.stdout, done.stdout
    shutil.rmtree(logs, ignore_errors=True)  # some need no folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "file"), FILES)
def test_a_chapters_own_tests_pass(number: str, file: str) -> None:
    elsewhere = [
        f"--deselect={folder(number).name}/{file}::{name}" for name in handed_on(number, file)
    ]
    run(number, file, "own", file, *elsewhere)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "file"), HANDED_ON)
def test_what_a_chapter_hands_on_passes_there_too(number: str, file: str) -> None:
    run(number, file, "handed_on", *(f"{file}::{name}" for name in handed_on(number, file)))
