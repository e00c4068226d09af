"""`make test` itself: it can say no, it says what failed, and one part does not hide the other."""

from pathlib import Path

import pytest

from lab import proof
from lab.proof import Case

MARKERS = "[pytest]\nmarkers =\n    alone\n    long\n"
PASSES = "def test_one(): pass\n"
ALONE = "import pytest\n\n@pytest.mark.alone\ndef test_two(): {body}\n"
LONG = "import pytest\n\n@pytest.mark.long\ndef test_three(): assert False\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository whose tests are run one by one."""
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    monkeypatch.setattr(proof, "FOLDER", tmp_path / ".lab" / "tests")
    monkeypatch.setattr(proof, "PARTS", {"together": ("not alone",), "alone": ("alone",)})
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # or each start takes a second
    (tmp_path / "pytest.ini").write_text(MARKERS)
    (tmp_path / "tests").mkdir()
    return tmp_path


def write(place: Path, together: str, alone: str) -> None:
    for name, text in (("together", together), ("alone", alone), ("long", LONG)):
        (place / "tests" / f"test_{name}.py").write_text(text)


def test_all_is_well_when_both_parts_pass(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(place, PASSES, ALONE.format(body="pass"))
    assert proof.run(everything=False) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"


def test_a_failure_in_one_part_does_not_hide_the_other(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(place, "def test_one(): assert 1 == 2\n", ALONE.format(body="assert 3 == 4"))
    assert proof.run(everything=False) == 1
    said = capfd.readouterr().out.partition("Failed:")[2]
    assert "tests/test_together.py::test_one\n      assert 1 == 2" in said
    assert "tests/test_alone.py::test_two\n      assert 3 == 4" in said
    assert said.splitlines()[-1] == "0 passed, 2 failed, 0 skipped"


def test_the_long_ones_are_run_on_demand(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(place, PASSES, ALONE.format(body="pass"))
    assert proof.run(everything=True) == 1
    assert "tests/test_long.py::test_three" in capfd.readouterr().out


def test_a_part_without_a_test_is_no_success(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(place, PASSES, PASSES.replace("one", "two"))
    assert proof.run(everything=False) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"


def test_a_file_that_cannot_be_imported_is_a_failure(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(place, "import nothing_of_this_name\n", ALONE.format(body="pass"))
    assert proof.run(everything=False) == 1
    assert "test_together" in capfd.readouterr().out.partition("Failed:")[2]


def test_an_error_in_a_fixture_is_a_failure(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = "import pytest\n\n@pytest.fixture\ndef it(): raise ValueError('no')\n\n"
    write(place, broken + "def test_one(it): pass\n", ALONE.format(body="pass"))
    assert proof.run(everything=False) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"


def test_what_is_skipped_is_said_with_its_reason() -> None:
    cases = [Case("tests/a.py", f"test_{n}", 1.0, "skipped", "No Chromium") for n in range(3)]
    said = proof.summary([*cases, Case("tests/a.py", "test_4", 1.0, "passed", "")], 61.5)
    assert "3 × No Chromium" in said
    assert "1:01 minutes" in said
    assert said.splitlines()[-1] == "1 passed, 0 failed, 3 skipped"


def test_the_times_name_the_slowest_first(place: Path) -> None:
    assert "No test has been run" in proof.times()
    proof.FOLDER.mkdir(parents=True)
    cases = {"quick": 0.25, "slow": 2.5}
    lines = [
        f'<testcase classname="tests.a" name="{name}" time="{t}"/>' for name, t in cases.items()
    ]
    (proof.FOLDER / "together.xml").write_text(f"<testsuite>{''.join(lines)}</testsuite>")
    said = proof.times().splitlines()
    assert said[1].split() == ["2.8", "2", "tests/a.py"]
    assert [line.rpartition("::")[2] for line in said if "::" in line] == ["slow", "quick"]


def test_a_chapters_own_tests_are_counted_instead_of_the_one_that_runs_them(place: Path) -> None:
    (proof.FOLDER / "chapters").mkdir(parents=True)
    outer = '<testcase classname="tests.test_chapters" name="{}" time="9">{}</testcase>'
    both = outer.format("01", "") + outer.format("02", '<failure message="no"/>')
    (proof.FOLDER / "together.xml").write_text(f"<testsuite>{both}</testsuite>")
    inner = '<testcase classname="01_sync.test_chapter" name="test_one" time="1"/>'
    (proof.FOLDER / "chapters" / "01.xml").write_text(f"<testsuite>{inner}</testsuite>")
    found = [(case.file, case.name, case.outcome) for case in proof.read_all()]
    assert found == [
        ("01_sync/test_chapter.py", "test_one", "passed"),
        ("tests/test_chapters.py", "02", "failed"),
    ]
