"""How much can a chapter take? The highest rate of arrivals at which it keeps what it promises."""

import math
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from lab.chapters import Chapter, folder
from lab.load import LocustLate, crowd, percentile

ANSWERS = 150
"""Arrivals that a run has at least: of a hundred, no 95th percentile can be kept for certain."""

STEP = math.sqrt(2)

percentile_interval: Callable[[Any, float], tuple[float, float]] = runpy.run_path(
    str(folder("05") / "slo.py")
)["percentile_interval"]


@dataclass(frozen=True)
class Promise:
    """Of all who come for this, `percent` per cent have it within `ms` milliseconds."""

    kind: str
    row: str
    percent: float
    ms: float
    arguments: tuple[str, ...] = ()
    "What Locust is told besides."

    def waits(self, rows: pd.DataFrame) -> "pd.Series[float]":
        """How long each arrival waited, in ms; for ever, if it failed or was never served.

        `rows` as `lab.load.crowd` returns them.
        """
        served = rows[(rows.name == self.row) & rows.error.isna()].latency_ms
        arrivals = (rows.name == "own delay").sum()
        return pd.Series([*served, *[math.inf] * (arrivals - len(served))])

    def kept(self, rows: pd.DataFrame) -> bool | None:
        """Whether a run has kept it; None if the run cannot tell (see chapter 05's `slo.py`)."""
        counts = self.waits(rows).round().value_counts()
        low, high = percentile_interval(counts.to_dict(), self.percent)
        return True if high <= self.ms else False if low > self.ms else None


PROMISES = {
    "visit": Promise("visit", "ping", 99, 200),
    "newsletter": Promise("newsletter", "newsletter finished", 95, 3000),
    "report": Promise("report", "report finished", 95, 3000, ("--lines", "5000")),
}
"""By what is asked for. A newsletter of five mails, each of 0.2 s, takes 1 s in a free slot."""


@dataclass(frozen=True)
class Knee:
    """Between `kept`, the highest rate that kept the promise, and `broken`, the next one.

    In arrivals a second. `kept` is 0 if even a sixteenth of the first rate was too much. `unsent`:
    it was Locust, on the same cores as the chapter, that could not send the next one on time.
    """

    kept: float
    broken: float
    unsent: bool


def find(chapter: Chapter, promise: Promise, first: float, seconds: float = 15.0) -> Knee:
    """Climb in steps of √2 from `first` arrivals a second; or descend, if that is too much."""
    rate, verdict = first, attempt(chapter, promise, first, seconds)
    if verdict == "kept":
        while (verdict := attempt(chapter, promise, rate * STEP, seconds)) == "kept":
            rate *= STEP
        return Knee(rate, rate * STEP, verdict == "unsent")
    while rate > first / 16:
        rate /= STEP
        above, verdict = verdict, attempt(chapter, promise, rate, seconds)
        if verdict == "kept":
            return Knee(rate, rate * STEP, above == "unsent")
    return Knee(0.0, rate, verdict == "unsent")


def attempt(
    chapter: Chapter, promise: Promise, rate: float, seconds: float
) -> Literal["kept", "broken", "unsent"]:
    """What becomes of the promise at this rate. A run that cannot tell is made once more."""
    seconds = max(seconds, ANSWERS / rate)
    for _ in range(2):
        try:
            rows = crowd(chapter.url, promise.kind, rate, seconds, *promise.arguments)
        except LocustLate:
            return "unsent"
        kept = promise.kept(rows)
        if kept is not None:
            return "kept" if kept else "broken"
    return "broken"


def goodput(promise: Promise, rows: pd.DataFrame, seconds: float) -> float:
    """Arrivals a second that had what they came for within the promised time."""
    return float((promise.waits(rows) <= promise.ms).sum() / seconds)


def typical(promise: Promise, rows: pd.DataFrame) -> float:
    """The median wait of those who were served, in ms."""
    return percentile(rows[(rows.name == promise.row) & rows.error.isna()].latency_ms, 50)
