"""How long each newsletter waited for a slot and held it, as the chapter's own logs tell.

From chapter 04 on, web and mail worker log in JSON, and each line about a job names it.
"""

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from lab.chapters import Chapter
from lab.load import addresses, finish, locust_rows, post

STREAMS = 10
TOOK = re.compile(r"^Task newsletter\[.*\] succeeded in ([\d.e-]+)s")


def crowd(chapter: Chapter, rate: float, seconds: float) -> pd.DataFrame:
    """Newsletters of one mail at random, `rate` a second, until the last is sent.

    Returns one row for each, in the order of arrival: `accepted` (seconds from the first; when the
    web process answered), `held` (seconds in a slot) and `wait` (seconds in between).
    """
    begun = time.time()
    options = ["--tags", "newsletter", "-u", STREAMS, "--rate", rate / STREAMS]
    locust_rows(
        chapter.url, "OpenPublisher", *map(str, options), "-t", f"{seconds}s", "--recipients", "1"
    )
    return newsletters(chapter, begun)


def handover(chapter: Chapter, slots: int, rounds: int) -> float:
    """Seconds from one newsletter's end until its slot begins with the next: the median.

    Sends `rounds` newsletters for each slot at once, and waits for their end: so that somebody
    always waits for a slot.
    """
    begun = time.time()
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(1)}
    answers = [post(chapter.url, "/newsletters", letter) for _ in range(rounds * slots)]
    for answer in answers:
        finish(chapter.url, answer)
    table = newsletters(chapter, begun)
    begins = (table.accepted + table.wait).sort_values().to_numpy()
    ends = (table.accepted + table.wait + table.held).sort_values().to_numpy()
    waited = table.accepted.to_numpy()[slots:] < ends[:-slots]
    return float(np.median((begins[slots:] - ends[:-slots])[waited]))


def newsletters(chapter: Chapter, since: float = 0.0) -> pd.DataFrame:
    """The newsletters that were accepted since then (seconds since 1970), as `crowd` has them."""
    accepted, ended = {}, {}
    for line in lines(chapter, "web"):
        if line["event"] == "POST /newsletters" and line["status"] == 202:
            accepted[line["job"]] = seconds(line)
    for line in lines(chapter, "mail"):
        if took := TOOK.match(line["event"]):
            ended[line["job"]] = (seconds(line), float(took[1]))
    rows = [
        (came, held, end - held - came)
        for job, came in accepted.items()
        if came >= since and job in ended
        for end, held in [ended[job]]
    ]
    table = pd.DataFrame(rows, columns=["accepted", "held", "wait"]).sort_values("accepted")
    table["accepted"] -= table.accepted.min()
    return table.reset_index(drop=True)


def lines(chapter: Chapter, name: str) -> Iterator[dict[str, Any]]:
    """The JSON lines that process `name` has logged."""
    for line in (chapter.logs / f"{name}.log").read_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def seconds(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()
