"""TROUBLESHOOTING.md: each trouble can be made to happen, and says what the page quotes."""

import re
import sys
from dataclasses import dataclass

import pytest

from lab import __main__ as commands
from lab import troubles
from lab.chapters import LabError

from .conftest import ROOT

PAGE = (ROOT / "TROUBLESHOOTING.md").read_text()
PARTS = ["It means", "See it", "Cure", "More"]


@dataclass(frozen=True)
class Entry:
    """One entry: its title, the lines that it quotes, and the troubles that its commands name."""

    title: str
    text: str
    quoted: list[str]
    names: list[str]


def read_entry(section: str) -> Entry:
    title, _, text = section.partition("\n")
    quoted = re.findall(r"```text\n(.+?)\n```", text, re.DOTALL)
    names = re.findall(r"`make trouble NAME=([\w-]+)`", text)
    return Entry(title, text, "\n".join(quoted).splitlines(), names)


TABLE, *SECTIONS = re.split(r"^### ", PAGE, flags=re.MULTILINE)
ENTRIES = [read_entry(section) for section in SECTIONS]
REPRODUCED = {name: entry for entry in ENTRIES for name in entry.names}


def pattern(quoted: str) -> str:
    """What a quoted line may look like: `…` stands for anything within the line."""
    return re.escape(quoted).replace("…", ".*")


def missing(quoted: list[str], said: str) -> list[str]:
    """The quoted lines that are not in what a trouble said, in their order."""
    absent, place = [], 0
    for line in quoted:
        found = re.compile(pattern(line)).search(said, place)
        if found is None:
            absent.append(line)
        else:
            place = found.end()
    return absent


def anchor(title: str) -> str:
    """The name by which GitHub links to a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


# --- The page -------------------------------------------------------------------------


def test_every_trouble_has_its_entry_and_every_command_its_trouble() -> None:
    assert list(REPRODUCED) == list(troubles.TROUBLES)
    assert PAGE.count("make trouble NAME=") == len(troubles.TROUBLES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: anchor(entry.title))
def test_an_entry_has_its_parts_and_quotes_something(entry: Entry) -> None:
    assert re.findall(r"^\*\*(.+?):\*\*", entry.text, re.MULTILINE) == PARTS
    assert entry.quoted
    assert entry.names or re.search(r"no (quicker )?command for it", entry.text)


def test_the_table_leads_to_every_entry() -> None:
    rows = re.findall(r"^\| (.+) \| \[(.+)\]\(#(.+)\) \|$", TABLE, re.MULTILINE)
    assert len(rows) == TABLE.count("](#")
    assert {title for _, title, _ in rows} == {entry.title for entry in ENTRIES}
    assert all(anchor(title) == target for _, title, target in rows)


def test_what_the_table_quotes_is_in_the_entry() -> None:
    quoted = {entry.title: "\n".join(entry.quoted) for entry in ENTRIES}
    rows = re.findall(r"^\| (.+) \| \[(.+)\]\(.+\) \|$", TABLE, re.MULTILINE)
    for seen, title in rows:
        for text in re.findall(r"`(.+?)`", seen):
            assert re.search(pattern(text), quoted[title]), f"{title}: {text}"


def test_links_lead_to_headings_that_exist() -> None:
    for target, wanted in re.findall(r"\]\(([^)#]*)#([^)]+)\)", PAGE):
        page = (ROOT / target).read_text() if target else PAGE
        titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert wanted in {anchor(title) for title in titles}, f"{target}#{wanted}"


def test_a_text_of_ours_that_no_command_brings_about_is_the_real_one() -> None:
    (entry,) = (entry for entry in ENTRIES if entry.title == "No Chromium")
    (text,) = entry.quoted
    assert f'pytest.skip("{text}")' in (ROOT / "tests" / "conftest.py").read_text()


# --- The troubles ---------------------------------------------------------------------


@pytest.mark.parametrize("name", troubles.TROUBLES)
def test_a_trouble_says_what_the_page_quotes(name: str) -> None:
    said = troubles.TROUBLES[name]()
    assert missing(REPRODUCED[name].quoted, said) == [], said


def test_a_text_that_differs_is_noticed() -> None:
    said = "Error 111 connecting to localhost:6379.\nworker: ready"
    assert missing(["Error … connecting to localhost:….", "worker: ready"], said) == []
    assert missing(["worker: ready", "Error 111"], said) == ["Error 111"]  # the other way round
    assert missing(["Error 111 … ready"], said) == ["Error 111 … ready"]  # not over two lines
    assert missing(["error 111", "localhost:…6380"], said) == ["error 111", "localhost:…6380"]


def test_the_command_shows_one_or_lists_all(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lab", "trouble", "circular-import"])
    assert commands.main() == 0
    said = capfd.readouterr().out
    assert "imports `circle_tasks.py`" in said
    assert "import circle_app" in said
    assert missing(REPRODUCED["circular-import"].quoted, said) == []
    monkeypatch.setattr(sys, "argv", ["lab", "trouble"])
    assert commands.main() == 0
    listed = capfd.readouterr().out
    assert all(re.search(rf"^{name} +\S", listed, re.MULTILINE) for name in troubles.TROUBLES)


def test_a_trouble_that_nobody_knows_is_refused() -> None:
    with pytest.raises(LabError, match="no trouble 'invalid'"):
        troubles.show("invalid")
