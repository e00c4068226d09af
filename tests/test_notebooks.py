"""The notebooks run in any order, beside each other, and say what is true; so do their outputs."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import classroom, plan
from lab.plan import Part, cells, fit, paths
from lab.waiting import wait_until

from .conftest import ROOT

NOTEBOOKS = paths()
IDS = [path.stem for path in NOTEBOOKS]
SAMPLE = "01"
"""The one that `make test` runs; `make test-all` runs them all."""
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in cells(path) if cell["cell_type"] == kind]


def printed(cells: list[dict[str, Any]]) -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join(
        "".join(output["text"]) for output in outputs if output["output_type"] == "stream"
    )


# --- They run -------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.long) if path.stem[:2] != SAMPLE else path
        for path in NOTEBOOKS
    ],
    ids=IDS,
)
def test_it_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that is broken raises; one that is too noisy says so, and that is no failure."""
    import nbformat

    from lab import notebooks

    monkeypatch.setenv("QUICK", "1")
    notebook = nbformat.read(path, as_version=4)
    notebooks.execute(notebook)
    assert "✓" in printed(notebook.cells)


def test_a_notebook_that_fails_says_where() -> None:
    import nbformat
    from nbclient.exceptions import CellExecutionError

    from lab import notebooks

    cell = nbformat.v4.new_code_cell("1 / 0  # here")
    with pytest.raises(CellExecutionError, match=r"(?s)# here.*ZeroDivisionError"):
        notebooks.execute(nbformat.v4.new_notebook(cells=[cell]))


KERNEL = """
import lab
chapter = lab.start("01")
with lab.visitor(chapter.url):
    print("running", flush=True)
    lab.send_newsletter(chapter.url, recipients=10_000)
"""


def test_a_kernel_that_is_killed_leaves_nothing_behind() -> None:
    """A kernel is a Python process: killed, it takes chapter, Locust and all with it."""
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    kernel.stdout.readline()
    family = psutil.Process(kernel.pid).children(recursive=True)
    assert any("locust" in " ".join(process.cmdline()) for process in family)
    assert any("gunicorn" in " ".join(process.cmdline()) for process in family)
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait(30)
    wait_until(lambda: not any(process.is_running() for process in family), 30)


# --- What is kept in git --------------------------------------------------------------


@each
def test_its_outputs_are_those_of_one_whole_run(path: Path) -> None:
    code = of_kind(path, "code")
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1)), "Run: make notebooks-run"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "✓" in printed(code)


@each
def test_it_names_no_machine_and_is_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.encode()) <= plan.LARGEST
    shown = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/(home|root|tmp|work|usr|Users)/", shown)
    assert "\\u001b" not in shown


# --- How they are written -------------------------------------------------------------


@each
def test_it_predicts_measures_and_explains(path: Path) -> None:
    first, *_ = notes = [cell["source"] for cell in of_kind(path, "markdown")]
    text = "\n\n".join(notes)
    number = path.stem[:2]
    assert text.startswith(f"# {number} · ")
    assert "**The question.**" in first
    headings = [line.lstrip("#").strip() for line in re.findall(r"^#+ .+$", text, re.MULTILINE)]
    order = [name for name in headings if name in ("Predict", "Measure", "Explain")]
    assert order == ["Predict", "Measure", "Explain"] * (len(order) // 3)
    assert order
    assert headings[-2:] == ["Your turn", "Remember"]
    predictions = re.split(r"^#+ Predict$", text, flags=re.MULTILINE)[1:]
    assert all("<details><summary>" in p.partition("\n#")[0] for p in predictions)


@each
def test_its_cells_are_short_and_its_claims_can_fail(path: Path) -> None:
    code = [cell["source"] for cell in of_kind(path, "code")]
    assert max(len(source.splitlines()) for source in code) <= 20
    assert any("claim(" in source for source in code)
    assert "import locust" not in "\n".join(code)  # it hangs a kernel


@each
def test_instructors_find_minutes_and_what_to_ask(path: Path) -> None:
    parts = plan.parts(path)
    assert parts
    assert all(0 < part.minutes <= 30 for part in parts)
    notes = [
        cell["source"] for cell in cells(path) if "instructor" in cell["metadata"].get("tags", [])
    ]
    assert all(note.startswith("<details><summary>For instructors") for note in notes)
    assert all("**Ask**" in note or "**Demo**" in note for note in notes)


# --- The helpers ----------------------------------------------------------------------


def test_a_claim_holds_or_is_too_noisy_or_fails(capsys: pytest.CaptureFixture[str]) -> None:
    classroom.claim("fast", 0.95, at_least=0.9, broken=0.5)
    assert capsys.readouterr().out == "✓ fast: 0.95\n"
    classroom.claim("fast", 0.7, at_least=0.9, broken=0.5)
    assert "Too noisy" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="should be at least 0.9"):
        classroom.claim("fast", 0.4, at_least=0.9, broken=0.5)
    classroom.claim("lost", 0, at_most=0)
    with pytest.raises(AssertionError, match="at most 0"):
        classroom.claim("lost", 1, at_most=0)
    with pytest.raises(AssertionError):
        classroom.claim("fast", float("nan"), at_least=0.9, broken=0.5)


def test_a_plan_cuts_the_first_level_first_and_from_the_end() -> None:
    parts = [Part("01", name, 10, cut) for name, cut in (("a", 2), ("b", 1), ("c", 0), ("d", 1))]

    def titles(minutes: int) -> str:
        return "".join(part.title for part in fit(parts, minutes))

    assert titles(40) == "abcd"
    assert titles(30) == "abc"
    assert titles(20) == "ac"
    assert titles(10) == "c"


def test_the_classes_fit_into_their_time() -> None:
    everything = [part for path in paths() for part in plan.parts(path)]
    for minutes in (plan.HALF_DAY, plan.FULL_DAY):
        stay = fit(everything, minutes)
        assert sum(part.minutes for part in stay) <= minutes
        assert len({part.notebook for part in stay}) >= 4


def test_the_table_for_instructors_adds_up() -> None:
    rows = [line.strip("| ").split(" | ") for line in plan.by_notebook().splitlines()[2:]]
    *numbers, sums = [[int(cell) if cell.isdigit() else 0 for cell in row[1:]] for row in rows]
    assert len(numbers) == len(NOTEBOOKS)
    assert [sum(column) for column in zip(*numbers, strict=True)] == sums
    assert sums[0] > 0
    assert sums[1] > plan.FULL_DAY >= sums[2] > plan.HALF_DAY >= sums[3] > 0


def test_the_map_has_the_minutes_of_every_lesson_and_notebook() -> None:
    text = (ROOT / "README.md").read_text()
    for number, minutes in plan.lesson_minutes().items():
        assert re.search(rf"^\| \[{number} .*\| {minutes} min \|", text, re.MULTILINE), number
    for path in NOTEBOOKS:
        minutes = sum(part.minutes for part in plan.parts(path))
        assert f"[{minutes} min](notebooks/{path.name})" in text, path.name


def test_progress_bars_are_not_kept() -> None:
    import nbformat

    from lab import notebooks

    bar = nbformat.v4.new_output("stream", name="stderr", text="\r 50%|#####")
    words = nbformat.v4.new_output("stream", name="stderr", text="A warning")
    cell = nbformat.v4.new_code_cell("", outputs=[bar, words])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebooks.tidy(notebook)
    assert notebook.cells[0].outputs == [words]
    assert json.dumps(notebook.metadata["kernelspec"])
