"""Follow jobs by asking and by being told: how old each step is when it is heard of, and at what
price in requests.

The age of a step: seconds from the step done, by the server's clock, to the first news that
includes it. Whoever asks every T seconds hears of a step T / 2 late on average, if steps come at
any time: as many come early in the pause as late.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

import pandas as pd
import requests

from lab.chapters import Chapter, gunicorn
from lab.figures_02 import newsletter
from lab.load import ENDED
from lab.watch import Watcher

TRANSPORTS = {"long polling": "polling", "upgrade": "", "WebSocket": "websocket"}
"""The ways to be told, and the transport of each; "upgrade" begins with a poll."""

COUNTED = gunicorn("count_requests.py")
"""Settings for `lab.start`: the web server writes a line for each request, as it comes in."""


@dataclass(frozen=True)
class News:
    """When somebody heard how far a job is: seconds since the epoch, and the steps done."""

    when: float
    done: int


def every(seconds: float) -> str:
    """The name of a way: asking every so many seconds."""
    return f"every {seconds:g} s"


def follow(chapter: Chapter, mails: int, pauses: Sequence[float]) -> pd.DataFrame:
    """Send one newsletter and follow it in all ways at once.

    Some ask, each with its own of the `pauses` (seconds); some are told, by each of TRANSPORTS.
    Returns a row for each way and step, `way` and `age` (seconds). Steps that were done before
    everybody followed are left out.
    """
    with ExitStack() as stack, ThreadPoolExecutor(len(pauses)) as pool:
        watchers = {way: stack.enter_context(told(chapter.url, way)) for way in TRANSPORTS}
        job = newsletter(chapter, mails)
        asking = {every(pause): pool.submit(ask, chapter.url, job, pause) for pause in pauses}
        for watcher in watchers.values():
            watcher.watch(job)
        all_follow = time.time()
        for watcher in watchers.values():
            watcher.wait_for_end(job)
        heard = {way: asker.result() for way, asker in asking.items()}
    heard |= {way: news_of(watcher) for way, watcher in watchers.items()}
    steps = [(step, at) for step, at in times(watchers["WebSocket"]).items() if at > all_follow]
    rows = [(way, first(news, step) - at) for way, news in heard.items() for step, at in steps]
    return pd.DataFrame(rows, columns=["way", "age"])


def ask(url: str, job: str, pause: float) -> list[News]:
    """Ask how far the job is every `pause` seconds until it has ended, as `follow.js` does."""
    news, due = [], time.monotonic()
    by = {"by": every(pause)}
    with requests.Session() as session:
        while True:
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))
            document = session.get(f"{url}/jobs/{job}", params=by, timeout=30).json()
            news.append(News(time.time(), document["done"]))
            if document["state"] in ENDED:
                return news


def told(url: str, way: str, name: str = "") -> Watcher:
    """A client that is told, by one of TRANSPORTS; its requests go under `name`, or the way's."""
    return Watcher(f"{url}?{urlencode({'by': name or way})}", TRANSPORTS[way])


def news_of(watcher: Watcher) -> list[News]:
    """What was pushed to a client, and when it came."""
    return [
        News(receipt.document["at"] + receipt.latency, receipt.document["done"])
        for receipt in watcher.receipts
    ]


def times(watcher: Watcher) -> dict[int, float]:
    """When each step was done, by the server's clock, in seconds since the epoch."""
    found: dict[int, float] = {}
    for receipt in watcher.receipts:
        found.setdefault(receipt.document["done"], receipt.document["at"])
    return found


def first(news: list[News], step: int) -> float:
    """When somebody first heard that so many steps are done."""
    return min(each.when for each in news if each.done >= step)


def requests_by_way(chapter: Chapter) -> dict[str, int]:
    """How many requests the web server got from each who follows. It runs with COUNTED."""
    found: dict[str, int] = {}
    for line in chapter.log("web", lines=100_000).splitlines():
        query = urlsplit(line.partition(" REQUEST ")[2]).query
        for way in parse_qs(query).get("by", []):
            found[way] = found.get(way, 0) + 1
    return found


def events(
    chapter: Chapter, url: str, place: str, newsletters: int, mails: int, mail_delay: float
) -> pd.DataFrame:
    """Have all steps of some newsletters pushed to `url`, by long polling and by WebSocket.

    The newsletters begin at even distances within `mail_delay` seconds, which one mail takes, so
    that the steps come at even distances too. Returns a row for each event, `way`
    ("WebSocket, `place`", …) and `age` (seconds).
    """
    ways = [(way, f"{way}, {place}") for way in ("WebSocket", "long polling")]
    with ExitStack() as stack, ThreadPoolExecutor(len(ways) * newsletters) as pool:
        watchers = {name: stack.enter_context(told(url, way, name)) for way, name in ways}
        jobs, watching = [], []
        for _ in range(newsletters):
            jobs.append(newsletter(chapter, mails))
            watching += [pool.submit(each.watch, jobs[-1]) for each in watchers.values()]
            time.sleep(mail_delay / newsletters)
        for each in watching:
            each.result()
        for watcher in watchers.values():
            for job in jobs:
                watcher.wait_for_end(job)
    rows = [
        (name, receipt.latency)
        for name, watcher in watchers.items()
        for receipt in watcher.receipts
    ]
    return pd.DataFrame(rows, columns=["way", "age"])
