"""The lessons keep their form, and what the repository says is true of its files."""

import re
import subprocess
from pathlib import Path

import pytest

from lab.chapters import chapters, folder

from .conftest import ROOT

HEADINGS = [
    "In one minute",
    "Run it",
    "What you should see",
    "What changed",
    "How it works",
    "Measure it",
    "Break it",
    "Try it",
    "Next",
]
LESSONS = [folder(number) / "README.md" for number in chapters()]
PAGES = [
    ROOT / "README.md",
    ROOT / "INSTRUCTORS.md",
    ROOT / "TROUBLESHOOTING.md",
    *LESSONS,
    folder("05") / "GROWING.md",
    *sorted((ROOT / "notebooks").rglob("README.md")),
]


def headings(page: Path) -> list[str]:
    return re.findall(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).exists()]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.parent.name)
def test_every_lesson_has_the_same_headings_in_the_same_order(lesson: Path) -> None:
    assert headings(lesson) == HEADINGS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([\w-]+)", page.read_text()):
        assert target in targets | set(chapters()), f"{page}: make {target}"


def test_no_package_index_and_no_path_of_a_machine_is_in_a_file() -> None:
    hosts = re.compile(r"pypi\.org|pythonhosted|npmjs\.org|/home/\w|/Users/\w")
    for path in tracked_files():
        if path == Path(__file__).resolve() or path.suffix == ".png":
            continue
        assert not hosts.search(path.read_text(errors="replace")), path


def test_the_lock_holds_a_hash_for_every_package() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    packages = re.findall(r"^[a-z0-9].*(?:\n    --hash=\S+.*)*", lock, re.MULTILINE)
    assert len(packages) > 50
    assert "://" not in lock  # where packages come from is the business of who installs them
    for package in packages:
        assert "==" in package.splitlines()[0]
        assert "--hash=sha256:" in package


def test_make_without_a_usable_python_says_which_is_needed(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(
        ["/usr/bin/env", "make", "tour", "PYTHON="], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stdout


def test_make_alone_lists_every_command() -> None:
    done = subprocess.run(["/usr/bin/env", "make"], cwd=ROOT, capture_output=True, text=True)
    for target in ["tour", "test", "check", "results", "clean", *chapters()]:
        assert re.search(rf"^  make {target} +\w", done.stdout, re.MULTILINE), target
