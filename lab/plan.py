"""The notebooks as a class sees them: their parts, and the minutes that each takes.

Nothing of Jupyter is imported here: its file format alone takes seconds, and these tables are
made for pages and tests that run no notebook.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.chapters import ROOT, LabError, chapters, folder
from lab.prose import table as markdown

FOLDER = ROOT / "notebooks"
LARGEST = 400_000  # bytes of a notebook's file
HALF_DAY, FULL_DAY = 180, 360
"""Minutes in front of a class, breaks not counted."""


def paths(names: list[str] | None = None) -> list[Path]:
    """The notebooks in their order, or those whose file begins with one of `names`.

    Raises LabError for a name that no notebook has.
    """
    found = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    for name in names or ():
        if not any(path.name.startswith(name) for path in found):
            raise LabError(
                f"There is no notebook {name!r}. There are: {', '.join(p.stem for p in found)}."
            )
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, as in its file, with each `source` as one text."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found]


@dataclass(frozen=True)
class Part:
    """A part of a notebook, as its instructor cell describes it."""

    notebook: str
    title: str
    minutes: int
    cut: int
    "1 is left out first, then 2, then 3; 0 stays."


MINUTES = re.compile(r"<!-- minutes: (\d+)(?:, cut: ([123]))? -->")
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


def parts(path: Path) -> list[Part]:
    """The parts of a notebook: each instructor cell ends one, under the last heading before it."""
    found, title = [], path.stem
    for cell in cells(path):
        if cell["cell_type"] != "markdown":
            continue
        if "instructor" in cell["metadata"].get("tags", []):
            minutes = MINUTES.search(cell["source"])
            if minutes is None:
                raise LabError(f"{path.name}: an instructor cell has no <!-- minutes: … -->.")
            found.append(Part(path.stem, title, int(minutes[1]), int(minutes[2] or 0)))
        elif headings := HEADING.findall(cell["source"]):
            title = headings[-1]
    return found


def fit(everything: list[Part], minutes: int) -> list[Part]:
    """What stays in so many minutes: the parts are cut in the order of their `cut`, last first."""
    stay = list(everything)
    for level in (1, 2, 3):
        for part in reversed(everything):
            if sum(each.minutes for each in stay) <= minutes:
                return stay
            if part.cut == level:
                stay.remove(part)
    return stay


def classes() -> tuple[list[Part], list[Part], list[Part]]:
    """All parts; those of a full day; those of a half day."""
    everything = [part for path in paths() for part in parts(path)]
    return everything, fit(everything, FULL_DAY), fit(everything, HALF_DAY)


def lesson_minutes() -> dict[str, int]:
    """By chapter: the minutes of its lesson, for one who reads it, runs it and tries it.

    Raises LabError for a lesson that does not say them.
    """
    found = {}
    for number in chapters():
        minutes = MINUTES.search((folder(number) / "README.md").read_text())
        if minutes is None:
            raise LabError(f"The lesson of {number} has no <!-- minutes: … -->.")
        found[number] = int(minutes[1])
    return found


def by_notebook() -> str:
    """A Markdown table for INSTRUCTORS.md: minutes by lesson, by notebook and by class."""
    lessons, stays = lesson_minutes(), classes()
    rows = []
    for path in paths():
        number, title = path.stem[:2], path.stem[3:].replace("_", " ").capitalize()
        minutes = [total(part for part in stay if part.notebook == path.stem) for stay in stays]
        name = f"[{number} {title}](notebooks/{path.name})"
        rows.append([name, str(lessons.get(number, "–")), *minutes])
    rows.append(["in all", str(sum(lessons.values())), *map(total, stays)])
    heading = ["minutes", "the lesson, alone", "the notebook, in class", "full day", "half day"]
    return markdown(heading, rows)


def by_part() -> str:
    """A Markdown table for INSTRUCTORS.md: each part, and the classes in which it stays."""
    everything, full, half = classes()
    rows = [
        [
            f"{part.notebook[:2]} {part.title}",
            *(str(part.minutes) if part in stay else "–" for stay in (everything, full, half)),
        ]
        for part in everything
    ]
    return markdown(["part", "minutes", "full day", "half day"], rows)


def total(stay: Iterable[Part]) -> str:
    return str(sum(part.minutes for part in stay))


def show() -> int:
    """Print each part with its minutes, and what a half day and a full day leave out."""
    everything, full, half = classes()
    table = Table(caption="–: left out", caption_justify="left", show_footer=True)
    table.add_column("notebook")
    table.add_column("part", "minutes, breaks not counted")
    for heading, stay in (("all", everything), ("full day", full), ("half day", half)):
        minutes = total(stay)
        table.add_column(heading, minutes, justify="right")
    before = ""
    for part in everything:
        minutes_of = [
            str(part.minutes) if part in stay else "–" for stay in (everything, full, half)
        ]
        table.add_row(part.notebook if part.notebook != before else "", part.title, *minutes_of)
        before = part.notebook
    Console().print(table)
    return 0
