"""The tour: the same work and the same visitor in every chapter, and one table."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab import experiments, plots
from lab.chapters import Chapter, chapters, start
from lab.load import percentile
from lab.mailbox import Count
from lab.results import from_root, origin, record, recorded


@dataclass(frozen=True)
class Stop:
    """One row of the tour: a chapter, its settings, and the process that does the work."""

    chapter: str
    label: str
    slots: int
    process: str
    settings: dict[str, Any]
    recovers_within: float = 0.0
    "Seconds after a crash in which the chapter may still finish the work by itself."


STOPS = [
    Stop("01", "01, one slot", 1, "web", {"THREADS": 1}),
    Stop("01", "01, four slots", 4, "web", {"THREADS": 4}),
    Stop("02", "02, push", 4, "web", {"JOB_SLOTS": 4}),
    Stop("03", "03, workers", 4, "mail", {"MAIL_SLOTS": 4}, recovers_within=30.0),
    Stop("04", "04, watched", 4, "mail", {"MAIL_SLOTS": 4, "LOOK_EVERY": 1}, recovers_within=30.0),
    Stop("05", "05, bounded", 4, "mail", {"MAIL_SLOTS": 4, "LOOK_EVERY": 1}, recovers_within=30.0),
]


@dataclass(frozen=True)
class Row:
    """What the tour found at one stop."""

    label: str
    accepted_ms: float
    newsletter_p99_ms: float
    report_p99_ms: float
    of_limit: float
    lost: int = 0
    twice: int = 0
    mails: int = 0
    deepest: int | None = None
    "Most tasks that waited in the mail queue, during the throughput; None before chapter 04."
    noticed: float | None = None
    "Seconds from freezing the worker until `/health/workers` says so; None before chapter 04."


def tour(keep: bool = False) -> None:
    """Visit every chapter that exists, print the table, write `tour.json` and `tour.png`."""
    begun = time.monotonic()
    stops = [stop for stop in STOPS if stop.chapter in chapters()]
    console = Console()
    with Progress(
        TextColumn("{task.description:<56}"), BarColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        bar = progress.add_task("", total=3 * len(stops) + 1)

        def say(text: str) -> None:
            progress.update(bar, description=text, advance=1)
            if not console.is_terminal:
                console.print(text)

        with ThreadPoolExecutor() as pool:
            visited = [visit(stop, say, pool) for stop in stops]
        say("Done")
    rows = [complete(row, harm.result()) for row, _, harm in visited]
    console.print(to_table(rows))
    seconds = round(time.monotonic() - begun)
    figures = {"rows": [asdict(row) for row in rows], "seconds": seconds}
    path = record("tour", figures, "make tour", keep)
    picture = plots.save(draw(rows, [beat for _, beat, _ in visited]), path.with_suffix(".png"))
    console.print(f"{seconds} s. Figures: {from_root(path)}. Picture: {from_root(picture)}.")


Harm = tuple[float | None, Count]
"""Seconds until a frozen worker was noticed, and what a `kill -9` cost."""

Visited = tuple[Row, experiments.Heartbeat, "Future[Harm]"]


def visit(stop: Stop, say: Callable[[str], None], pool: ThreadPoolExecutor) -> Visited:
    """Measure one stop; then hurt it, and leave it to recover in `pool` while the tour goes on.

    `say` is told what is being done.
    """
    chapter = start(stop.chapter, restart=True, MAIL_DELAY=experiments.MAIL_DELAY, **stop.settings)
    try:
        say(f"{stop.label}: newsletter and report, with a visitor")
        beat = experiments.heartbeat(chapter, lines=60_000)
        say(f"{stop.label}: throughput against its limit")
        watched = stop.chapter >= "04"
        with experiments.deepest_queue(chapter, asked=watched) as depths:
            of_limit = experiments.throughput(chapter, stop.slots, rounds=2)
        say(f"{stop.label}: kill -9 in the middle of a newsletter")
    except BaseException:
        chapter.stop()
        raise

    def p99(span: tuple[float, float]) -> float:
        return percentile(beat.visit.during(span).latency_ms, 99)

    row = Row(
        label=stop.label,
        accepted_ms=round(beat.accepted * 1000, 1),
        newsletter_p99_ms=round(p99(beat.newsletter), 1),
        report_p99_ms=round(p99(beat.report), 1),
        of_limit=round(of_limit, 3),
        deepest=max(depths, default=None),
    )
    return row, beat, pool.submit(hurt, chapter, stop)


def hurt(chapter: Chapter, stop: Stop) -> Harm:
    with chapter:
        watched = stop.chapter >= "04"
        noticed = experiments.noticed(chapter, stop.process) if watched else None
        return noticed, experiments.crash(chapter, stop.process, stop.recovers_within)


def complete(row: Row, harm: Harm) -> Row:
    noticed, count = harm
    return replace(row, noticed=noticed, lost=count.lost, twice=count.twice, mails=count.due)


COLUMNS: list[tuple[str, str, Callable[[dict[str, Any]], str]]] = [
    ("chapter", "chapter", lambda row: row["label"]),
    ("POST", "a POST is answered after", lambda row: duration(row["accepted_ms"])),
    ("mail p99", "visitor's p99, newsletter", lambda row: duration(row["newsletter_p99_ms"])),
    ("log p99", "visitor's p99, report", lambda row: duration(row["report_p99_ms"])),
    ("limit", "throughput of its limit", lambda row: f"{row['of_limit']:.0%}"),
    ("lost", "`kill -9`: mails lost", lambda row: f"{row['lost']} of {row['mails']}"),
    ("twice", "mails sent twice", lambda row: str(row["twice"])),
    ("queue", "deepest queue", lambda row: tasks(row.get("deepest"))),
    ("seen", "a frozen worker is noticed after", lambda row: after(row.get("noticed"))),
]
"""Heading on the terminal, heading in the README, and how to write the cell."""

CAPTION = """POST: until the POST of a newsletter is answered; from 02 on the median of three.
mail p99, log p99: 99 of 100 visitors wait no longer than this for /ping,
  while a newsletter goes out and while a report on a log is made.
limit: newsletters finished per second, of slots / service time.
lost, twice: of one newsletter's mails, after kill -9 in the middle.
queue, seen: tasks that waited; until a frozen worker shows in /health/workers."""


def duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def tasks(count: int | None) -> str:
    return "–" if count is None else str(count)


def after(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f} s"


def to_table(rows: list[Row]) -> Table:
    table = Table(caption=CAPTION, caption_justify="left")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="left" if heading == "chapter" else "right")
    for row in rows:
        table.add_row(*(cell(asdict(row)) for _, _, cell in COLUMNS))
    return table


def to_markdown() -> str:
    """The recorded tour as a Markdown table, with its machine and versions."""
    document = recorded("tour")
    lines = [
        "| " + " | ".join(heading for _, heading, _ in COLUMNS) + " |",
        "|---" + "|--:" * (len(COLUMNS) - 1) + "|",
    ]
    for row in document["figures"]["rows"]:
        lines.append("| " + " | ".join(cell(row) for _, _, cell in COLUMNS) + " |")
    return "\n".join([*lines, "", origin(document)])


def draw(rows: list[Row], beats: list[experiments.Heartbeat]) -> Figure:
    """One heartbeat under the other: what the visitor felt at each stop."""
    picture, grid = plots.figure(rows=len(rows), width=11, height=2.6 * len(rows) + 0.6)
    longest = max(beat.visit.rows.start.max() - beat.visit.rows.start.min() for beat in beats)
    for row, beat, axes in zip(rows, beats, grid[:, 0], strict=True):
        begin = beat.visit.rows.start.min()
        plots.heartbeat(axes, beat.visit.rows, begin)
        for (left, right), label, color in (
            (beat.newsletter, "newsletter", plots.ORANGE),
            (beat.report, "report", plots.GREEN),
        ):
            plots.span(axes, left - begin, right - begin, label, color)
        axes.set_xlim(0, longest)
        axes.set_title(row.label)
        axes.set_ylabel("visitor waits")
    grid[-1, 0].set_xlabel("seconds")
    return picture
