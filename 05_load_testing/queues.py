"""What waits in the queues: how much, since when, and when that is too much.

A queue without a bound takes everything and finishes nothing in time. With one, some are told at
once to come later, and those who are let in are served as promised.
"""

import json
import math
import os
import time

from werkzeug.exceptions import TooManyRequests

import jobs
from celery_app import BULK

MOST_WAITING = int(os.environ.get("MOST_WAITING", "1000"))  # tasks in a queue
# Seconds. At twice the load that the slots can bear, whoever comes now will wait twice as long as
# the first has; and `slo.toml` promises ten.
LONGEST_WAIT = float(os.environ.get("LONGEST_WAIT", "4"))


def look(queue: str) -> tuple[int, float]:
    """How many tasks wait, and the seconds for which the first of them has waited."""
    with jobs.store.pipeline(transaction=False) as read:
        read.llen(queue)
        read.lindex(queue, -1)
        depth, first = read.execute()
    if first is None:
        return 0, 0.0
    published: float = json.loads(first)["headers"].get("published_at", time.time())
    return depth, max(0.0, time.time() - published)


def let_in(queue: str) -> None:
    """Raise TooManyRequests (429), with a time to come again, if the queue is full.

    Whoever comes when the first has waited for so long would wait longer still.
    """
    depth, age = look(queue)
    if depth >= MOST_WAITING or age >= LONGEST_WAIT:
        detail = f"{depth} tasks wait in {queue}, the first for {age:.0f} s. Nothing was accepted."
        raise TooManyRequests(detail, retry_after=max(1, math.ceil(age)))


def in_line(job: jobs.Job) -> bool:
    """Whether the job's task can still be in its queue, behind others as old.

    A second message for it would bring nothing, and make the queue longer: which makes more
    jobs wait so long that they are sent a second time.
    """
    sent, spread = jobs.sent(job)
    depth, age = look("reports" if job.kind == "report" else BULK if spread else "mail")
    return depth > 0 and time.time() - age <= sent + 1
