"""A queue that fills and empties: what the chapter says of it, and what arithmetic says.

A flood is a list of phases: so many newsletters a second, for so many seconds.
"""

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pandas as pd
import requests

from lab import faults
from lab.chapters import Chapter
from lab.load import addresses

Phases = list[tuple[float, float]]


class Watch:
    """What `/metrics` said: `rows`, filled when the watch is over (see `watched`)."""

    rows: pd.DataFrame


@contextmanager
def watched(chapter: Chapter, queue: str = "mail", every: float = 0.2) -> Iterator[Watch]:
    """Read a queue's depth and the age of its first message, each `every` seconds.

    After the block, `watch.rows` is a DataFrame with `seconds` (from the begin of the block),
    `depth` (messages that wait) and `age` (seconds).
    """
    watch, samples, over = Watch(), [], threading.Event()
    begun = time.monotonic()

    def look() -> None:
        while not over.wait(every):
            asked = time.monotonic() - begun
            samples.append((asked, *depth_and_age(chapter, queue)))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield watch
    finally:
        over.set()
        looking.join()
    watch.rows = pd.DataFrame(samples, columns=["seconds", "depth", "age"])


def depth_and_age(chapter: Chapter, queue: str) -> tuple[float, float]:
    """The two numbers that chapter 04 and later tell of a queue."""
    text = requests.get(f"{chapter.url}/metrics").text
    names = ("postroom_queue_messages", "postroom_queue_oldest_seconds")
    found = [re.search(rf'^{name}{{queue="{queue}"}} (\S+)', text, re.M) for name in names]
    depth, age = (float(each[1]) for each in found if each)
    return depth, age


def arrive(chapter: Chapter, phases: Phases, readers: int = 1) -> None:
    """Send newsletters to so many readers, at even intervals, each when it is due."""
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(readers)}
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        sent = []
        for due in due_times(phases):
            time.sleep(max(0.0, begun + due - time.monotonic()))
            sent.append(pool.submit(faults.send, chapter, "/newsletters", letter))
    for each in sent:
        each.result()  # one that was not accepted raises here


def due_times(phases: Phases) -> list[float]:
    """When each newsletter of the phases is due, in seconds from the begin."""
    times, begin = [], 0.0
    for rate, seconds in phases:
        times += [begin + n / rate for n in range(round(rate * seconds))]
        begin += seconds
    return times


def expected(phases: Phases, capacity: float, step: float = 0.05) -> pd.DataFrame:
    """Depth and age as arithmetic has them, if work flowed like water; columns as in `watched`.

    `capacity` is how many newsletters are done in a second at most. Depth is what has come minus
    what has been taken. The first in the queue came when as many had come as are taken now.
    """
    edges = np.cumsum([0.0, *(seconds for _, seconds in phases)])
    came_by = np.cumsum([0.0, *(rate * seconds for rate, seconds in phases)])
    seconds = np.arange(0, edges[-1], step)
    came = np.interp(seconds, edges, came_by)
    taken = np.zeros_like(came)
    for n in range(1, len(taken)):
        taken[n] = min(came[n], taken[n - 1] + capacity * step)
    age = seconds - np.interp(taken, came_by, edges)
    return pd.DataFrame({"seconds": seconds, "depth": came - taken, "age": age})


def age_at(rows: pd.DataFrame, depth: float) -> float:
    """The age of the first when, on the way down, not more than `depth` are left."""
    falling = rows[(rows.seconds >= deepest(rows)) & (rows.depth > 0)]
    few = falling[falling.depth <= depth]
    return float(few.age.iloc[0] if len(few) else falling.age.iloc[-1])


def deepest(rows: pd.DataFrame) -> float:
    """When (seconds) most messages waited."""
    return float(rows.seconds.iloc[rows.depth.to_numpy().argmax()])


def oldest(rows: pd.DataFrame) -> float:
    """When (seconds) the first in the queue was oldest."""
    return float(rows.seconds.iloc[rows.age.to_numpy().argmax()])


def emptied(rows: pd.DataFrame, after: float) -> float:
    """When, later than `after` (seconds), the queue was first seen empty; NaN if never."""
    return float(rows.seconds[(rows.seconds > after) & (rows.depth == 0)].min())
