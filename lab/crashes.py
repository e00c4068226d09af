"""Hurt two chapters side by side: one under Celery's default settings, one as chapter 03 has it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import pandas as pd

from lab import faults
from lab.chapters import Chapter, start
from lab.faults import Outcome
from lab.load import addresses, send_newsletter
from lab.waiting import wait_until

MAIL_DELAY = 0.1  # seconds a mail
OURS = 120.0  # seconds until even a very slow machine has mended everything
Sides = dict[str, Chapter]
"""Running chapters: "defaults" has Celery's default settings, "ours" those of chapter 03."""
T = TypeVar("T")


def start_both() -> Sides:
    """Both sides, started at once.

    What is killed comes back after half a second, Redis after three. A second attempt comes
    half a second after the first, not two: that saves time in class.
    """

    def begin(celery_defaults: bool) -> Chapter:
        return start(
            "03",
            restart=True,
            restart_after={"redis": 3.0},
            celery_defaults=celery_defaults,
            MAIL_DELAY=MAIL_DELAY,
            RETRY_AFTER=0.5,
        )

    with ThreadPoolExecutor() as pool:
        defaults, ours = pool.map(begin, (True, False))
    return {"defaults": defaults, "ours": ours}


def in_all(
    sides: Sides, patience: float, experiment: Callable[[Chapter, float], T]
) -> dict[str, T]:
    """What `experiment(chapter, seconds to wait)` finds on each side. Both run at once.

    For the defaults we wait `patience` seconds, for they leave jobs that never end.
    """
    waits = [patience if side == "defaults" else OURS for side in sides]
    with ThreadPoolExecutor() as pool:
        return dict(zip(sides, pool.map(experiment, sides.values(), waits), strict=True))


@dataclass(frozen=True)
class Crash:
    """What a `kill -9` in the middle of newsletters did to their mails."""

    due: int
    lost: int
    twice: int
    seconds: list[float]
    "When each mail arrived, from the kill on (before it: negative), in order."

    @property
    def standstill(self) -> float:
        """The longest time, in seconds, from one mail to the next."""
        return max(after - before for before, after in pairwise(self.seconds))


def kill(
    sides: Sides, process: str, letters: int = 4, mails: int = 30, patience: float = 15.0
) -> dict[str, Crash]:
    """Kill `process` when a third of the mails have gone out, and see what comes in the end.

    `letters` newsletters of `mails` mails go out at once, so they hold so many slots. The mail
    server drops the second copy of a Message-ID.
    """
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(mails)}

    def experiment(chapter: Chapter, wait: float) -> Crash:
        chapter.mailbox.set(deduplicate=True)
        jobs = [faults.send(chapter, "/newsletters", letter) for _ in range(letters)]
        wait_until(lambda: faults.arrived(chapter, jobs) >= letters * mails // 3)
        killed = time.time()
        chapter.hurt(process)
        faults.wait_for_ends(chapter, jobs, time.monotonic() + wait)
        chapter.wait_until_ready()
        chapter.mailbox.wait_until_quiet(5 * MAIL_DELAY)
        counts = [chapter.mailbox.count(addresses(mails), job) for job in jobs]
        received = [mail["received"] for job in jobs for mail in chapter.mailbox.messages(job)]
        chapter.mailbox.mend()
        return Crash(
            due=letters * mails,
            lost=sum(count.lost for count in counts),
            twice=sum(count.twice for count in counts),
            seconds=sorted(moment - killed for moment in received),
        )

    return in_all(sides, patience, experiment)


def hurt(
    sides: Sides, names: list[str], patience: float = 12.0, lines: int = 60_000
) -> dict[str, dict[str, Outcome]]:
    """On both sides, one fault of `lab.faults` after the other, the chapter mended in between.

    `lines` is the length of the reports' logs.
    """

    def experiment(chapter: Chapter, wait: float) -> dict[str, Outcome]:
        outcomes = {}
        for name in names:
            chapter.mailbox.set(deduplicate=True)
            outcomes[name] = faults.hurt(chapter, name, wait, lines)
            chapter.mailbox.mend()
            chapter.wait_until_ready()
        return outcomes

    return in_all(sides, patience, experiment)


def table(outcomes: dict[str, dict[str, Outcome]]) -> pd.DataFrame:
    """A row for each fault, and for each side what was lost, came twice, and after how long."""
    rows = []
    for fault in next(iter(outcomes.values())):
        row: dict[tuple[str, str], object] = {("", "fault"): fault}
        for side, found in outcomes.items():
            row[side, "mails lost"] = found[fault].lost
            row[side, "twice"] = found[fault].twice
            row[side, "reports lost"] = found[fault].reports_lost
            seconds = found[fault].seconds
            row[side, "all done after"] = "never" if seconds is None else f"{seconds:.1f} s"
        rows.append(row)
    columns = pd.MultiIndex.from_tuples(rows[0])
    return pd.DataFrame([list(row.values()) for row in rows], columns=columns)


def received_twice(chapter: Chapter, mails: int, deduplicate: bool) -> int:
    """How many of `mails` readers get two copies when every 5th mail is kept, but not answered for.

    With `deduplicate` the mail server throws the second copy of a Message-ID away.
    """
    chapter.mailbox.empty()
    chapter.mailbox.set(cut_answer_every=5, deduplicate=deduplicate)
    job = send_newsletter(chapter.url, mails)
    chapter.mailbox.mend()
    return chapter.mailbox.count(addresses(mails), job["id"]).twice
