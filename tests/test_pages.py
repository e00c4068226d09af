"""What `make check` says of pages: a table that is stale, a number that has no source."""

import re
import shutil
from pathlib import Path

import pytest

from lab import pages, sources
from lab.chapters import LabError

from .conftest import ROOT

PAGES = pages.pages()
NOTEBOOKS = pages.notebooks()
WITH_TABLES = [page for page in PAGES if "[[[cog" in page.read_text()]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- The pages of this repository -----------------------------------------------------


def test_every_kind_of_page_is_among_the_pages() -> None:
    known = {name(page) for page in PAGES}
    assert {"README.md", "INSTRUCTORS.md", "TROUBLESHOOTING.md"} <= known
    assert {"05_load_testing/README.md", "05_load_testing/GROWING.md"} <= known
    assert {"notebooks/README.md", "notebooks/contenders/README.md"} <= known
    assert not any(page.name == "DIFF.md" for page in PAGES)
    assert len(WITH_TABLES) >= 8
    assert len(NOTEBOOKS) == 8


def test_no_page_is_stale_and_every_number_has_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(write=False) == 0, capsys.readouterr().out


# --- A typed number -------------------------------------------------------------------


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """The pages with tables, in an empty folder."""
    for page in WITH_TABLES:
        (tmp_path / name(page)).parent.mkdir(exist_ok=True)
        shutil.copy(page, tmp_path / name(page))
    return [tmp_path / name(page) for page in WITH_TABLES]


def test_a_number_typed_into_a_table_is_noticed_and_stays(copies: list[Path]) -> None:
    """On each page, in the last table: its first number becomes another."""
    typed = {page: type_into_a_table(page.read_text()) for page in copies}
    for page, text in typed.items():
        page.write_text(text)
    assert pages.stale(copies) == [str(page) for page in copies]
    assert {page: page.read_text() for page in copies} == typed


def type_into_a_table(text: str) -> str:
    *_, table = re.finditer(r"^\]\]\] -->.*?---(.*?)\[\[\[end", text, re.DOTALL | re.MULTILINE)
    digit = re.compile(r"\d").search(text, table.start(1))
    assert digit is not None
    return text[: digit.start()] + str(9 - int(digit[0])) + text[digit.end() :]


def test_a_table_that_cannot_be_made_is_no_success(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- [[[cog\n1 / 0\n]]] -->\n<!-- [[[end]]] -->\n")
    with pytest.raises(LabError, match="ZeroDivisionError"):
        pages.stale([page])


@pytest.mark.parametrize("file", [*PAGES, *NOTEBOOKS], ids=name)
def test_a_number_typed_into_prose_is_noticed(file: Path) -> None:
    """Under each heading, and after each table: also before, between and after what cog writes."""
    known, (text, code) = sources.load(ROOT), sources.read(file)
    assert list(sources.check_page(known, name(file), text, code)) == []
    for place in places(text):
        typed = "\nA visitor waits 37 ms, the others thirty-one minutes.\n\n"
        harmed = text[:place] + typed + text[place:]
        complaints = list(sources.check_page(known, name(file), harmed, code))
        found = [
            complaint.partition(" has no source in lab/sources.toml")[0] for complaint in complaints
        ]
        assert found == ["37", "31"]


def places(text: str) -> list[int]:
    """Where prose may stand: after each heading, and after each table that cog wrote."""
    prose = sources.blank([r"^( *)```.*?^\1```"], text)
    ends = re.finditer(r"^#+ .+\n|<!-- \[\[\[end\]\]\] -->\n", prose, re.MULTILINE)
    return [found.end() for found in ends]


@pytest.mark.parametrize(
    "text",
    [
        "It takes 0.3 s.",
        "It takes 0.3s.",
        "It takes\n12 ms.",
        "| wait | 12 ms |",
        "97 % of the limit",
        "**2.5 ×** as fast",
        "1,234 requests",
        "1 234 requests",
        "some 60 users",
        "99 of 100 visits",
        "about 3 MiB",
        "429 ms later",
        "Redis 12 ms",
        "Forty minutes",
        "twenty-one times",
        "[7 seconds](README.md)",
        "<details><summary>The answer</summary>\n\n8 s.\n</details>",
        '<!-- [[[cog\ncog.out("8 s")\n]]] -->\n8 s\n<!-- [[[end]]] -->',
        "<!-- [[[end]]] -->\n8 s\n<!-- [[[cog\ntable()\n]]] -->\n9\n<!-- [[[end]]] -->",
    ],
)
def test_this_is_a_number(text: str) -> None:
    assert len(sources.find(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<!-- [[[cog\ntable()\n]]] -->\n\n| 8 ms |\n\n<!-- [[[end]]] -->",
        "```text\n12 ms\n```",
        "    ```text\n    12 ms\n    ```",
        "`--threads 4`",
        "[a file](03_celery/4.md)",
        "<http://127.0.0.1:8000>",
        "<!-- minutes: 40, cut: 1 -->",
        "2. The second of a list",
        "Chapter 03, and notebook 07.",
        "Python 3.11, 3.12 or 3.13, Redis 6.2 and 7.0",
        "It answers 202, and 503 when Redis is away: a 4xx.",
        "p99, WSL2 and x86_64",
        "port 5000",
        "five mails, two workers",
    ],
)
def test_this_is_no_number_that_needs_a_source(text: str) -> None:
    assert sources.find(text) == []


# --- A source -------------------------------------------------------------------------

KNOWN = {"DELAY": 0.2, "WAIT_MS": 400.0, "SHARE": 0.7}


def complaints(text: str, source: str, phrase: str, code: str = "") -> list[str]:
    known = sources.Sources({"page": {source: [phrase]}}, KNOWN)
    return list(sources.check_page(known, "page", text, code))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("takes 0.2 s", "DELAY"),
        ("takes 200 ms", "DELAY"),
        ("takes 400 ms", "WAIT_MS"),
        ("takes 0.4 s", "WAIT_MS / 1000"),
        ("busy 70 %", "SHARE"),
        ("four seconds", "20 * DELAY"),
        ("about 13 ms", "1 / 75"),
        ("Twelve\nhours", "12"),
        ("takes 8 s", "given"),
        ("takes 8 s", "fact: somebody says so"),
    ],
)
def test_a_source_that_fits(text: str, source: str) -> None:
    assert complaints(text, source, " ".join(text.split())) == []


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("takes 0.3 s", "DELAY"),
        ("takes 300 ms", "DELAY"),
        ("takes 2 ms", "DELAY"),
        ("five seconds", "20 * DELAY"),
        ("0.2 s, or 0.3 s", "DELAY"),
        ("about 14 ms", "1 / 75"),
    ],
)
def test_a_source_that_does_not_fit(text: str, source: str) -> None:
    (complaint,) = complaints(text, source, text)
    assert complaint.startswith(f"“{text}” should be {source}, which is ")


def test_a_source_of_words_that_are_gone() -> None:
    (complaint,) = complaints("It takes its time.", "DELAY", "takes 0.2 s")
    assert "explains “takes 0.2 s”, and no number there needs it." in complaint


def test_words_explain_the_whole_of_a_number_only() -> None:
    assert len(complaints("takes 10.2 s", "DELAY", "0.2 s")) == 2
    assert len(complaints("takes 0.25 s", "DELAY", "takes 0.2")) == 2


@pytest.mark.parametrize("source", ["DELAYS", "twice DELAY", "print(1)", "'0.2'", "fact", ""])
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(LabError, match="is no source"):
        complaints("takes 0.2 s", source, "takes 0.2 s")


def test_a_sum_explains_its_result_and_must_be_right() -> None:
    right = "20 × 0.2 s = 4 s"
    assert complaints(right, "given", "20 × 0.2 s") == []
    assert (
        complaints("100 / 60 a second × 4 s = 6.7 slots", "given", "100 / 60 a second × 4 s") == []
    )
    (complaint,) = complaints("20 × 0.2 s = 5 s", "given", "20 × 0.2 s")
    assert complaint == "“20 × 0.2 s = 5” is not so: it is 4."


def test_a_number_of_a_notebook_is_that_of_its_code_or_has_a_source() -> None:
    code = "measure(slots=4, delay=0.05, lines=5_000)"
    text = "4 slots, 50 ms each, 5 000 lines"
    assert list(sources.check_page(sources.Sources({}, {}), "page", text, code)) == []
    harmed = text.replace("50 ms", "60 ms")
    (complaint,) = sources.check_page(sources.Sources({}, {}), "page", harmed, code)
    assert complaint.startswith("60 has no source")


def test_a_setting_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(
        'WAIT = float(os.environ.get("WAIT", "0.75"))\nlow, HIGH = 1, 20_000\n'
    )
    declared = {"WAIT": "settings.py", "TOP": "settings.py: HIGH = 1,"}
    assert sources.read_settings(tmp_path, declared) == {"WAIT": 0.75, "TOP": 20_000}
    with pytest.raises(LabError, match="sets no GONE"):
        sources.read_settings(tmp_path, {"GONE": "settings.py"})


def test_a_source_for_a_page_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "sources.toml").write_text('[settings]\n["gone.md"]\ngiven = ["1 s"]\n')
    assert sources.check(tmp_path, []) == ["lab/sources.toml: there is no page gone.md."]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_the_minutes_that_instructors_read_are_those_of_the_plan(path: Path) -> None:
    text = sources.read(path)[0]
    shown = re.findall(r"For instructors · (\d+) minutes", text)
    assert shown == re.findall(r"<!-- minutes: (\d+)", text)
