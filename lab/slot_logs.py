"""How long each newsletter waited for a slot and held it, as the chapter's own logs tell.

From chapter 04 on, web and mail worker log in JSON, and each line about a job names it.
"""

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pandas as pd

from lab.chapters import Chapter
from lab.load import locust_rows

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
