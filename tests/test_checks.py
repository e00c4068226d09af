"""The checks of `make check` can say no: each is shown a small harm and must be red."""

import re
import subprocess
from pathlib import Path

import pytest
from cogapp import Cog

from .conftest import ROOT

PAGES = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("0*/*.md"), *ROOT.glob("notebooks/*.md")])
    if "[[[cog" in path.read_text()
]
GENERATED = re.compile(r"\]\]\] ?-->\n(.*?)<!-- \[\[\[end\]\]\]", re.DOTALL)
each = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def cog(page: Path) -> int:
    """The exit code of the command in the Makefile, on one page. It must write nothing."""
    before = page.read_bytes()
    code: int = Cog().main(["cog", "--check", str(page)])
    assert page.read_bytes() == before
    return code


@each
def test_the_figures_on_a_page_are_those_of_the_results(page: Path) -> None:
    assert cog(page) == 0


@each
def test_a_figure_that_is_typed_into_a_page_is_noticed(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    blocks = [block for block in GENERATED.finditer(text) if re.search(r"\d", block[1])]
    assert blocks
    harmed = tmp_path / page.name
    for block in blocks:
        digit = re.compile(r"\d").search(text, block.start(1))
        assert digit
        other = str((int(digit[0]) + 1) % 10)
        harmed.write_text(text[: digit.start()] + other + text[digit.end() :])
        assert cog(harmed) == 5, block[1][:200]


def test_make_check_looks_at_every_page_and_mends_none() -> None:
    printed = subprocess.run(
        ["/usr/bin/env", "make", "--dry-run", "check"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    (command,) = re.findall(r"^.* cogapp (.+)$", printed, re.MULTILINE)
    option, *pages = command.split()
    assert option == "--check"
    assert sorted(pages) == [str(path.relative_to(ROOT)) for path in PAGES]
