"""Load tests for a person: Locust's page on a chapter, or one shape of load with a report."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from redis import Redis
from rich.console import Console

from lab import plots
from lab.chapters import Chapter, LabError, check_free, folder, start
from lab.load import command_of, supervised, wait_for_end
from lab.results import LOCAL, from_root

LOCUST_PORT = int(os.environ.get("LOCUST_PORT", "8089"))
SHAPES = ("Steps", "Spike", "Ramp", "Soak")
COLORS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, plots.SKY, plots.GREY)


def open_page(number: str) -> None:
    """Start chapter `number` and Locust's page, both on their usual ports, until Ctrl-C."""
    console = Console(highlight=False)
    check_free("LOCUST_PORT", LOCUST_PORT)
    console.print(f"Starting chapter {number} and Locust …")
    with (
        start(number, fixed_ports=True, restart=True) as chapter,
        tempfile.TemporaryDirectory(prefix="unblocked-") as place,
    ):
        command = [*command_of(chapter.url), *people(number), "--class-picker", "-u", "10"]
        command += ["-r", "2", "--web-host", "127.0.0.1", "--web-port", str(LOCUST_PORT)]
        with supervised(command, Path(place)) as page:
            console.print(
                f"\n  Open [bold]http://127.0.0.1:{LOCUST_PORT}[/bold] (Locust) and "
                f"[bold]{chapter.url}[/bold] (the Postroom) in a browser. Press Start in Locust; "
                "keep the Postroom in view.\n  Ctrl-C stops everything.\n"
            )
            try:
                wait_for_end(page)
                raise LabError(f"Locust ended:\n{page.log('locust')}")
            except KeyboardInterrupt:
                console.print("Stopping …")


def people(number: str) -> list[str]:
    """The users that chapter `number` can serve: 01 pushes nothing."""
    watcher = [] if number == "01" else ["Watcher"]
    return ["Visitor", "Publisher", *watcher, "OpenVisitor", "OpenPublisher"]


def run_shape(number: str, shape: str, users: int, seconds: int, who: list[str]) -> int:
    """Put one shape of load on a chapter, write a page and a picture, judge by `slo.toml`.

    `who` are Locust's classes. Returns the exit code: 0 if the service level was kept, 1 if
    not, 2 if the run was too noisy to tell. Raises LabError for an unknown shape.
    """
    if shape not in SHAPES:
        raise LabError(f"There is no shape {shape!r}. There are: {', '.join(SHAPES)}.")
    LOCAL.mkdir(parents=True, exist_ok=True)
    page = LOCAL / f"load_{number}_{shape.lower()}.html"
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place, start(number) as chapter:
        rows = Path(place) / "rows.csv"
        command = [*command_of(chapter.url), *who, "--headless", "--only-summary", "-s", "60"]
        command += ["--shape", shape, "-u", str(users), "-t", f"{seconds}s", "--rows", str(rows)]
        command += ["--slo", str(folder("05") / "slo.toml"), "--html", str(page)]
        with queue_depths(chapter) as depths, supervised(command, Path(place)) as locust:
            code = wait_for_end(locust, timeout=seconds + 180)
            print(locust.log("locust", lines=10_000))
        found = pd.read_csv(rows) if rows.exists() else pd.DataFrame()
        if found.empty:
            raise LabError(f"Locust ended with {code}, and has asked for nothing.")
        title = f"Chapter {number}, {shape.lower()}, at most {users} users"
        picture = draw(found, pd.DataFrame(depths), title)
    path = plots.save(picture, page.with_suffix(".png"))
    print(f"\nPicture: {from_root(path)}. Locust's page: {from_root(page)}.")
    return code


@contextmanager
def queue_depths(chapter: Chapter, every: float = 0.2) -> Iterator[list[dict[str, float]]]:
    """How many tasks wait in each queue, five times a second; nothing before chapter 03.

    Rows for a DataFrame: `at` (seconds since 1970), `mail`, `reports`.
    """
    depths: list[dict[str, float]] = []
    over = threading.Event()

    def look() -> None:
        redis = Redis.from_url(chapter.redis_url)
        while not over.wait(every):
            found = {queue: float(redis.llen(queue)) for queue in ("mail", "reports")}
            depths.append({"at": time.time(), **found})

    looking = threading.Thread(target=look)
    if "redis" in chapter.commands:
        looking.start()
    try:
        yield depths
    finally:
        over.set()
        if looking.ident is not None:
            looking.join()


def draw(rows: pd.DataFrame, depths: pd.DataFrame, title: str) -> Figure:
    """Three plots over one time axis: answers a second, latency, and the queues under it.

    `rows` as `lab.load` returns them; `depths` as `queue_depths` gives them, or empty.
    """
    shown = rows[~rows.name.isin(["own delay", "look-up", "connect"])]
    begin = rows.start.min()
    queues = not depths.empty
    picture, grid = plots.figure(rows=2 + queues, width=11, height=3.2 * (2 + queues))
    answers, latency = grid[0, 0], grid[1, 0]
    longest = 0.0
    for (name, group), color in zip(shown.groupby("name"), COLORS, strict=False):
        ended = group.start + group.latency_ms / 1000 - begin
        per_second = ended.astype(int).value_counts().sort_index()
        answers.plot(per_second.index, per_second, color=color, label=name)
        due = (group.start - begin).astype(int)
        slow = group.latency_ms.groupby(due).quantile(0.95, interpolation="higher")
        latency.plot(slow.index, slow, color=color, label=name)
        longest = max(longest, ended.max())
    answers.set_ylabel("answers a second")
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "fontsize": 11, "frameon": False}
    answers.legend(**beside)
    latency.set_yscale("log")
    latency.set_yticks([1, 10, 100, 1000, 10_000], ["1 ms", "10 ms", "100 ms", "1 s", "10 s"])
    latency.minorticks_off()
    latency.set_ylabel("latency, p95")
    if queues:
        for queue, color in (("mail", plots.ORANGE), ("reports", plots.GREEN)):
            grid[2, 0].plot(depths["at"] - begin, depths[queue], color=color, label=queue)
        grid[2, 0].set_ylabel("tasks in the queue")
        grid[2, 0].legend(**beside)
    for axes in grid[:, 0]:
        axes.set_xlim(0, longest)
    grid[0, 0].set_title(title)
    grid[-1, 0].set_xlabel("seconds")
    return picture
