"""Many jobs that failed at the same moment try again: who knocks when, and who is let in.

A rule says how many seconds a job waits after so many tries, from one on. The chapter's own is
`backoff` in `04_monitoring/tasks.py`: this module reads it from there.
"""

import ast
import heapq
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.chapters import Chapter, folder

Rule = Callable[[int], float]

FIRST, LONGEST = 2.0, 8.0  # seconds, as in the chapter
MOST_TRIES = 6
BIN = 0.1  # seconds


def constant(tries: int) -> float:
    """The same wait each time."""
    return FIRST


def doubling(tries: int) -> float:
    """Twice as long each time, up to a bound; all jobs alike."""
    return min(LONGEST, FIRST * 2.0 ** (tries - 1))


def chapters_own(seed: int = 1) -> Rule:
    """`backoff` as the chapter has it, without the rest of its `tasks.py`, which needs a Redis."""
    files = ((folder("04") / name).read_text() for name in ("times.py", "tasks.py"))
    module = ast.parse("\n".join(files))
    wanted = ("def backoff", "RETRY_AFTER =", "LONGEST_RETRY =")
    module.body = [each for each in module.body if ast.unparse(each).startswith(wanted)]
    names: dict[str, Any] = {"random": random.Random(seed), "os": os}  # noqa: S311  (no secret)
    exec(compile(module, "tasks.py", "exec"), names)  # noqa: S102  (a file of ours)
    rule: Rule = names["backoff"]
    return rule


@dataclass(frozen=True)
class Return:
    """What the mail server saw: `knocks`, the seconds at which somebody asked, in order."""

    knocks: list[float]
    given_up: int
    over: float
    "When the last job was served or given up."

    def peak(self, since: float) -> int:
        """The most knocks in a tenth of a second, from `since` on."""
        counts = Counter(slot(at) for at in self.knocks if at >= since)
        return max(counts.values(), default=0)


def simulate(rule: Rule, jobs: int, back: float, capacity: int) -> Return:
    """All jobs fail at 0; from `back` on the server takes `capacity` of them in 0.1 s.

    It refuses the others, and they wait again; after six tries they are given up.
    """
    due = [(rule(1), job, 1) for job in range(jobs)]
    heapq.heapify(due)
    knocks, taken, given_up = [], Counter[int](), 0
    while due:
        at, job, tries = heapq.heappop(due)
        knocks.append(at)
        if at >= back and taken[slot(at)] < capacity:
            taken[slot(at)] += 1
        elif tries + 1 == MOST_TRIES:
            given_up += 1
        else:
            heapq.heappush(due, (at + rule(tries + 1), job, tries + 1))
    return Return(knocks, given_up, knocks[-1])


def slot(at: float) -> int:
    """In which tenth of a second; 0.3 / 0.1 is a little less than 3 in floating point."""
    return int(np.floor(round(at / BIN, 6)))


def seen(chapter: Chapter, jobs: list[str]) -> pd.DataFrame:
    """From the mail worker's log: `job`, `at` (seconds since the epoch) and `state`.

    One row for each time that a job was put off (RETRY) or ended.
    """
    rows = []
    for text in chapter.log("mail", 10**6).splitlines():
        line = json.loads(text) if text.startswith("{") else {}
        words = line.get("event", "").replace(",", "").split()
        if line.get("job") in jobs and words[0] == "newsletter":
            at = pd.Timestamp(line["timestamp"]).timestamp()
            rows.append((line["job"], at, words[1]))
    return pd.DataFrame(rows, columns=["job", "at", "state"])
