"""The lessons keep their form, and what the repository says is true of its files."""

import re
import subprocess
from pathlib import Path

import pytest

from lab.chapters import chapters, folder
from lab.pages import notebooks, pages
from lab.sources import blank, read
from lab.stages import listed

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
PAGES = [*pages(), *sorted(ROOT.glob("0*/DIFF.md")), *notebooks()]
BLOCK = r"^( *)```.*?^\1```"
CODE = rf"{BLOCK}|(`+)[^\n]+?\2"
LINKS = r"\]\(([^)\s]+)\)|(?:href|src)=[\"']([^\"']+)|^\[[^\]]+\]: *(\S+)"


def headings(page: Path) -> list[str]:
    return re.findall(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", blank([BLOCK], page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """What a page links to and what is not there: a file, or a heading of a page."""
    text = blank([CODE], read(page)[0])
    found = ["".join(link) for link in re.findall(LINKS, text, flags=re.MULTILINE)]
    return [link for link in found if not re.match("https?://", link) and not leads(page, link)]


def leads(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


def unknown_commands(page: Path) -> list[str]:
    """What a page has you type after `make`, in a line or in a block, and the Makefile lacks."""
    makefile = (ROOT / "Makefile").read_text()
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) | set(chapters())
    code = [found[0] for found in re.finditer(CODE, read(page)[0], re.DOTALL | re.MULTILINE)]
    typed = re.findall(r"\bmake ([a-z0-9][\w-]*)", "\n".join(code))
    return [target for target in typed if target not in known]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.parent.name)
def test_every_lesson_has_the_same_headings_in_the_same_order(lesson: Path) -> None:
    assert headings(lesson) == HEADINGS


@pytest.mark.parametrize("file", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    assert broken_links(file) == []


@pytest.mark.parametrize("file", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(file: Path) -> None:
    assert unknown_commands(file) == []


@pytest.mark.parametrize(
    "harm",
    [
        "[a file](gone.md)",
        "![a picture](results/gone.png)",
        "[a heading](#gone)",
        "[a heading of another page](other.md#gone)",
        "[of a page in a folder](folder/other.md#gone)",
        '<a href="gone.md">a file</a>',
        "[a reference]: gone.md",
    ],
)
def test_a_link_that_leads_nowhere_is_noticed(harm: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("other.md", "folder/other.md"):
        (tmp_path / name).write_text("# Other\n\n## There, `it` is\n\n```\n# gone\n```\n")
    good = "[a](other.md#there-it-is) [b](#page) [c](folder/other.md) `[d](gone.md)`"
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{good}\n")
    assert broken_links(page) == []
    page.write_text(f"# Page\n\n{good}\n\n{harm}\n")
    assert len(broken_links(page)) == 1


@pytest.mark.parametrize(
    "harm",
    ["`make gone`", "`QUICK=1 make gone`", "```\nmake gone\n```", "```console\n$ make gone\n```"],
)
def test_a_command_that_does_not_exist_is_noticed(harm: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`PORT=9000 make 01`, `make PYTHON=python3` and `make notebooks-run` are there.\n"
    )
    assert unknown_commands(page) == []
    page.write_text(f"{harm}\n")
    assert unknown_commands(page) == ["gone"]


def test_no_package_index_and_no_path_of_a_machine_is_in_a_file() -> None:
    hosts = re.compile(r"pypi\.org|pythonhosted|npmjs\.org|/home/\w|/Users/\w")
    for path in (ROOT / name for name in listed(ROOT)):
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


@pytest.mark.parametrize(
    ("given", "handed_on"), [({}, "true"), ({"UV_SYSTEM_CERTS": "false"}, "false")]
)
def test_make_has_uv_trust_what_the_system_trusts(given: dict[str, str], handed_on: str) -> None:
    """Unless somebody wants it otherwise. Behind a company's proxy nothing installs without."""
    command = ["/usr/bin/env", "-u", "UV_SYSTEM_CERTS", *(f"{k}={v}" for k, v in given.items())]
    show = "include Makefile\nshow:\n\t@echo $$UV_SYSTEM_CERTS\n"
    done = subprocess.run(
        [*command, "make", "--no-print-directory", "-f", "-", "show"],
        cwd=ROOT,
        input=show,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == handed_on, done.stderr


def test_make_alone_lists_every_command() -> None:
    done = subprocess.run(["/usr/bin/env", "make"], cwd=ROOT, capture_output=True, text=True)
    for target in ["tour", "test", "check", "results", "clean", *chapters()]:
        assert re.search(rf"^  make {target} +\w", done.stdout, re.MULTILINE), target
