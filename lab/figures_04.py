"""The figures of chapter 04: what watching costs, how soon it tells, and what isolation buys."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pandas as pd
import requests

from lab import experiments, faults, outages
from lab.chapters import Chapter, start
from lab.load import ENDED, addresses, finish, percentile, post
from lab.prometheus import Prometheus, watching
from lab.results import spread
from lab.waiting import wait_until

LETTER = {"subject": "News", "body": "Hello", "recipients": addresses(1)}


def cost() -> dict[str, Any]:
    """04 over 03: POST to 202, and newsletters a second. Both run; they are asked in turn."""
    slots, rounds = 4, 5
    ratios: dict[str, list[float]] = {"POST p50": [], "throughput": []}
    with start("03", MAIL_SLOTS=slots) as before, start("04", MAIL_SLOTS=slots) as after:
        for chapter in (before, after):
            accepted(before, after)  # the first connections are slow: not counted
            chapter.mailbox.empty()
        for _ in range(rounds):
            for chapter in (before, after):
                chapter.mailbox.set(delay=0)
            old, new = accepted(before, after)
            ratios["POST p50"].append(new / old)
            for chapter in (before, after):
                wait_for_empty_queues(chapter)
            shares = [
                experiments.throughput(chapter, slots, rounds=5) for chapter in (before, after)
            ]
            ratios["throughput"].append(shares[1] / shares[0])
    return {name: spread(values) for name, values in ratios.items()}


def accepted(*chapters: Chapter, count: int = 300) -> list[float]:
    """Median ms of POST to 202 in each chapter; one client asks them in turn."""
    waits: list[list[float]] = [[] for _ in chapters]
    with requests.Session() as session:
        for _ in range(count):
            for chapter, times in zip(chapters, waits, strict=True):
                begun = time.perf_counter()
                session.post(f"{chapter.url}/newsletters", json=LETTER).raise_for_status()
                times.append((time.perf_counter() - begun) * 1000)
    return [percentile(pd.Series(times), 50) for times in waits]


def wait_for_empty_queues(chapter: Chapter) -> None:
    wait_until(lambda: all(job["state"] in ENDED for job in outages.recent(chapter)), 60)


def isolation() -> dict[str, Any]:
    """Newsletters while reports flood: one pool of six for both, against four and two."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"wait p95": [], "reports": []} for name in ("shared", "separate")
    }
    for _ in range(3):
        for name in found:
            shared = name == "shared"
            slots = 6 if shared else 4  # and two for reports, if not shared
            with start("04", shared_pool=shared, MAIL_DELAY=0.05, MAIL_SLOTS=slots) as chapter:
                waits, seconds = flooded(chapter)
            found[name]["wait p95"].append(percentile(pd.Series(waits), 95))
            found[name]["reports"].append(seconds)
    return {
        name: {key: spread(values) for key, values in table.items()}
        for name, table in found.items()
    }


def flooded(
    chapter: Chapter, reports: int = 40, letters: int = 30, lines: int = 200_000
) -> tuple[list[float], float]:
    """Send `reports` reports of so many lines, then a newsletter every 0.3 s.

    Returns the seconds from each POST to the first mail, and those until all reports are made.
    """
    finish(chapter.url, post(chapter.url, "/newsletters", LETTER))
    begun = time.monotonic()
    answers = [post(chapter.url, "/reports", {"lines": lines}) for _ in range(reports)]
    sent: dict[str, float] = {}
    for n in range(letters):
        time.sleep(max(0.0, begun + 0.3 * n - time.monotonic()))
        at = time.time()
        sent[post(chapter.url, "/newsletters", LETTER).json()["id"]] = at
    for answer in answers:
        assert finish(chapter.url, answer, every=0.2)["state"] == "SUCCESS"
    seconds = time.monotonic() - begun
    wait_until(lambda: all(chapter.mailbox.messages(job) for job in sent), 60)
    return [chapter.mailbox.messages(job)[0]["received"] - at for job, at in sent.items()], seconds


def recovery() -> dict[str, Any]:
    """The mail server drops every mail for ten seconds, in the middle of five newsletters."""
    found: dict[str, list[float]] = {"lost": [], "twice": [], "seconds": []}
    recipients, letters, away = 20, 5, 10.0
    with start("04", MAIL_DELAY=0.1) as chapter:
        for _ in range(5):
            letter = LETTER | {"recipients": addresses(recipients)}
            answers = [post(chapter.url, "/newsletters", letter) for _ in range(letters)]
            jobs = [answer.json()["id"] for answer in answers]
            wait_until(lambda: faults.arrived(chapter, jobs) >= recipients, 30)  # noqa: B023
            chapter.mailbox.set(drop_every=1)
            time.sleep(away)
            chapter.mailbox.set(drop_every=0)
            back = time.monotonic()
            for answer in answers:
                assert finish(chapter.url, answer)["state"] == "SUCCESS"
            found["seconds"].append(time.monotonic() - back)
            counts = [chapter.mailbox.count(addresses(recipients), job) for job in jobs]
            found["lost"].append(sum(count.lost for count in counts))
            found["twice"].append(sum(count.twice for count in counts))
    mails = letters * recipients
    return {"mails": mails, "away": away} | {name: spread(v) for name, v in found.items()}


SIGNS = ("log", "health", "alert")


def detection() -> dict[str, Any]:
    """Each outage three times: what tells first in the logs, in `/health`, and as an alert."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in outages.OUTAGES}
    with start("04") as chapter, watching(chapter) as prometheus:
        for _ in range(3):
            for name in found:
                wait_until(lambda: not prometheus.firing() and well(chapter), 90)
                found[name].append(detect(chapter, prometheus, name))
                outages.mend(chapter)
    return {name: {sign: first(seen, sign) for sign in SIGNS} for name, seen in found.items()}


def detect(
    chapter: Chapter, prometheus: Prometheus | None, name: str, enough: int = len(SIGNS)
) -> dict[str, Any]:
    """What each sign said first, and after how many seconds; nothing if it was silent for 40 s.

    Ends sooner if `enough` signs have told. Without a Prometheus there are no alerts.
    """
    seen: dict[str, Any] = {}
    read = {name: len(chapter.log(name, 10**6)) for name in ("web", "mail", "report", "beat")}
    begun = time.monotonic()
    over = threading.Event()

    def look(sign: str, at: Callable[[], str | None]) -> None:
        while sign not in seen and not over.wait(0.1):
            if said := at():
                seen[sign] = (said, time.monotonic() - begun)

    looks: dict[str, Callable[[], str | None]] = {
        "log": lambda: complaint(chapter, read),
        "health": lambda: sickness(chapter),
    }
    if prometheus is not None:
        firing = prometheus.firing
        looks["alert"] = lambda: ", ".join(sorted(firing()))
    with ThreadPoolExecutor(len(looks)) as pool:
        for sign, at in looks.items():
            pool.submit(look, sign, at)
        outages.OUTAGES[name][1](chapter)
        while len(seen) < enough and time.monotonic() - begun < 40:
            time.sleep(0.1)
        over.set()
    return seen


def complaint(chapter: Chapter, read: dict[str, int]) -> str | None:
    """The first new line of a log that is a warning or worse, or that says RETRY."""
    for service, position in read.items():
        for text in chapter.log(service, 10**6)[position:].splitlines():
            line = json.loads(text) if text.startswith("{") else {"level": "", "event": ""}
            if line["level"] in ("warning", "error", "critical") or " RETRY" in line["event"]:
                return f"{service}: {line['event'][:60]}"
    return None


def sickness(chapter: Chapter) -> str | None:
    """What `/health/…` says when it is not 200."""
    for name in ("live", "ready", "workers"):
        try:
            answer = requests.get(f"{chapter.url}/health/{name}", timeout=3)
        except requests.RequestException:
            return f"/health/{name} does not answer"
        if not answer.ok:
            queues = answer.json().get("queues", {})
            states = [f"{queue} {found['state']}" for queue, found in queues.items()]
            sick = [state for state in states if "ing" not in state and "busy" not in state]
            return f"/health/{name}: {', '.join(sick) or answer.status_code}"
    return None


def well(chapter: Chapter) -> bool:
    return sickness(chapter) is None


def first(seen: list[dict[str, Any]], sign: str) -> dict[str, Any] | None:
    """Words and seconds of one sign over all runs; None if it was silent in one of them."""
    if not all(sign in run for run in seen):
        return None
    return {"says": seen[0][sign][0], "seconds": spread([run[sign][1] for run in seen])}


def fault_table() -> dict[str, Any]:
    """The fault table of chapter 03, on 04: each row three times."""
    rows = list(faults.FAULTS)
    with ThreadPoolExecutor(3) as pool:
        tables = list(pool.map(lambda _: faults.hurt_in_turn(rows, number="04"), range(3)))
    return {row: [asdict(table[row]) for table in tables] for row in rows}
