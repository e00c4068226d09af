"""Crowds beyond those of `lab.load`: two kinds at once, one that grows, one at a second door."""

import os
import runpy
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import requests

from lab.chapters import Chapter, Supervised, folder, free_ports, is_open, read_procfile
from lab.knee import Promise
from lab.load import OWN_DELAY, locust_rows, percentile
from lab.waiting import wait_until

SLO = runpy.run_path(str(folder("05") / "slo.py"))
"""The names in chapter 05's `slo.py`."""

STEPS = 5  # of the shape `Steps` in chapter 05


def mixed(url: str, newsletters: float, visits_each: int, seconds: float) -> pd.DataFrame:
    """Open arrivals of two kinds at once: `newsletters` a second, `visits_each` visits to each.

    Returns one row per request, as `lab.visitor` does. Raises LabError if Locust fails.
    """
    shares = [
        '{"user_class_name": "OpenPublisher", "weight": 1}',
        f'{{"user_class_name": "OpenVisitor", "weight": {visits_each}}}',
    ]
    options = ["-u", 1 + visits_each, "--rate", newsletters, "-t", f"{round(seconds)}s"]
    options += ["--tags", "visit", "newsletter", "--config-users", *shares]
    return locust_rows(url, "OpenVisitor OpenPublisher", *map(str, options))


def newsletters(url: str, rate: float, seconds: float, *arguments: str) -> pd.DataFrame:
    """Open arrivals of newsletters, `rate` a second, until the last is served.

    As `lab.crowd`, but the rows also come back if Locust was late: the row `own delay` says by how
    much. Raises LabError if Locust fails.
    """
    streams = 5
    options = ["-u", streams, "--rate", rate / streams, "-t", f"{round(seconds)}s"]
    options += ["--tags", "newsletter", *arguments]
    return locust_rows(url, "OpenPublisher", *map(str, options))


def climb(url: str, top: float, seconds: float, recipients: int) -> dict[float, pd.DataFrame]:
    """Newsletters that come faster in five even steps, `seconds` each, up to `top` a second.

    Returns the rows of each step by its rate: those of the arrivals that were due in it. A queue
    that a step leaves behind is there when the next begins.
    Raises LabError if Locust fails.
    """
    shape = ["--shape", "Steps", "--recipients", str(recipients)]
    rows = newsletters(url, top, STEPS * seconds, *shape)
    step = ((rows.start - rows.start.min()) // seconds).clip(upper=STEPS - 1)
    return {round(top * (n + 1) / STEPS, 2): rows[step == n] for n in range(STEPS)}


def finished_a_second(rows: pd.DataFrame) -> float:
    """Newsletters a second, from the first end to the last: all that busy slots can do."""
    finished = rows[rows.name == "newsletter finished"]
    ends = finished.start + finished.latency_ms / 1000
    return float((len(ends) - 1) / (ends.max() - ends.min()))


def arrivals(rows: pd.DataFrame) -> pd.DataFrame:
    """What became of each arrival of a newsletter, in order.

    Columns: `due` (seconds since the first), `seconds` (until it was finished; NaN if it never
    was), `turned_away` (whether the answer was 429).
    """
    due = rows[rows.name == "own delay"].start.sort_values(ignore_index=True)
    finished = rows[(rows.name == "newsletter finished") & rows.error.isna()]
    refused = rows[(rows.name == "newsletter accepted") & (rows.status == 429)]
    return pd.DataFrame(
        {
            "due": due - due.min(),
            "seconds": due.map(finished.set_index("start").latency_ms / 1000),
            "turned_away": due.isin(refused.start),
        }
    )


@contextmanager
def second_door(chapter: Chapter, **settings: Any) -> Iterator[str]:
    """The URL of one more web process in front of the same queues, with settings of its own.

    From chapter 03 on. It ends with the block, or when this program is gone.
    """
    (port,) = free_ports(1)
    ours = {"PORT": port, "REDIS_URL": chapter.redis_url, "DATA": chapter.data, **settings}
    environment = {**os.environ, **{name: str(value) for name, value in ours.items()}}
    commands = {"web": read_procfile(chapter.path)["web"]}
    with tempfile.TemporaryDirectory(prefix="unblocked-") as logs:
        door = Supervised(commands, chapter.path, environment, Path(logs))
        try:
            wait_until(lambda: is_open(port))
            url = f"http://127.0.0.1:{port}"
            requests.get(f"{url}/ping", timeout=60).raise_for_status()
            yield url
        finally:
            door.stop()


# --- The service level ----------------------------------------------------------------


def times(rows: pd.DataFrame, name: str) -> dict[int, int]:
    """How many answers of this name took so many milliseconds, as `slo.py` wants them."""
    return Counter(rows[rows.name == name].latency_ms.round().astype(int).tolist())


def judge(rows: pd.DataFrame) -> list[Any]:
    """The judgements of chapter 05's `slo.toml` on a run, as Locust makes them at its end."""
    level = SLO["read"](folder("05") / "slo.toml")
    failed = rows[rows.error.notna()].name.value_counts()
    names = rows.name.unique()
    return list(
        level.judge({name: (times(rows, name), int(failed.get(name, 0))) for name in names})
    )


def verdicts(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The verdict of each run (a column) on each promise (a row); a dash where nobody asked.

    The last row is the exit code with which Locust would end.
    """
    judged: dict[str, dict[str, str]] = {}
    for run, rows in runs.items():
        found = judge(rows)
        judged[run] = {each.promise: f"{each.verdict} ({each.found})" for each in found}
        judged[run]["exit code"] = str(SLO["exit_code"](found))
    promises = dict.fromkeys(key for each in judged.values() for key in each)
    table = pd.DataFrame(judged, index=sorted(promises, key="exit code".__eq__))
    return table.fillna("–").rename_axis("promise").reset_index()


def verdict(promise: Promise, rows: pd.DataFrame) -> str:
    """`kept`, `broken`, or `too noisy`: too few answers to tell, or Locust itself was late."""
    if percentile(rows[rows.name == "own delay"].latency_ms, 99) > OWN_DELAY:
        return "too noisy"
    return {True: "kept", False: "broken", None: "too noisy"}[promise.kept(rows)]


def interval(rows: pd.DataFrame, name: str, percent: float) -> tuple[float, float]:
    """Between which values (ms) the percentile lies, with 95 % confidence."""
    low, high = SLO["percentile_interval"](times(rows, name), percent)
    return float(low), float(high)


def answers_needed(percent: float) -> int:
    """The fewest answers of which `slo.py` can give a percentile an upper end."""
    count = 1
    while SLO["percentile_interval"]({1: count}, percent)[1] > 1:
        count += 1
    return count
