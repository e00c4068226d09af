"""How often is a task started that takes longer than Redis waits for its acknowledgement?"""

import math
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis

from lab.chapters import ROOT, Chapter, LabError, Supervised

COPIES = 3  # tasks of each length
WORKER = "celery --app lab.napping worker --pool threads --concurrency 100 --without-mingle"


def most_starts(length: float, timeout: float) -> int:
    """By arithmetic: one at time 0, and one more whenever the timeout passes before the end."""
    return math.ceil(length / timeout)


def starts(
    redis_url: str, timeouts: list[float], lengths: list[float]
) -> dict[float, dict[float, float]]:
    """How often a task of each length (s) was started, by visibility timeout (s).

    Counted until each task has ended once; the mean of three tasks. A worker for each timeout,
    all at once, each with a database of this Redis of its own: in one, the shortest rules.
    """
    server = redis_url.rpartition("/")[0]
    databases = [f"{server}/{number}" for number in range(1, len(timeouts) + 1)]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda url, timeout: count(url, timeout, lengths), databases, timeouts)
        return dict(zip(timeouts, found, strict=True))


def waited_at_the_door(chapter: Chapter) -> int:
    """How often chapter 03's mail worker found another worker on a job, and put its copy off."""
    return chapter.log("mail", 1_000_000).count("retry: Retry in 5")


def count(redis_url: str, timeout: float, lengths: list[float]) -> dict[float, float]:
    names = {f"{length} s, task {n}": length for length in lengths for n in range(COPIES)}
    with worker(redis_url, timeout), Redis.from_url(redis_url, decode_responses=True) as redis:
        redis.flushdb()
        send(redis_url, names)
        deadline = time.monotonic() + max(lengths) + 60
        while redis.hlen("ended") < len(names):
            if time.monotonic() > deadline:
                raise LabError("Tasks that nap did not end. Is the machine very busy?")
            time.sleep(0.05)
        started: Any = redis.hgetall("started")
    return {
        length: sum(int(started[name]) for name in names if names[name] == length) / COPIES
        for length in lengths
    }


def send(redis_url: str, names: dict[str, float]) -> None:
    with Celery(broker=redis_url) as celery:  # type: ignore[no-untyped-call]
        for name, length in names.items():
            celery.send_task("nap", [name, length], ignore_result=True)


@contextmanager
def worker(redis_url: str, timeout: float) -> Iterator[None]:
    """A worker that naps, killed at the end of the block: copies may still be asleep."""
    environment = {**os.environ, "REDIS_URL": redis_url, "VISIBILITY_TIMEOUT": str(timeout)}
    with tempfile.TemporaryDirectory(prefix="unblocked-") as logs:
        running = Supervised({"worker": WORKER}, ROOT, environment, Path(logs))
        try:
            yield
        finally:
            running.hurt("worker")
            running.stop()
